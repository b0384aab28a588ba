"""What a try does, for every possible record of earlier tries."""

from __future__ import annotations

import itertools

import pytest

from airflow_provider_regal.delivery.resume import Work, what_to_do
from airflow_provider_regal.ledger.deliveries import (
    EXPIRED,
    FAILED,
    FINISHED,
    PLANNED,
    READING,
    REPLACED,
    SENDING,
    STOPPED,
    Record,
    Try,
)

BOOLS = (False, True)
RESUMING = (Work.RESUME, Work.RESUME_WITH_REJECTED)
FACTS = {
    "id": 7, "incarnation": 1, "account": "acme", "dag_id": "d", "run_id": "r", "task_id": "t", "map_index": -1,
    "name": None, "call": "track", "source": "same", "options": "o", "epoch": 0, "try_number": 1, "restarted": 0,
    "holder": None, "held_at": None, "hold_s": 34, "state": STOPPED, "kept_rows": 10, "read_rows": 10,
    "acknowledged": 3, "rejected": 1, "unknown": 1, "skipped": 0, "rate": 100, "counts": "{}", "error": None,
    "started_at": "2026-11-24T02:00:00.000000Z", "ended_at": None,
}  # fmt: skip


def record(source="same", epoch=0, number=1, *, restarted=False, state=STOPPED, kept=10, plan=None, sender=None):
    return Record(
        **{
            **FACTS, "source": source, "epoch": epoch, "try_number": number, "restarted": int(restarted),
            "state": state, "kept_rows": kept, "plan": plan, "sender": sender,
        }
    )  # fmt: skip


RECORDS = [
    None,
    *(
        record(source, epoch, number, restarted=restarted, state=state, kept=kept)
        for source, epoch, number, restarted, (state, kept) in itertools.product(
            ("same", "other"),
            (0, 1, 2),
            (1, 2, 3),
            BOOLS,
            [
                (READING, None), (SENDING, 10), (STOPPED, None), (STOPPED, 10), (FAILED, None), (FAILED, 10),
                (FINISHED, 10), (REPLACED, None), (REPLACED, 10),
            ],
        )
    ),
]  # fmt: skip
CASES = [
    (before, Try(1, number), {"named": named, "restart": restart, "may_have_sent": sent})
    for before, number, named, restart, sent in itertools.product(RECORDS, (1, 2, 3), BOOLS, BOOLS, BOOLS)
    if not (sent and (before is None or before.kept_rows is None))
]


def plan(before, this, **told):
    return what_to_do(before, this, fingerprint="same", **told)


def is_retry(before, this):
    return before is not None and before.epoch == this.epoch and before.try_number < this.number


def is_another_incarnation(before, this):
    """A run that was deleted and made again, or whose delivery was replaced."""
    return before is not None and (
        before.state == REPLACED
        or (before.epoch == this.epoch and before.try_number >= this.number and before.state in (FINISHED, FAILED))
    )


def told_to_restart(before, this, told):
    """Whether restart is still to be obeyed: once an epoch."""
    return told["restart"] and not (is_retry(before, this) and before.restarted)


def failing(rule):
    """The cases that break a rule."""
    return [
        (before, this, told) for before, this, told in CASES if not rule(plan(before, this, **told), before, this, told)
    ]


def test_named_events_never_start_over_after_rows_may_have_been_sent():
    assert not failing(
        lambda made, before, this, told: (
            not (told["named"] and told["may_have_sent"] and made.work in (Work.START, Work.READ_AGAIN))
            or told_to_restart(before, this, told)
            or is_another_incarnation(before, this)
        )
    )


def test_restart_is_obeyed_once_and_a_retry_then_resumes():
    for before, this, told in CASES:
        made = plan(before, this, **told)
        if told_to_restart(before, this, told):
            assert (made.work, made.restarted) == (Work.START, True)
        elif told["restart"]:
            assert made == plan(before, this, **{**told, "restart": False})
        else:
            assert not made.restarted


def test_resuming_needs_the_rows_and_the_same_source():
    assert not failing(
        lambda made, before, this, told: (
            made.work not in RESUMING
            or (before.kept_rows is not None and before.source == "same" and before.state not in (FINISHED, REPLACED))
        )
    )


def test_a_delivery_is_read_again_only_if_nothing_of_it_was_sent_or_it_is_not_the_same_source_of_contacts():
    assert not failing(
        lambda made, before, this, told: (
            made.work is not Work.READ_AGAIN or not told["may_have_sent"] or not told["named"]
        )
    )


def test_contacts_fail_only_where_a_retry_finds_another_source():
    assert not failing(
        lambda made, before, this, told: (
            told["named"]
            or made.work is not Work.FAIL
            or (is_retry(before, this) and before.source == "other" and told["may_have_sent"])
        )
    )


def test_contacts_are_read_again_in_a_new_delivery_after_every_clear():
    assert not failing(
        lambda made, before, this, told: (
            told["named"] or before is None or is_retry(before, this) or made.work is Work.START
        )
    )


def test_contacts_never_start_over_on_a_retry():
    assert not failing(
        lambda made, before, this, told: (
            told["named"]
            or not is_retry(before, this)
            or made.work is not Work.START
            or before.state == REPLACED
            or told_to_restart(before, this, told)
        )
    )


def test_rejected_rows_are_tried_again_only_after_a_clear_or_a_failure_of_named_events():
    assert not failing(
        lambda made, before, this, told: (
            made.work is not Work.RESUME_WITH_REJECTED
            or (told["named"] and (not is_retry(before, this) or before.state == FAILED))
        )
    )


def test_nothing_to_do_is_said_only_of_what_had_finished():
    assert not failing(
        lambda made, before, this, told: (
            made.work is not Work.NOTHING or (before.state == FINISHED and (told["named"] or is_retry(before, this)))
        )
    )


def test_what_is_not_simply_begun_is_explained():
    assert not failing(lambda made, before, this, told: made.work in (Work.START, Work.READ_AGAIN) or made.message)
    assert not failing(lambda made, before, this, told: made.work is not Work.FAIL or "restart=True" in made.message)


SENT, NEW = {"may_have_sent": True}, {"may_have_sent": False}


@pytest.mark.parametrize(
    ("before", "this", "facts", "named", "contacts"),
    [
        (None, Try(), NEW, Work.START, Work.START),
        (None, Try(0, 2), NEW, Work.START, Work.START),
        (record(), Try(0, 2), SENT, Work.RESUME, Work.RESUME),
        (record(state=SENDING), Try(0, 2), SENT, Work.RESUME, Work.RESUME),
        (record(state=READING, kept=None), Try(0, 2), NEW, Work.READ_AGAIN, Work.READ_AGAIN),
        (record("other"), Try(0, 2), SENT, Work.FAIL, Work.FAIL),
        (record("other"), Try(0, 2), NEW, Work.READ_AGAIN, Work.READ_AGAIN),
        (record(state=FINISHED), Try(0, 2), SENT, Work.NOTHING, Work.NOTHING),
        (record(state=FAILED), Try(0, 2), SENT, Work.RESUME_WITH_REJECTED, Work.RESUME),
        (record(state=FINISHED), Try(1, 2), SENT, Work.NOTHING, Work.START),
        (record("other", state=FINISHED), Try(1, 2), SENT, Work.NOTHING, Work.START),
        (record(), Try(1, 2), SENT, Work.RESUME_WITH_REJECTED, Work.START),
        (record(state=FAILED), Try(1, 2), SENT, Work.RESUME_WITH_REJECTED, Work.START),
        (record(state=FAILED, kept=None), Try(1, 2), NEW, Work.READ_AGAIN, Work.START),
        (record("other", state=FAILED), Try(1, 2), SENT, Work.FAIL, Work.START),
        (record(number=3, state=FINISHED), Try(0, 1), SENT, Work.START, Work.START),
        (record(number=3, state=FAILED), Try(0, 3), SENT, Work.START, Work.START),
        (record(state=REPLACED), Try(0, 2), SENT, Work.START, Work.START),
    ],
    ids=[
        "new", "new, of a later try", "retry", "retry of a dead one", "retry before all was read",
        "retry with another source", "retry with another source, nothing sent", "finished, retried", "failed, retried",
        "finished, cleared", "finished, cleared, another source", "stopped, cleared", "failed, cleared",
        "stopped by a guard, cleared", "failed, cleared, another source", "an earlier run of the same name",
        "an earlier run of the same name that had failed", "replaced",
    ],
)  # fmt: skip
def test_the_table_of_the_design(before, this, facts, named, contacts):
    told = {"restart": False, **facts}
    assert plan(before, this, named=True, **told).work is named
    assert plan(before, this, named=False, **told).work is contacts


def test_the_message_says_what_was_done_so_far():
    assert plan(record(), Try(0, 2), named=True, restart=False, may_have_sent=True).message == (
        "Resuming delivery 7: 5 of 10 rows are settled."
    )


PLAN, TAKEN = {"plan": "{}"}, {"plan": "{}", "sender": "[]"}


@pytest.mark.parametrize(
    ("before", "this", "facts", "named", "contacts"),
    [
        (None, Try(), NEW, Work.START, Work.START),
        (record(state=READING, kept=None, **PLAN), Try(0, 2), NEW, Work.READ_AGAIN, Work.READ_AGAIN),
        (record(state=SENDING, **PLAN), Try(0, 2), SENT, Work.RESUME, Work.RESUME),
        (record(state=STOPPED, **PLAN), Try(1, 2), SENT, Work.START, Work.START),
        (record(state=PLANNED, **PLAN), Try(0, 2), NEW, Work.NOTHING, Work.NOTHING),
        (record("other", state=PLANNED, **PLAN), Try(0, 2), NEW, Work.START, Work.START),
        (record(state=PLANNED, **PLAN), Try(1, 2), SENT, Work.START, Work.START),
        (record(state=FAILED, **PLAN), Try(1, 2), SENT, Work.START, Work.START),
        (record("rows dropped", state=EXPIRED, **PLAN), Try(1, 2), NEW, Work.START, Work.START),
        (record(state=FINISHED, **TAKEN), Try(1, 2), SENT, Work.NOTHING, Work.START),
        (record(state=STOPPED, **TAKEN), Try(1, 2), SENT, Work.FAIL, Work.START),
        (record(state=FAILED, **TAKEN), Try(1, 2), SENT, Work.FAIL, Work.START),
        (record(state=STOPPED, **TAKEN), Try(1, 2), NEW, Work.START, Work.START),
        (record(state=FINISHED, **TAKEN), Try(0, 1), SENT, Work.START, Work.START),
        (record(state=REPLACED, **TAKEN), Try(1, 2), SENT, Work.START, Work.START),
        (record(state=FINISHED), Try(1, 2), SENT, Work.NOTHING, Work.START),
        (record(state=STOPPED), Try(0, 2), SENT, Work.FAIL, Work.START),
    ],
    ids=[
        "new", "killed while it was read", "killed while its opt-outs were sent", "stopped, cleared",
        "planned, retried", "planned, retried with another source", "planned, cleared", "failed", "expired",
        "sent", "sent in part", "sent, and failed", "taken, nothing sent", "an earlier run of the same name",
        "replaced", "sent before plan was set", "sent in part before plan was set",
    ],
)  # fmt: skip
def test_the_table_of_plans(before, this, facts, named, contacts):
    told = {"restart": False, "plans": True, **facts}
    assert plan(before, this, named=True, **told).work is named
    assert plan(before, this, named=False, **told).work is contacts


@pytest.mark.parametrize(
    ("before", "named"),
    [
        (record(state=PLANNED, **PLAN), Work.START),
        (record(state=STOPPED, **PLAN), Work.START),
        (record(state=FINISHED, **TAKEN), Work.NOTHING),
        (record(state=STOPPED, **TAKEN), Work.FAIL),
    ],
    ids=["planned", "stopped", "sent", "sent in part"],
)
def test_a_task_that_does_not_plan_any_more_never_sends_what_was_planned(before, named):
    for this in (Try(0, 2), Try(1, 2)):
        made = plan(before, this, named=True, restart=False, may_have_sent=before.sender is not None)
        assert made.work is named
