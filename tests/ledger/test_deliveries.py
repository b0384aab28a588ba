"""Deliveries in every database: one holder, the snapshot, and atomic commits."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest
from sqlalchemy import select, text

from airflow_provider_regal.errors import LedgerError, TakenOverError
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.deliveries import (
    FAILED,
    FINISHED,
    READING,
    REPLACED,
    SENDING,
    STOPPED,
    Changes,
    Counts,
    Deliveries,
    Place,
    Try,
)
from airflow_provider_regal.ledger.entries import batches
from airflow_provider_regal.ledger.outcomes import OutcomeLine
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from airflow_provider_regal.ledger.rows import RowChunk
from airflow_provider_regal.ledger.states import Outcome, RowState, Skip
from airflow_provider_regal.ledger.text import from_ledger_time, to_ledger_time
from tests.ledger.accounts import PHONE, START, at, known, opt_in, track

PLACE = Place("dag", "run", "task")
OPTIONS = {"options": "o", "hold_s": 34}


class Tries:
    """Tries of one task instance, each with connections of its own."""

    def __init__(self, accounts):
        self.accounts = accounts
        self.account = accounts("a look")

    def deliveries(self):
        return Deliveries(self.accounts().on_record)

    def begin(self, number=1, *, place=PLACE, rows=0, **options):
        """Begin a delivery, and take so many rows into its snapshot."""
        of = self.deliveries()
        held = of.begin(
            place, Try(0, number), call="track", source="s", replaces=of.latest(place), **OPTIONS, **options
        )
        if rows:
            keep(held, rows)
            held.rows_complete({})
        return held

    def take(self, number=2, *, epoch=0, again=False, source="s"):
        of = self.deliveries()
        return of.take(of.latest(PLACE), Try(epoch, number), source=source, again=again, **OPTIONS)

    def latest(self, place=PLACE):
        return self.deliveries().latest(place)

    def everything(self):
        """All rows of all tables."""
        return {
            table.name: self.account.database.read(lambda connection, t=table: connection.execute(select(t)).fetchall())
            for table in schema.metadata.sorted_tables
        }

    def rows_of(self, table):
        return self.everything()[table]

    def change(self, statement):
        self.account.database.write(lambda connection: connection.execute(text(statement)))


def keep(held, rows, first=1):
    for some in batches(range(first, first + rows), 1_000):
        chunk = RowChunk()
        for number in some:
            chunk.add(number, {"user_id": f"u{number}", "n": number})
        held.keep_rows([chunk])


def line(position, status="acknowledged", **more):
    of_letter = {} if status == "acknowledged" else {"form": "body", "payload": "{}", "reason": "HTTP 400"}
    return OutcomeLine(
        position, None, "track", "Booked", f"u{position}", None, None, status, None, None, None, 1, at(1), at(1), "h"
    )._replace(**of_letter, **more)


@pytest.fixture
def tries(accounts):
    return Tries(accounts)


def test_of_a_place_the_last_delivery_is_found(tries):
    assert tries.latest() is None
    held = tries.begin()
    record = tries.latest()
    assert (record.id, record.state, record.incarnation, record.dag_id, record.run_id) == (
        held.id, READING, 1, "dag", "run",
    )  # fmt: skip
    assert (record.started_at, record.kept_rows) == (to_ledger_time(START), None)


@pytest.mark.parametrize(
    "other",
    [
        Place("dag", "run", "task", 0), Place("dag", "run", "task", name="more"), Place("dag", "run", "other"),
        Place("dag", "other", "task"), Place("other", "run", "task"), Place.outside_a_task(),
    ],
    ids=str,
)  # fmt: skip
def test_every_place_has_its_own(tries, other):
    tries.begin()
    assert tries.latest(other) is None
    assert Deliveries(tries.accounts(account="other").on_record).latest(PLACE) is None


def test_names_may_be_endless_and_odd(tries):
    place = Place("d" * 9_000, "scheduled__2026-03-02T00:00:00+00:00", "ä\0😀", 7, "\ud800")
    tries.begin(place=place)
    assert tries.latest(place).map_index == 7


def test_250_letters_of_any_alphabet_are_kept_as_they_are(tries):
    place = Place("\u0436" * 250, "run", "\u00e9" * 250)
    tries.begin(place=place)
    found = tries.latest(place)
    assert (found.dag_id, found.task_id) == ("\u0436" * 250, "\u00e9" * 250)
    assert tries.latest(Place("\u0436" * 249, "run", "\u00e9" * 250)) is None


def test_a_state_is_noted_for_one_delivery_alone_and_it_stays_held(tries):
    other, place = tries.begin(rows=3), Place("dag", "run", "single")
    held = tries.begin(place=place)
    held.note_state(FINISHED)
    assert (tries.latest(place).state, tries.latest().state) == (FINISHED, SENDING)
    held.commit()
    other.commit()


def test_ids_are_never_used_again(tries):
    first = tries.begin().id
    tries.change("DELETE FROM regal_deliveries")
    assert tries.begin().id > first


class TestTakingOver:
    def test_the_one_that_lost_it_can_write_nothing_of_any_kind(self, tries):
        first = tries.begin(rows=5)
        second = tries.take()
        before = tries.everything()
        changes = Changes(outcomes=[line(1)], acknowledged=[track()], contacts=[("c", "r", "p")])
        for write in (
            lambda: first.commit(changes),
            lambda: keep(first, 3, first=6),
            lambda: first.rows_complete({}),
            lambda: first.end(FINISHED),
            lambda: first.write(lambda connection: None),
            lambda: first.note_state(SENDING),
        ):
            with pytest.raises(TakenOverError, match="Another try of this task delivers now"):
                write()
        assert tries.everything() == before
        second.commit(changes)

    def test_a_later_try_wins_and_an_earlier_one_never_does(self, tries):
        tries.begin(number=2)
        for number, epoch in ((1, 0), (9, -1)):
            with pytest.raises(TakenOverError):
                tries.take(number, epoch=epoch)
        tries.take(2)  # the same try again: Airflow may rerun a task without counting it
        tries.take(1, epoch=1)  # after a clear, tries count from one
        with pytest.raises(TakenOverError):
            tries.take(3)

    def test_of_many_that_take_it_at_once_exactly_one_holds_it(self, tries):
        tries.begin(rows=3)
        with ThreadPoolExecutor(8) as pool:
            taken = list(pool.map(lambda _: tries.take(2), range(8)))
        able = []
        for held in taken:
            try:
                held.commit()
                able.append(held)
            except TakenOverError:
                pass
        assert len(able) == 1

    def test_of_many_that_begin_at_once_exactly_one_does(self, tries):
        def begin(_):
            of = tries.deliveries()
            try:
                return of.begin(PLACE, Try(), call="track", source="s", replaces=None, **OPTIONS)
            except (TakenOverError, LedgerError) as error:
                return error

        with ThreadPoolExecutor(6) as pool:
            begun = list(pool.map(begin, range(6)))
        held = [one for one in begun if not isinstance(one, Exception)]
        assert len(held) == 1
        assert {type(one) for one in begun if isinstance(one, Exception)} == {TakenOverError}
        held[0].commit()

    def test_it_has_the_rows_the_states_and_the_counts_of_the_one_before(self, tries):
        first = tries.begin(rows=2_500)
        first.states[0] = RowState.ACKNOWLEDGED
        first.states[1_000] = RowState.RESERVED
        first.states[2_499] = RowState.REJECTED
        first.counts.read = 2_600
        first.counts.skip(Skip.UNCHANGED, 100)
        first.counts.add(Outcome.ACKNOWLEDGED, 1)
        first.counts.plan["new"] = 7
        first.commit(seconds=1.5)
        first.commit(seconds=0.5)

        second = tries.take()

        assert len(second.states) == 2_500
        assert {n: second.states[n] for n in range(2_500) if second.states[n]} == {
            0: RowState.ACKNOWLEDGED, 1_000: RowState.RESERVED, 2_499: RowState.REJECTED,
        }  # fmt: skip
        assert second.counts == first.counts
        assert (second.counts.seconds, second.counts.skips) == (2.0, Counter(unchanged=100))
        assert [(position, row["n"]) for position, _, row in second.rows(without=lambda p: p < 2_498)] == [
            (2_498, 2_499), (2_499, 2_500),
        ]  # fmt: skip
        assert tries.latest().state == SENDING

    def test_reading_again_begins_with_nothing(self, tries):
        first = tries.begin()
        keep(first, 1_200)
        first.counts.read = 1_200
        first.commit(Changes(outcomes=[line(1, "rejected")]))

        second = tries.take(again=True, source="another")

        assert (len(second.states), second.counts) == (0, Counts())
        assert tries.rows_of("regal_row_chunks") == tries.rows_of("regal_outcomes") == []
        assert (tries.latest().source, tries.latest().state, tries.latest().kept_rows) == ("another", READING, None)

    @pytest.mark.parametrize(("ended", "waits"), [(False, True), (True, False)])
    def test_it_waits_for_the_requests_of_a_try_that_has_not_let_go(self, tries, ended, waits):
        first = tries.begin(rows=1)
        tries.accounts.clock.time = first.database.now()
        first.commit()
        if ended:
            first.end(STOPPED)
        tries.accounts.clock.wait(4)
        second = tries.take()
        assert (28 < second.wait_s <= 30.5) if waits else second.wait_s == 0
        tries.accounts.clock.wait(100)
        assert tries.take(3).wait_s == 0

    def test_a_clock_that_is_wrong_makes_nobody_wait_for_ever(self, tries):
        tries.begin(rows=1).commit()
        tries.accounts.clock.wait(-(10**7))
        assert tries.take().wait_s == 34


class TestReplacing:
    def test_a_new_delivery_ends_the_one_before_for_good(self, tries):
        first = tries.begin(rows=3)
        second = tries.begin(number=1)
        with pytest.raises(TakenOverError):
            first.commit()
        assert (second.record.incarnation, second.wait_s > 0) == (2, True)
        states = [row.state for row in sorted(tries.rows_of("regal_deliveries"))]
        assert states == [REPLACED, READING]
        assert tries.rows_of("regal_row_chunks") == []

    @pytest.mark.parametrize("state", [FINISHED, FAILED])
    def test_what_had_ended_keeps_how_it_ended(self, tries, state):
        tries.begin(rows=3).end(state, error="why")
        assert tries.begin().wait_s == 0
        assert [(row.state, row.error) for row in sorted(tries.rows_of("regal_deliveries"))] == [
            (state, "why"), (READING, None),
        ]  # fmt: skip

    def test_one_that_was_replaced_is_not_taken_again(self, tries):
        of = tries.deliveries()
        first = tries.begin().record
        tries.begin()
        with pytest.raises(TakenOverError):
            of.take(first, Try(9, 9), source="s", **OPTIONS)


class TestSnapshot:
    def test_rows_come_back_in_order_with_their_number_in_the_source(self, tries):
        held = tries.begin()
        keep(held, 1_500)
        keep(held, 10, first=5_000)
        held.rows_complete({1_505: RowState.AMBIGUOUS})
        rows = list(held.rows())
        assert [position for position, *_ in rows] == list(range(1_510))
        assert [source for _, source, _ in rows] == [*range(1, 1_501), *range(5_000, 5_010)]
        assert rows[1_505][2] == {"user_id": "u5005", "n": 5_005}
        assert tries.take().states[1_505] == RowState.AMBIGUOUS
        assert tries.latest().kept_rows == 1_510

    def test_chunks_of_which_no_row_is_needed_are_not_read(self, tries):
        held = tries.begin(rows=3_000)
        tries.change("DELETE FROM regal_row_chunks WHERE chunk = 1")
        wanted = {5, 2_005}
        assert [position for position, *_ in held.rows(without=lambda p: p not in wanted)] == [5, 2_005]

    def test_an_empty_one_counts_too(self, tries):
        held = tries.begin()
        held.rows_complete({})
        assert (tries.latest().kept_rows, list(held.rows())) == (0, [])
        held.commit()

    def test_ending_may_drop_the_rows_and_lets_go(self, tries):
        for state, drop in ((FAILED, False), (FINISHED, True)):
            held = tries.begin(rows=3)
            held.end(state, drop_rows=drop, error="x" * 5_000)
            record = tries.latest()
            assert (record.state, record.holder, len(record.error)) == (state, None, 1_000)
            assert bool(tries.rows_of("regal_row_chunks")) is not drop
            with pytest.raises(TakenOverError):
                held.commit()


class TestMayHaveSent:
    @pytest.mark.parametrize(
        ("state", "expected"),
        [
            (RowState.OPEN, False), (RowState.RESERVED, True), (RowState.ACKNOWLEDGED, True), (RowState.UNKNOWN, True),
            (RowState.REJECTED, False), (RowState.SKIPPED_OLDER, False),
        ],
    )  # fmt: skip
    def test_it_is_known_by_states_and_counts(self, tries, state, expected):
        held = tries.begin(rows=1_200)
        held.states[1_100] = state
        if state in (RowState.ACKNOWLEDGED, RowState.UNKNOWN):
            held.counts.add(Outcome[state.name], 1)
        held.commit()
        assert tries.deliveries().may_have_sent(tries.latest()) is expected

    def test_before_all_was_read_nothing_was(self, tries):
        keep(tries.begin(), 5)
        assert not tries.deliveries().may_have_sent(tries.latest())


def changes_of_every_kind():
    return Changes(
        outcomes=[line(1), line(2, "rejected")],
        acknowledged=[opt_in(5), track("m1")],
        unknown=[opt_in(5, "doubtful")],
        released=[opt_in(9, "free")],
        contacts=[("c", "r", "p")],
        phones=[("c", PHONE)],
        primaries=[("c", PHONE)],
        types={"plan": "str"},
        log=[LoggedConsent(PHONE, "sms", True, at(5), "203.0.113.9", "I agree", "form", 1, None, "acknowledged")],
        removed=[7],
    )


class TestCommits:
    def test_changes_of_every_kind_are_known_to_this_test(self):
        made = changes_of_every_kind()
        assert all(getattr(made, one.name) for one in fields(Changes))
        assert made
        assert not Changes()

    def test_all_of_it_is_there_afterwards(self, tries):
        held = tries.begin(rows=8)
        held.commit(Changes(outcomes=[line(7, "rejected")]))
        held.states[0], held.states[1] = RowState.ACKNOWLEDGED, RowState.REJECTED
        held.counts.add(Outcome.ACKNOWLEDGED, 1)
        held.commit(changes_of_every_kind())

        assert [(row.position, row.status) for row in sorted(tries.rows_of("regal_outcomes"))] == [
            (1, "acknowledged"), (2, "rejected"),
        ]  # fmt: skip
        assert [row[:6] for row in known(tries.account)] == [
            (PHONE, "sms", 1, at(5), None, "acknowledged"),
            ("doubtful", "sms", None, None, None, "unknown"),
        ]
        assert [(row.message_id, row.state, row.delivery) for row in tries.rows_of("regal_messages")] == [
            ("m1", "acknowledged", str(held.id))
        ]
        assert tries.account.contact_hashes(["c"]) == {"c": ("r", "p")}
        assert tries.account.phones_of(["c"]) == {"c": [PHONE]}
        assert tries.account.types()["plan"][0] == "str"
        ((*_, logged_at),) = tries.rows_of("regal_consent_log")
        assert logged_at == to_ledger_time(START)
        (logged,) = tries.rows_of("regal_consent_log")
        assert (logged.identifier, logged.subscribed, logged.given_at, logged.ip, logged.form) == (
            PHONE, 1, at(5), "203.0.113.9", "form",
        )  # fmt: skip
        assert [row.text for row in tries.rows_of("regal_consent_texts")] == ["I agree"]
        assert (logged.delivery, logged.position, logged.status) == (str(held.id), 1, "acknowledged")
        assert tries.latest().acknowledged == 1
        assert tries.take().states[0] == RowState.ACKNOWLEDGED

    @pytest.mark.parametrize(
        "table",
        [
            "regal_outcomes", "regal_consents", "regal_messages", "regal_contacts", "regal_contact_phones",
            "regal_types", "regal_consent_log", "regal_consent_texts", "regal_row_chunks",
        ],
    )  # fmt: skip
    def test_wherever_it_fails_nothing_is_there(self, tries, table):
        held = tries.begin(rows=8)
        before = tries.everything()
        held.states[0] = RowState.ACKNOWLEDGED
        held.counts.add(Outcome.ACKNOWLEDGED, 1)
        held.database.patience_s = 0
        tries.change(f"ALTER TABLE {table} RENAME TO away")
        with pytest.raises(LedgerError, match="nothing of this step was recorded"):
            held.commit(changes_of_every_kind())
        tries.change(f"ALTER TABLE away RENAME TO {table}")
        assert tries.everything() == before

        held.commit(changes_of_every_kind())

        assert tries.take().states[0] == RowState.ACKNOWLEDGED, "the states go with the next commit"
        assert tries.latest().acknowledged == 1

    def test_what_could_not_be_committed_comes_before_what_was_noted_since(self):
        earlier, later = (
            changes_of_every_kind(),
            Changes(outcomes=[line(1, "unknown")], types={"plan": "int", "x": "y"}),
        )
        later.put_back(earlier)
        assert [one.status for one in later.outcomes] == ["acknowledged", "rejected", "unknown"]
        assert later.types == {"plan": "int", "x": "y"}
        assert later.acknowledged == earlier.acknowledged
        assert list(later.phones) == [("c", PHONE)]

    def test_states_that_are_decided_within_it_are_written_with_it(self, tries):
        held = tries.begin(rows=1_500)
        prepared = held.prepare_commit(Changes(), candidates=[3, 1_400])
        states = prepared.write(lambda connection: {3: RowState.RESERVED, 1_400: RowState.RESERVED})
        assert states == {3: RowState.RESERVED, 1_400: RowState.RESERVED}
        assert tries.take().states.positions(RowState.RESERVED) == [3, 1_400]

    def test_what_is_decided_within_it_falls_with_it(self, tries):
        held = tries.begin(rows=5)
        prepared = held.prepare_commit(Changes(outcomes=[line(1)]), candidates=[0])

        def reserve(connection):
            held.account.claim(connection, [track()])
            raise KeyError("mine")

        with pytest.raises(KeyError):
            prepared.write(reserve)
        assert tries.rows_of("regal_messages") == tries.rows_of("regal_outcomes") == []

    def test_each_says_when_it_was_by_the_clock_of_the_database(self, tries):
        held = tries.begin(rows=1)
        held.commit()
        before = tries.latest().held_at
        held.commit()
        assert tries.latest().held_at >= before
        assert abs((held.database.now() - from_ledger_time(before)).total_seconds()) < 10


class TestRejectedBefore:
    """How many rejected rows an earlier delivery had rejected with the same payload; they are only shown."""

    def rejected(self, tries, run, *hashes, account="acme", status="rejected"):
        of = Deliveries(tries.accounts(account=account).on_record)
        place = Place("dag", run, "task")
        held = of.begin(place, Try(), call="track", source="s", replaces=of.latest(place), **OPTIONS)
        lines = [line(number, status, payload_hash=one) for number, one in enumerate(hashes, 1)]
        held.commit(Changes(outcomes=lines))
        return held

    def test_only_the_same_payload_of_an_earlier_delivery_counts(self, tries):
        self.rejected(tries, "1", "a", "b")
        self.rejected(tries, "2", "c", status="unknown")
        self.rejected(tries, "3", "d", account="other")
        now = self.rejected(tries, "4", "a", "b", "b", "c", "d", "e")
        self.rejected(tries, "5", "e")
        assert now.rejected_before() == 3
        assert now.reasons() == {"rejected, HTTP 400": 6}


def test_counts_come_back_as_they_were(tries):
    counts = Counts(read=9, acknowledged=1, rejected=2, unknown=3, skipped=3)
    counts.skips.update(unchanged=2, older=1)
    counts.plan |= {"new": 4}
    counts.requests, counts.repeats, counts.outages, counts.known, counts.without_time = 10, 4, 1, 2, 5
    held = tries.begin(counts=counts)
    assert held.counts == counts
    assert counts.settled == 9
    tries.change('UPDATE regal_deliveries SET counts = \'{"of_a_later_version": 1, "requests": 7}\'')
    assert Counts.of(tries.latest()).requests == 7
