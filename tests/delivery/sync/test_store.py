"""The temporary database of a sync: both sides in one file, and the results of comparing them."""

from __future__ import annotations

import sqlite3
from contextlib import closing

import pytest

from airflow_provider_regal.delivery.sync.store import SyncStore, Wanted
from tests.ledger.view import open_database

H1, H2, H3 = ("1" * 32, "2" * 32, "3" * 32)


@pytest.fixture
def store():
    made = SyncStore()
    yield made
    made.close()


def entry(
    key, subscribed=1, at="t5", opt_out_at=None, state="acknowledged", pending=(None, None), row_hash=None,
    source="me", inferred_at=None,
):  # fmt: skip
    return (key, "sms", subscribed, at, opt_out_at, state, *pending, source, inferred_at, row_hash)


def want(store, key, subscribed, at, *, timeless=0, row_hash="x1"):
    store.want(key, Wanted(key, "sms", subscribed, at, timeless, None, None, None, None, row_hash))


def kind(store, known, subscribed, at, *, once=False, **options):
    store.know(known)
    want(store, "k", subscribed, at, **options)
    store.compare(once=once, source="me")
    kinds = ("new", "changed", "unchanged", "stale", "superseded", "in_doubt")
    (found,) = [one for one in kinds if store.count(one)]
    return found


@pytest.mark.parametrize(
    ("known", "subscribed", "at", "expected"),
    [
        ([], 1, "t5", "new"),
        ([entry("k")], 1, "t5", "unchanged"),
        ([entry("k")], 1, "t6", "changed"),
        ([entry("k")], 1, "t4", "stale"),
        ([entry("k")], 0, "t5", "changed"),
        ([entry("k")], 0, "t4", "stale"),
        ([entry("k", 0, "t5", "t5")], 1, "t5", "stale"),
        ([entry("k", 0, "t5", "t5")], 1, "t6", "changed"),
        ([entry("k", 0, "t5", "t5")], 0, "t5", "unchanged"),
        ([entry("k", None, None, "t5", "barrier")], 1, "t5", "stale"),
        ([entry("k", None, None, "t5", "barrier")], 1, "t6", "new"),
        ([entry("k", None, None, "t5", "barrier")], 0, "t5", "new"),
        ([entry("k", 1, "t5", "t7")], 1, "t6", "stale"),
        ([entry("other")], 1, "t5", "new"),
        ([entry("k", 0, "t9", inferred_at="t9")], 1, "t5", "changed"),
        ([entry("k", 0, "t9", inferred_at="t9", source="another")], 1, "t5", "stale"),
        ([entry("k", 0, "t9", "t6", inferred_at="t9")], 1, "t5", "stale"),
        ([entry("k", 0, "t9", inferred_at="t8")], 1, "t5", "stale"),
        ([entry("k", 1, "t5", None, "unknown", (0, "t9"), inferred_at="t9")], 1, "t5", "changed"),
        ([entry("k", 0, "t9", inferred_at="t9")], 0, "t5", "stale"),
    ],
)
def test_what_is_wanted_is_compared_with_what_is_known(store, known, subscribed, at, expected):
    assert kind(store, known, subscribed, at) == expected


@pytest.mark.parametrize(
    ("subscribed", "once", "expected"), [(1, True, "in_doubt"), (1, False, "new"), (0, True, "new"), (0, False, "new")]
)
def test_only_an_opt_in_that_must_go_once_is_in_doubt(store, subscribed, once, expected):
    pending = [entry("k", None, None, None, "unknown", (subscribed, "t5"))]
    assert kind(store, pending, subscribed, "t5", once=once) == expected


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (entry("k", 0, "t5", "t5"), "unchanged"),
        (entry("k", 1, "t5"), "changed"),
        (entry("k", 1, "t5", "t6"), "changed"),
        (entry("k", 0, "t5", "t5", "unknown", (1, "t6")), "changed"),
        (entry("k", None, None, "t5", "barrier"), "new"),
    ],
)
def test_an_opt_out_without_a_time_is_news_only_against_a_newer_yes(store, known, expected):
    assert kind(store, [known], 0, "t9", timeless=1) == expected


def test_a_row_is_unchanged_if_all_its_consents_are_as_they_were_acknowledged(store):
    known = [
        entry("a", row_hash=f"{H1}1"), entry("b", row_hash=f"{H2}2"), entry("c", row_hash=f"{H3}2"),
        entry("d", row_hash=f"{H3}2"), entry("e", row_hash="4" * 32 + "1", state="unknown"),
    ]  # fmt: skip
    store.know(known)
    assert store.unchanged([H1, H2, H3, "4" * 32, "5" * 32]) == [1, 0, 2, 0, 0]


def test_of_what_was_known_only_what_no_row_speaks_of_is_removed(store):
    store.know(
        [
            entry("seen", row_hash=f"{H1}1"), entry("wanted"), entry("mentioned"), entry("gone"), entry("gone too", 0),
            entry("another's", source="somebody else"), entry("barred", None, None, "t5", "barrier"),
        ]
    )  # fmt: skip
    store.unchanged([H1])
    want(store, "wanted", 1, "t5")
    store.mention("mentioned", "sms")
    store.compare(once=False, source="me")
    assert list(store.gone()) == [("gone", "sms")]
    assert (store.removed(subscribed=True), store.removed(subscribed=False)) == (1, 1)


def test_whom_another_run_begins_to_send_to_meanwhile_is_not_gone(store, tmp_path):
    columns = "account, identifier, channel, row_hash, subscribed, evidence_at, state, source"
    open_database(tmp_path / "ledger.db").close()
    with closing(sqlite3.connect(tmp_path / "ledger.db")) as made:
        for key, row_hash in (("still there", f"{H1}1"), ("gone", f"{H2}1")):
            made.execute(
                f"INSERT INTO regal_consents ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                ("acme", key, "sms", row_hash, 1, "t5", "acknowledged", "me"),
            )
        made.commit()
        store.know_file(str(tmp_path / "ledger.db"), "acme")
        assert store.unchanged([H1]) == [1]
        made.execute("UPDATE regal_consents SET state = 'sending'")
        made.commit()
        store.compare(once=False, source="me")
    assert list(store.gone()) == [("gone", "sms")]


def test_what_is_known_already_but_of_another_row_is_said_again(store):
    store.know([entry("k", row_hash=f"{H1}1")])
    want(store, "k", 1, "t5", row_hash=f"{H2}1")
    store.compare(once=False, source="me")
    assert [one.row_hash for one in store.said_again()] == [f"{H2}1"]


def test_a_row_of_another_source_is_not_taken_from_it(store):
    store.know([entry("k", row_hash=f"{H1}1")])
    want(store, "k", 1, "t5", row_hash=f"{H2}1")
    store.compare(once=False, source="another")
    assert list(store.said_again()) == []


def test_opt_outs_come_with_their_newest_time(store):
    want(store, "k", 0, "t4")
    want(store, "k", 0, "t6")
    want(store, "k", 1, "t7")
    store.compare(once=False, source="me")
    assert list(store.opt_outs()) == [("k", "sms", "t6")]
