"""Deliveries end to end: every row accounted for, across faults and tries."""

from __future__ import annotations

import itertools
import json
import re
import stat
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import ClassVar

import pytest

from airflow_provider_regal.errors import (
    FixConnectionError,
    FixSourceError,
    LedgerError,
    ResumeError,
    RetryLaterError,
    TakenOverError,
    TooManyFailedRowsError,
    WrongLedgerError,
)
from airflow_provider_regal.events import Identify
from airflow_provider_regal.ledger.states import RowState
from tests.delivery.trouble import RESERVATIONS_OF_MESSAGES, cannot_be_written, is_locked
from tests.ledger_file import deliveries

DROP = {"drop": True}


def people(count, start=0):
    return [{"user_id": f"u{number}", "amount": number} for number in range(start, start + count)]


def adds_up(report):
    return report.read == report.acknowledged + report.rejected + report.unknown + report.skipped


def arrivals(regal):
    """How often Regal has each user's event."""
    return Counter(event["body"]["userId"] for event in regal.events() if event["stored"])


def slowly(rows):
    """Take a moment before the first row, so that what goes wrong meanwhile has gone wrong."""

    def read():
        time.sleep(0.3)
        yield from rows

    return read


def longest_pause_s(regal):
    """The longest time between two requests."""
    times = [datetime.strptime(event["received_at"], "%Y-%m-%d %H:%M:%S.%f %z") for event in regal.events()]
    return max((later - earlier).total_seconds() for earlier, later in itertools.pairwise(times))


def test_every_row_arrives_once(deliver, regal_sandbox):
    report = deliver(people(500))

    assert report.acknowledged == report.read == 500
    assert set(arrivals(regal_sandbox).values()) == {1}
    assert len(arrivals(regal_sandbox)) == 500
    assert regal_sandbox.stats()["contract_findings"] == {}


def test_rows_that_cannot_be_mapped_are_dead_letters_and_the_others_go(deliver, regal_sandbox, ledger):
    rows = people(20)
    rows[3] = {"user_id": None, "phone": "+15555555555", "amount": b"x"}

    with pytest.raises(TooManyFailedRowsError) as caught:
        deliver(rows)

    report = deliver.last.report
    assert (report.acknowledged, report.rejected) == (19, 1)
    assert adds_up(report)
    (letter,) = ledger.dead_letters()
    assert (letter.position, letter.status, letter.reason, letter.call) == (4, "rejected", "invalid", "track")
    assert "phone: not a valid phone number" in letter.message
    assert "properties.amount: bytes" in letter.message
    assert letter.payload["phone"] == "+15555555555"
    assert "max_rejected=0" in str(caught.value)
    assert f"airflow regal outcomes {report.delivery} --status rejected" in str(caught.value)
    assert "5555555555" not in str(caught.value)


@pytest.mark.parametrize(("allowed", "passes"), [(1, True), (0, False), (0.05, True), (0.01, False)])
def test_max_rejected_counts_rows_or_a_share(allowed, passes, deliver):
    rows = [*people(19), {"amount": 1}]
    if passes:
        assert deliver(rows, max_rejected=allowed).rejected == 1
    else:
        told = f"more than max_rejected={allowed}{' (1 %)' if allowed else ''}."
        with pytest.raises(TooManyFailedRowsError, match=re.escape(told)):
            deliver(rows, max_rejected=allowed)


@pytest.mark.parametrize(("allowed", "passes"), [(2, True), (1, False), (None, True)])
def test_max_unknown_counts_rows(allowed, passes, deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"requests": [3, 9]}, "do": DROP}])
    if passes:
        assert deliver(people(20), max_unknown=allowed).unknown == 2
    else:
        with pytest.raises(TooManyFailedRowsError, match="max_unknown=1"):
            deliver(people(20), max_unknown=allowed)


def test_an_unknown_row_is_not_repeated_under_at_most_once(deliver, regal_sandbox, ledger):
    regal_sandbox.set_faults([{"on": {"every": 10}, "do": DROP}])

    report = deliver(people(100), max_unknown=10)

    assert (report.acknowledged, report.unknown) == (90, 10)
    assert max(arrivals(regal_sandbox).values()) == 1
    assert len(arrivals(regal_sandbox)) == 100
    assert {letter.status for letter in ledger.dead_letters()} == {"unknown"}
    assert all(
        letter.payload["userId"] == f"u{letter.position - 1}" and letter.form == "body"
        for letter in ledger.dead_letters()
    )


def test_an_unknown_row_is_repeated_under_at_least_once(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"every": 25}, "do": DROP}])

    report = deliver(people(100), guarantee="at_least_once")

    assert report.acknowledged == 100
    assert report.repeats > 0
    assert len(arrivals(regal_sandbox)) == 100


def test_contacts_are_repeated_by_default_and_named_events_are_not(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"requests": [1]}, "do": DROP}])
    assert deliver([{"user_id": "a", "phone": "+12125550100"}], call="identify").acknowledged == 1


def test_what_regal_refuses_is_rejected_with_its_words(deliver, regal_sandbox, ledger):
    regal_sandbox.set_faults([{"on": {"requests": [2]}, "do": {"status": 422, "body": "json"}}])

    report = deliver(people(5), max_rejected=1, max_connections=1)

    assert report.rejected == 1
    (letter,) = ledger.dead_letters()
    assert letter.reason == "HTTP 422"
    assert "Regal says" in letter.message
    (line,) = ledger.outcomes(status="rejected")
    assert (line.attempts, line.user_id) == (1, "u1")


def test_429_is_waited_out_and_nothing_is_lost(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"every": 40}, "do": {"status": 429, "retry_after": 0}}])

    report = deliver(people(200))

    assert report.acknowledged == 200
    assert max(arrivals(regal_sandbox).values()) == 1


def test_a_wrong_key_stops_the_delivery_with_everything_kept_and_a_later_try_goes_on(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 50}, "do": {"status": 401}}])
    with pytest.raises(FixConnectionError, match="API key"):
        deliver(people(200), max_connections=4)
    assert deliver.last.report.status == "stopped"
    assert regal_sandbox.stats()["requests"] < 80

    regal_sandbox.set_faults([])
    report = deliver(people(200), number=2)

    assert report.acknowledged == 200
    assert report.unknown == 0
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_an_outage_stops_retryably_and_the_next_try_delivers_the_rest_once(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 30}, "do": {"status": 429, "retry_after": 0}}])
    with pytest.raises(RetryLaterError, match="outage_patience"):
        deliver(people(100), outage_patience=0.5)
    assert deliver.last.report.acknowledged == 29

    regal_sandbox.set_faults([])
    report = deliver(people(100), number=2)

    assert report.acknowledged == 100
    assert set(arrivals(regal_sandbox).values()) == {1}


@pytest.mark.slow
def test_a_regal_that_never_answers_leaves_no_more_unknown_than_were_under_way(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 101}, "do": {"hang": True}}])

    with pytest.raises(RetryLaterError):
        deliver(people(2_000), max_connections=16, outage_patience=3, timeout_s=4)

    report = deliver.last.report
    assert report.acknowledged == 100
    assert 0 < report.unknown <= 16 + 3, "those in flight and the probes"
    assert regal_sandbox.stats()["requests"] == report.acknowledged + report.unknown


def test_at_once_if_retry_after_exceeds_the_patience(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 200}}])
    with pytest.raises(RetryLaterError):
        deliver(people(50), outage_patience=60, max_connections=2)
    assert regal_sandbox.stats()["requests"] <= 2


def test_rows_of_one_person_arrive_in_the_order_of_the_source(deliver, regal_sandbox):
    rows = [{"user_id": f"u{number % 7}", "phone": f"+1212555{number % 3:04d}", "n": number} for number in range(120)]
    regal_sandbox.set_faults([{"on": {"every": 9}, "do": {"status": 503, "retry_after": 0}}])

    deliver(rows)

    for key in ("userId", "phone"):
        seen = {}
        for event in regal_sandbox.events():
            if event["stored"]:
                body = event["body"]
                who = body["userId"] if key == "userId" else next(iter(body["traits"]["phones"]))
                assert body["properties"]["n"] > seen.get(who, -1)
                seen[who] = body["properties"]["n"]


def test_the_rate_is_kept_on_the_servers_clock(deliver, regal_sandbox):
    deliver(people(250), rate=100)
    stats = regal_sandbox.stats()
    assert stats["worst_window_1s_all"] <= 100


def test_a_generator_that_raises_half_way_sends_nothing_and_the_next_try_reads_again(deliver, regal_sandbox):
    def broken():
        yield from people(1_500)
        raise ConnectionError("the database went away")

    with pytest.raises(ConnectionError):
        deliver(broken)
    assert regal_sandbox.stats()["requests"] == 0

    assert deliver(people(1_600), number=2).acknowledged == 1_600


def test_limit_delivers_only_the_first_rows(deliver, regal_sandbox):
    assert deliver(people(50), limit=7).read == 7
    assert set(arrivals(regal_sandbox)) == {f"u{number}" for number in range(7)}


def test_min_rows_fails_before_anything_is_sent_and_reads_again_when_cleared(deliver, regal_sandbox):
    with pytest.raises(FixSourceError, match="min_rows=10"):
        deliver(people(3), min_rows=10)
    assert regal_sandbox.stats()["requests"] == 0
    assert deliver(people(12), min_rows=10, epoch=1, number=2).acknowledged == 12


def test_an_empty_source_succeeds(deliver):
    report = deliver([])
    assert (report.read, report.status) == (0, "finished")


def test_named_events_older_than_max_event_age_are_rejected(deliver):
    old = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    rows = [{"user_id": "a", "timestamp": old}]
    with pytest.raises(TooManyFailedRowsError, match="max_event_age"):
        deliver(rows)
    assert deliver(rows, number=2, restart=True, max_event_age=None).acknowledged == 1


def test_hostile_cells_are_rejected_or_left_out_and_the_rest_goes(deliver, regal_sandbox):
    rows = [
        {"user_id": "no number", "x": float("nan")},
        {"user_id": "inf", "x": float("inf")},
        {"user_id": "big", "x": "y" * 10_000_000},
        {"user_id": "half", "x": "\ud800"},
        {"user_id": "object", "x": object()},
        {"user_id": "set", "x": {1}},
    ]
    report = deliver(rows, max_rejected=1.0)
    assert adds_up(report)
    assert report.rejected == 3
    assert set(arrivals(regal_sandbox)) == {"no number", "inf", "set"}


class TestClearing:
    def test_a_finished_delivery_of_events_sends_nothing_when_cleared(self, deliver, regal_sandbox):
        deliver(people(10))
        report = deliver(people(20), epoch=1, number=2)
        assert report.status == "nothing_to_do"
        assert regal_sandbox.stats()["stored"] == 10

    def test_a_failed_delivery_tries_its_rejected_rows_again_and_no_other(self, deliver, regal_sandbox):
        regal_sandbox.set_faults(
            [{"on": {"requests": [4]}, "do": {"status": 400}}, {"on": {"requests": [6]}, "do": DROP}]
        )
        with pytest.raises(TooManyFailedRowsError):
            deliver(people(10), max_connections=1)
        regal_sandbox.set_faults([])

        report = deliver(people(10), epoch=1, number=2, guarantee="at_least_once")

        assert (report.acknowledged, report.rejected, report.unknown) == (9, 0, 1)
        assert regal_sandbox.stats()["requests"] == 11
        assert set(arrivals(regal_sandbox).values()) == {1}

    def test_contacts_are_read_and_sent_again(self, deliver, regal_sandbox):
        contacts = [{"user_id": "a", "phone": "+12125550100"}]
        deliver(contacts, call="identify")
        assert deliver(contacts * 2, call="identify", epoch=1, number=2).acknowledged == 2

    def test_restart_sends_everything_again_but_only_once(self, deliver, regal_sandbox):
        deliver(people(5))
        regal_sandbox.set_faults([{"on": {"requests": [8]}, "do": {"status": 401}}])
        with pytest.raises(FixConnectionError):
            deliver(people(5), epoch=1, number=2, restart=True, max_connections=1)
        regal_sandbox.set_faults([])

        deliver(people(5), epoch=1, number=3, restart=True)

        assert set(arrivals(regal_sandbox).values()) == {2}

    def test_another_source_fails_once_rows_may_have_been_sent(self, deliver, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"from": 3}, "do": {"status": 401}}])
        with pytest.raises(FixConnectionError):
            deliver(people(5))
        with pytest.raises(ResumeError, match="restart=True"):
            deliver(people(5), number=2, source="another table")

    def test_a_deleted_run_that_was_made_again_is_a_new_delivery(self, deliver, regal_sandbox):
        deliver(people(5), number=3)
        assert deliver(people(5), number=1).acknowledged == 5
        assert set(arrivals(regal_sandbox).values()) == {2}


def test_the_ledger_is_for_its_owner_only_and_rows_are_gone_after_success(deliver, ledger, ledger_path):
    deliver(people(5))
    for file in ledger_path.parent.glob("ledger.db*"):
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name
    record = ledger.delivery()
    assert (record.state, record.read_rows, record.acknowledged, record.holder) == ("finished", 5, 5, None)
    assert ledger.states() == []


def test_a_failed_delivery_keeps_its_rows_for_a_clear(deliver, ledger):
    with pytest.raises(TooManyFailedRowsError):
        deliver([*people(2), {"amount": 1}])
    assert ledger.states() == [RowState.ACKNOWLEDGED, RowState.ACKNOWLEDGED, RowState.REJECTED]
    record = ledger.delivery()
    assert (record.state, record.holder) == ("failed", None)
    assert "1 rejected, more than max_rejected=0" in record.error


def test_outcomes_say_what_became_of_each_row_and_when(deliver, regal_sandbox, ledger):
    deliver([{"user_id": "u", "phone": "+1 (212) 555-0100", "email": "Ann@Example.com", "amount": 1}])
    (line,) = ledger.outcomes()
    assert (line.position, line.call, line.event, line.status) == (1, "track", "Lesson Booked", "acknowledged")
    assert (line.user_id, line.phone, line.email) == ("u", "+12125550100", "ann@example.com")
    assert (line.attempts, line.payload, line.reason, line.place) == (1, None, None, None)
    assert line.first_at <= line.last_at
    assert line.payload_hash is None


def test_the_report_stays_small_and_holds_nothing_personal(deliver):
    rows = [{"phone": f"+1555555{number:04d}", "x": number} for number in range(50)]
    deliver([*rows, *people(1)], max_rejected=1.0)
    text = json.dumps(deliver.last.report.as_dict())
    assert len(text) < 2_048
    assert "555555" not in text


class TestTheLedgerFails:
    """A commit that cannot be made stops the sending, is tried again, and then the delivery stops retryably."""

    def test_before_anything_was_read_nothing_is_sent(self, deliver, regal_sandbox, tmp_path):
        (tmp_path / "no folder").touch()
        with pytest.raises(LedgerError, match="cannot be opened for writing"):
            deliver(people(3), path=tmp_path / "no folder" / "ledger.db")
        assert regal_sandbox.stats()["requests"] == 0

    @pytest.mark.parametrize("trouble", [cannot_be_written, is_locked])
    @pytest.mark.slow
    def test_what_passes_within_the_patience_costs_only_time(self, trouble, deliver, regal_sandbox, ledger, caplog):
        caplog.set_level("INFO", "airflow_provider_regal")
        with trouble(ledger, regal_sandbox, after=20, for_s=5):
            report = deliver(people(300), rate=60, timeout_s=1)
        assert report.acknowledged == 300
        assert set(arrivals(regal_sandbox).values()) == {1}
        assert longest_pause_s(regal_sandbox) > 1.5, "nothing is sent while it can't be written"
        if trouble is cannot_be_written:
            told = [record.levelname for record in caplog.records if "ledger" in record.message.lower()]
            assert told == ["WARNING", "INFO"], caplog.messages

    @pytest.mark.slow
    def test_beyond_the_patience_the_delivery_stops_and_a_later_try_resumes(self, deliver, regal_sandbox, ledger):
        with (
            cannot_be_written(ledger, regal_sandbox, after=20),
            pytest.raises(LedgerError, match="could not be used"),
        ):
            deliver(people(300), rate=100, timeout_s=1, outage_patience=1.5)
        assert deliver.last.report.status == "stopped"
        sent = regal_sandbox.stats()["requests"]
        assert sent < 250

        report = deliver(people(300), number=2, timeout_s=1)

        assert adds_up(report)
        assert report.acknowledged + report.unknown == 300
        assert report.unknown_of_outage == report.unknown
        assert max(arrivals(regal_sandbox).values()) == 1

    def test_rows_that_could_not_be_reserved_are_not_sent(self, deliver, regal_sandbox, ledger):
        rows = [{**row, "message_id": f"m{number}"} for number, row in enumerate(people(20))]
        deliver([], of_run="creates the tables")
        with (
            cannot_be_written(ledger, regal_sandbox, after=0, table=RESERVATIONS_OF_MESSAGES),
            pytest.raises(LedgerError),
        ):
            deliver(slowly(rows), timeout_s=1, outage_patience=1)
        assert regal_sandbox.stats()["requests"] == 0
        assert ledger.delivery().kept_rows == 20, "it was read, and could not be reserved"
        assert deliver(rows, number=2, timeout_s=1).acknowledged == 20


class TestTakenOver:
    def test_a_later_try_takes_over_while_the_first_reads(self, deliver, regal_sandbox, ledger):
        def rows():
            yield from people(10)
            assert deliver(people(10), number=2).acknowledged == 10

        with pytest.raises(TakenOverError, match="Another try of this task delivers now"):
            deliver(rows, number=1, timeout_s=1)
        assert set(arrivals(regal_sandbox).values()) == {1}
        assert ledger.delivery().acknowledged == 10

    def test_an_earlier_try_takes_nothing_from_a_later_one(self, deliver, regal_sandbox):
        def rows():
            yield from people(10)
            with pytest.raises(TakenOverError):
                deliver(people(10), number=1)

        assert deliver(rows, number=2).acknowledged == 10
        assert set(arrivals(regal_sandbox).values()) == {1}

    @pytest.mark.slow
    def test_what_a_try_that_lost_it_learns_is_dropped(self, deliver, regal_sandbox, ledger):
        """The second try settles as unknown what the first may have sent; the first cannot change that."""
        regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 3_000}}])
        errors = []

        def first():
            try:
                deliver(people(200), max_connections=4, timeout_s=5)
            except TakenOverError as error:
                errors.append(error)

        thread = threading.Thread(target=first)
        thread.start()
        while regal_sandbox._ask(lambda account: account.stats()["requests"]) < 4:
            pass
        regal_sandbox.set_faults([])
        report = deliver(people(200), number=2, timeout_s=1, max_unknown=1.0)
        thread.join()

        assert len(errors) == 1
        assert adds_up(report)
        assert report.unknown_of_outage == report.unknown >= 4
        by_status = Counter(line.status for line in ledger.outcomes())
        assert (by_status["acknowledged"], by_status["unknown"]) == (report.acknowledged, report.unknown)
        assert max(arrivals(regal_sandbox).values()) == 1


def test_the_account_of_another_connection_with_the_same_key_is_refused(deliver, regal_sandbox):
    deliver(people(1))
    with pytest.raises(WrongLedgerError, match=r'\{"account": "acme"\}'):
        deliver(people(1), account="other", of_run="another")
    assert regal_sandbox.stats()["requests"] == 1


def test_a_second_delivery_of_a_task_instance_has_a_name_of_its_own(deliver, ledger):
    deliver(people(3))
    deliver(people(4), name="more")
    assert [(record.name, record.acknowledged) for record in ledger.deliveries()] == [(None, 3), ("more", 4)]


@pytest.mark.slow
def test_faults_of_all_kinds_over_many_rows_lose_nothing_and_send_nothing_twice(deliver, regal_sandbox, ledger):
    regal_sandbox.set_faults(
        [
            {"on": {"share": 0.02, "seed": 1}, "do": {"status": 500}},
            {"on": {"share": 0.01, "seed": 2}, "do": DROP},
            {"on": {"share": 0.01, "seed": 3}, "do": {"status": 429, "retry_after": 0}},
        ]
    )
    report = deliver(people(2_000), max_unknown=1.0)

    assert adds_up(report)
    arrived = arrivals(regal_sandbox)
    assert max(arrived.values()) == 1
    lost = {row["user_id"] for row in people(2_000)} - set(arrived)
    unknown = {letter.payload["userId"] for letter in ledger.dead_letters()}
    assert lost <= unknown
    assert report.unknown == len(unknown)


def test_a_rejected_row_counts_as_rejected_though_its_opt_out_was_sent(deliver, regal_sandbox, ledger):
    rows = [{"user_id": 1.5, "phone": "+12125550100", "sms_opt_in": False}, {"user_id": "u", "phone": "+12125550101"}]
    report = deliver(rows, call="identify", max_rejected=1)
    assert (report.read, report.acknowledged, report.rejected, report.settled) == (2, 1, 1, 2)
    sent = [event["body"]["traits"]["phones"] for event in regal_sandbox.events()]
    assert {"+12125550100": {"smsOptIn": {"subscribed": False}}} in sent
    assert [letter.status for letter in ledger.dead_letters()] == ["rejected"]


def test_a_promotion_without_its_own_opt_in_is_reported(deliver):
    consent = {"subscribed": True, "timestamp": "2026-03-01T00:00:00Z", "ip": "203.0.113.9"}
    phones = [{f"+1212555010{n}": {"smsOptIn": consent}, f"+1212555011{n}": {"isPrimary": True}} for n in range(2)]
    report = deliver([Identify(user_id=f"u{n}", phones=phones[n]) for n in range(2)], call="identify")
    ((note, count),) = report.notes.items()
    assert (count, report.as_dict()["notes"]) == (2, 2)
    assert "becomes primary without its own opt-in for sms" in note
    assert note in report.as_table()


@pytest.mark.parametrize(
    "poison",
    [
        {"user_id": "u", "x": 10**4301},
        {"user_id": "u", "x": -(10**2000)},
        {"$call": 1, 5: 2, "user_id": "u"},
        {"$row": {"user_id": "u"}, 5: 2},
        {5: 2, "user_id": "u"},
    ],
    ids=["4,301 digits", "2,000 digits", "a mark", "a row of ours", "a number as name"],
)
def test_a_poisoned_row_is_one_rejection(deliver, poison):
    report = deliver([{"user_id": "before", "x": 1}, poison, {"user_id": "after", "x": 1}], max_rejected=1)
    assert (report.acknowledged, report.rejected) == (2, 1)


class TestANewPrimaryPhone:
    OLD, NEW = "+12125550100", "+12125550199"
    CONSENT: ClassVar = {"sms_opt_in": True, "sms_opt_in_at": "2026-11-01T08:00:00Z", "sms_opt_in_ip": "203.0.113.9"}
    NOTE = (
        "the phone becomes primary without its own opt-in for sms, which another phone of the contact on record has: "
        "Regal will stop reaching this person there"
    )

    def contact(self, phone, **more):
        return {"user_id": "anne", "phone": phone, **more}

    @pytest.fixture
    def notes(self, deliver):
        runs = iter(range(10))

        def run(*rows, **options):
            return dict(deliver(list(rows), call="identify", of_run=f"{next(runs)}", **options).notes)

        return run

    @pytest.mark.parametrize("secret", [None, b"pepper"])
    def test_is_reported_where_the_old_one_on_record_had_the_opt_in(self, notes, secret):
        assert notes(self.contact(self.OLD, **self.CONSENT), secret=secret) == {}
        assert notes(self.contact(self.NEW), secret=secret) == {self.NOTE: 1}

    def test_is_not_reported_with_an_opt_in_of_its_own(self, notes):
        notes(self.contact(self.OLD, **self.CONSENT))
        assert notes(self.contact(self.NEW, **self.CONSENT)) == {}

    def test_is_not_reported_where_the_old_one_had_opted_out(self, notes):
        notes(self.contact(self.OLD, **self.CONSENT))
        notes(self.contact(self.OLD, sms_opt_in=False))
        assert notes(self.contact(self.NEW)) == {}

    def test_is_not_reported_of_a_phone_beside_it(self, notes):
        notes(self.contact(self.OLD, **self.CONSENT))
        row = self.contact(self.OLD, work=self.NEW, **self.CONSENT)
        assert notes(row, mapping={"work": "phones.work"}) == {}


@pytest.mark.parametrize("only_changed", [True, False])
def test_whether_unchanged_contacts_are_skipped_is_on_record(deliver, ledger_path, only_changed):
    report = deliver([{"user_id": "u1"}], call="identify", only_changed=only_changed)
    (line,) = deliveries(ledger_path)
    assert line["id"] == report.delivery
    assert json.loads(line["counts"])["only_changed"] is only_changed
