"""What a try does, over everything a folder can say."""

from __future__ import annotations

import itertools

import pytest

from airflow_provider_regal.delivery.tries import Try, Work, plan_try
from airflow_provider_regal.journal.marker import Marker

BOOLS = (False, True)
MARKERS = [
    None,
    *(
        Marker(source, epoch, number, restarted, outcome)
        for source, epoch, number, restarted, outcome in itertools.product(
            ("same", "other"), (0, 1, 2), (1, 2, 3), BOOLS, (None, "failed", "finished")
        )
    ),
]
CASES = [
    (marker, Try(1, number), {"named": n, "restart": r, "snapshot_complete": c, "may_have_sent": m, "lost": lost})
    for marker, number, n, r, c, m, lost in itertools.product(MARKERS, (1, 2, 3), BOOLS, BOOLS, BOOLS, BOOLS, BOOLS)
    if marker is not None or not (c or m)
]


def plan(marker, this, **told):
    return plan_try(marker, this, fingerprint="same", **told)


def is_retry(marker, this):
    return marker is not None and marker.epoch == this.epoch and marker.try_number < this.number


def told_to_restart(marker, this, told):
    """Whether restart is still to be obeyed: once an epoch."""
    return told["restart"] and not (is_retry(marker, this) and marker.restarted)


def failing(rule):
    """The cases that break a rule."""
    return [
        (marker, this, told) for marker, this, told in CASES if not rule(plan(marker, this, **told), marker, this, told)
    ]


def test_named_events_never_start_over_after_rows_may_have_been_sent():
    assert not failing(
        lambda made, marker, this, told: (
            not (
                told["named"]
                and (told["may_have_sent"] or (marker is None and told["lost"]))
                and made.work is Work.START
            )
            or told_to_restart(marker, this, told)
        )
    )


def test_restart_is_obeyed_once_and_a_retry_then_goes_on():
    for marker, this, told in CASES:
        made = plan(marker, this, **told)
        if told_to_restart(marker, this, told):
            assert made.work is Work.START
        elif told["restart"]:
            assert made == plan(marker, this, **{**told, "restart": False})


def test_going_on_needs_the_rows_and_the_same_source():
    assert not failing(
        lambda made, marker, this, told: (
            made.work not in (Work.GO_ON, Work.GO_ON_WITH_REJECTED)
            or (told["snapshot_complete"] and marker.fingerprint == "same" and marker.outcome != "finished")
        )
    )


def test_contacts_fail_only_where_a_retry_finds_another_source():
    assert not failing(
        lambda made, marker, this, told: (
            told["named"]
            or made.work is not Work.FAIL
            or (is_retry(marker, this) and marker.fingerprint == "other" and told["may_have_sent"])
        )
    )


def test_contacts_are_read_again_after_every_clear():
    assert not failing(
        lambda made, marker, this, told: (
            told["named"] or marker is None or is_retry(marker, this) or made.work is Work.START
        )
    )


def test_rejected_rows_are_tried_again_only_after_a_clear_of_named_events():
    assert not failing(
        lambda made, marker, this, told: (
            made.work is not Work.GO_ON_WITH_REJECTED or (told["named"] and not is_retry(marker, this))
        )
    )


def test_nothing_to_do_is_said_only_of_what_had_finished():
    assert not failing(
        lambda made, marker, this, told: (
            made.work is not Work.NOTHING
            or (marker.outcome == "finished" and (told["named"] or is_retry(marker, this)))
        )
    )


def test_whatever_is_not_simply_begun_is_explained():
    assert not failing(lambda made, marker, this, told: made.work is Work.START or made.say)
    assert not failing(lambda made, marker, this, told: made.work is not Work.FAIL or "restart=True" in made.say)


SENT = {"snapshot_complete": True, "may_have_sent": True}
NEW = {"snapshot_complete": False, "may_have_sent": False}


@pytest.mark.parametrize(
    ("marker", "this", "facts", "named", "contacts"),
    [
        (None, Try(), NEW, Work.START, Work.START),
        (None, Try(0, 2), {**NEW, "lost": True}, Work.FAIL, Work.START),
        (Marker("same", 0, 1), Try(0, 2), SENT, Work.GO_ON, Work.GO_ON),
        (Marker("same", 0, 1), Try(0, 2), NEW, Work.START, Work.START),
        (Marker("same", 0, 1), Try(0, 2), {**SENT, "snapshot_complete": False}, Work.FAIL, Work.START),
        (Marker("other", 0, 1), Try(0, 2), SENT, Work.FAIL, Work.FAIL),
        (Marker("other", 0, 1), Try(0, 2), {**SENT, "may_have_sent": False}, Work.START, Work.START),
        (Marker("same", 0, 1, outcome="finished"), Try(1, 2), SENT, Work.NOTHING, Work.START),
        (Marker("same", 0, 1, outcome="failed"), Try(1, 2), SENT, Work.GO_ON_WITH_REJECTED, Work.START),
        (Marker("same", 0, 1, outcome="failed"), Try(0, 2), SENT, Work.GO_ON, Work.GO_ON),
        (Marker("other", 0, 1, outcome="finished"), Try(1, 2), SENT, Work.FAIL, Work.START),
        (Marker("same", 0, 3), Try(0, 1), SENT, Work.GO_ON_WITH_REJECTED, Work.START),
        (Marker("same", 0, 3, outcome="finished"), Try(0, 3), SENT, Work.NOTHING, Work.START),
    ],
    ids=[
        "new", "lost", "retry", "retry before all was read", "retry whose rows are gone", "retry with another source",
        "retry with another source, nothing sent", "finished, cleared", "failed, cleared", "failed, retried",
        "finished, cleared, another source", "an earlier run of the same name", "the same try once more",
    ],
)  # fmt: skip
def test_the_table_of_the_design(marker, this, facts, named, contacts):
    told = {"restart": False, "lost": False, **facts}
    assert plan(marker, this, named=True, **told).work is named
    assert plan(marker, this, named=False, **told).work is contacts
