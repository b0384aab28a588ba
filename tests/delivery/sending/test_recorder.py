"""The recorder: outcomes of rows are collected and committed, and nothing is sent without a commit."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.type_drift import TypeDrift
from airflow_provider_regal.delivery.sending.recorder import FRESH_S, Recorder
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import FixConnectionError, LedgerError, TakenOverError, TooManyFailedRowsError
from airflow_provider_regal.ledger.deliveries import Commit, Deliveries, Try
from airflow_provider_regal.ledger.rows import RowChunk
from airflow_provider_regal.ledger.states import RowState
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.delivery.consents import NOW
from tests.ledger.view import place_of

IP = "203.0.113.77"
TARGET = Target("regal_test", "http://127.0.0.1:9", "a-key")


class Seconds:
    """Monotonic seconds, which move when told to, and with each sleep of the recorder."""

    def __init__(self):
        self.seconds = 100.0
        self.clock = Clock(now=lambda: NOW, monotonic=lambda: self.seconds)

    async def sleep(self, seconds):
        self.seconds += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Seconds()
    monkeypatch.setattr("airflow_provider_regal.delivery.sending.recorder.asyncio.sleep", made.sleep)
    return made


class Recording:
    """A recorder of a delivery of ten events, which is held."""

    def __init__(self, account, clock, patience_s=5.0):
        self.account, self.clock = account, clock
        self.deliveries = Deliveries(account)
        self.held = self.deliveries.begin(place_of("run"), Try(), call="track", source="s", options="o", hold_s=34)
        chunk = RowChunk()
        for number in range(10):
            chunk.add(number + 1, {"user_id": f"u{number}", "message_id": f"m{number}"})
        self.held.keep_rows([chunk])
        self.held.rows_complete({})
        self.preparer = Preparer(DeliverySettings.of(call="track", event="Booked"), event_source="airflow")
        self.recorder = Recorder(self.held, account, TARGET, drift=TypeDrift({}), patience_s=patience_s, clock=clock)

    def ready(self, *positions):
        rows = {position: (source, row) for position, source, row in self.held.rows()}
        return [self.preparer.prepare(position, rows[position][1], NOW, rows[position][0]) for position in positions]

    def reserve(self, *rows):
        return asyncio.run(self.recorder.reserve(rows))

    def commit(self):
        asyncio.run(self.recorder.commit())

    def take_over(self):
        return self.deliveries.take(
            self.deliveries.latest(place_of("run")), Try(0, 2), source="s", options="o", hold_s=34
        )


@pytest.fixture
def recording(ledger, clock):
    with ledger.account(now=NOW) as account:
        account.database.patience_s = 0
        yield Recording(account, clock.clock)


class TestCommits:
    def test_rows_are_reserved_before_they_are_sent_and_settled_after(self, recording, ledger):
        first, second = recording.ready(0, 1)
        assert [one.go for one in recording.reserve(first, second)] == [True, True]
        assert Counter(ledger.states()) == {RowState.RESERVED: 2, RowState.OPEN: 8}
        first.tries = 1
        recording.recorder.acknowledge(first)
        recording.recorder.leave_open(second)
        assert ledger.outcomes() == []
        recording.commit()
        assert Counter(ledger.states()) == {RowState.ACKNOWLEDGED: 1, RowState.OPEN: 9}
        assert [(line.position, line.status) for line in ledger.outcomes()] == [(1, "acknowledged")]
        assert ledger.delivery().acknowledged == 1

    def test_what_may_be_sent_twice_is_not_reserved(self, recording, ledger):
        (row,) = recording.ready(0)
        row.guarantee = "at_least_once"
        recording.reserve(row)
        assert Counter(ledger.states()) == {RowState.OPEN: 10}

    def test_a_row_that_is_cut_off_is_sent_again_only_where_it_may_be_sent_twice(self, recording, ledger):
        once, again = recording.ready(0, 1)
        again.guarantee = "at_least_once"
        recording.reserve(once, again)
        once.tries, again.tries = 2, 3
        recording.recorder.interrupted(once, NOW)
        recording.recorder.interrupted(again, NOW)
        recording.commit()
        assert Counter(ledger.states()) == {RowState.UNKNOWN: 1, RowState.OPEN: 9}
        assert [(line.position, line.reason) for line in ledger.dead_letters()] == [(1, "interrupted")]
        counts = recording.held.counts
        assert (counts.unknown, counts.requests, counts.repeats) == (1, 5, 3), "what was sent counts, answered or not"

    def test_nothing_is_sent_when_the_last_commit_is_too_long_ago(self, recording, clock):
        recorder = recording.recorder
        assert recorder.wait_s(clock.seconds) == 0
        clock.seconds += FRESH_S + 0.1
        assert recorder.wait_s(clock.seconds) > 0
        recording.commit()
        assert recorder.wait_s(clock.seconds) == 0

    def test_a_commit_counts_from_when_it_began(self, recording, clock, monkeypatch):
        """Another try may have taken over right after it was decided."""
        write = Commit.write

        def slowly(*given):
            clock.seconds += FRESH_S + 0.5
            return write(*given)

        monkeypatch.setattr(Commit, "write", slowly)
        recording.commit()
        assert recording.recorder.wait_s(clock.seconds) > 0

    def test_one_that_fails_is_tried_again_within_the_patience_with_all_that_was_noted(
        self, recording, ledger, clock, caplog
    ):
        (row,) = recording.ready(0)
        recording.reserve(row)
        recording.recorder.acknowledge(row)
        ledger.change("ALTER TABLE regal_outcomes RENAME TO away")
        began = clock.seconds
        with pytest.raises(LedgerError):
            recording.commit()
        assert 5 <= clock.seconds - began < 6
        assert recording.recorder.wait_s(clock.seconds) > 0, "nothing is sent meanwhile"
        assert [record.levelname for record in caplog.records] == ["WARNING"], "said once"
        assert Counter(ledger.states())[RowState.RESERVED] == 1

        ledger.change("ALTER TABLE away RENAME TO regal_outcomes")
        recording.commit()

        assert recording.recorder.wait_s(clock.seconds) == 0
        assert Counter(ledger.states()) == {RowState.ACKNOWLEDGED: 1, RowState.OPEN: 9}
        assert [line.status for line in ledger.outcomes()] == ["acknowledged"]
        assert ledger.messages() == {}, "this row was prepared without asking for its message id"

    def test_rows_that_could_not_be_reserved_stay_open(self, recording, ledger):
        (row,) = recording.ready(0)
        ledger.change("ALTER TABLE regal_row_chunks RENAME TO away")
        with pytest.raises(LedgerError):
            recording.reserve(row)
        ledger.change("ALTER TABLE away RENAME TO regal_row_chunks")
        assert recording.held.states[0] == RowState.OPEN
        assert [one.go for one in recording.reserve(row)] == [True]

    def test_once_another_try_has_it_nothing_is_sent_or_written_any_more(self, recording, ledger, clock):
        (row,) = recording.ready(0)
        recording.reserve(row)
        recording.take_over()
        recording.recorder.acknowledge(row)
        for _ in range(2):
            with pytest.raises(TakenOverError):
                recording.commit()
            assert recording.recorder.wait_s(clock.seconds) > 0
        assert ledger.outcomes() == []
        assert Counter(ledger.states())[RowState.RESERVED] == 1


class TestConsentLog:
    """Each decision that was sent or withheld is a line: the evidence for the day somebody asks."""

    def contact(self, number, **more):
        return {"user_id": f"u{number}", "phone": f"+1212555{number:04d}", **more}

    def yes(self, number, hours_ago=1, **more):
        when = (NOW - timedelta(hours=hours_ago)).isoformat()
        evidence = {"sms_opt_in": True, "sms_opt_in_at": when, "sms_opt_in_ip": IP}
        return self.contact(number, **evidence | more)

    def no(self, number, hours_ago=1):
        return self.contact(number, sms_opt_in=False, sms_opt_in_at=(NOW - timedelta(hours=hours_ago)).isoformat())

    def test_an_opt_in_is_logged_with_its_evidence(self, deliver, ledger):
        deliver([self.yes(1, sms_opt_in_text="I agree", sms_opt_in_source="checkout")], call="identify", now=NOW)
        (line,) = ledger.consent_log()
        assert (line.identifier, line.channel, line.subscribed, line.status) == (
            "+12125550001",
            "sms",
            1,
            "acknowledged",
        )
        assert (line.ip, line.text, line.form) == (IP, "I agree", "checkout")
        assert line.given_at == to_ledger_time(NOW - timedelta(hours=1))
        assert (line.delivery, line.position, line.reason) == (str(ledger.delivery().id), 1, None)
        assert line.acknowledged_at == to_ledger_time(NOW)

    def test_a_withheld_opt_in_is_logged_with_the_evidence_it_had(self, deliver, ledger):
        row = self.yes(1, sms_opt_in_text="I agree", sms_opt_in_source="checkout", sms_opt_in_ip=None)
        deliver([{**row, "plan": "a"}], call="identify", now=NOW)
        (line,) = ledger.consent_log()
        assert (line.identifier, line.status, line.acknowledged_at) == ("+12125550001", "withheld", None)
        assert (line.ip, line.text, line.form) == (None, "I agree", "checkout")
        assert line.given_at == to_ledger_time(NOW - timedelta(hours=1))

    def test_a_withheld_opt_in_without_a_phone_is_logged_under_the_user_id(self, deliver, ledger):
        row = {name: value for name, value in self.yes(1).items() if name != "phone"}
        deliver([{**row, "plan": "a"}], call="identify", now=NOW)
        (line,) = ledger.consent_log()
        assert (line.identifier, line.status) == (f"user:{row['user_id']}", "withheld")

    def test_what_was_refused_or_is_unknown_is_logged_as_that(self, deliver, regal_sandbox, ledger):
        regal_sandbox.set_faults(
            [{"on": {"requests": [1]}, "do": {"status": 400}}, {"on": {"requests": [2]}, "do": {"drop": True}}]
        )
        with pytest.raises(TooManyFailedRowsError, match="with an opt-out") as error:
            deliver(
                [self.yes(1), self.no(2)], call="identify", guarantee="at_most_once", max_rejected=1, now=NOW,
                max_connections=1,
            )  # fmt: skip
        assert error.value.report.opt_outs_unknown == 1
        assert [(line.status, line.subscribed, bool(line.reason)) for line in ledger.consent_log()] == [
            ("refused", 1, True), ("unknown", 0, True),
        ]  # fmt: skip

    def test_an_opt_in_without_evidence_is_logged_as_withheld_with_the_reason(self, deliver, ledger):
        report = deliver([self.contact(1, sms_opt_in=True, plan="a")], call="identify", now=NOW)
        assert (report.acknowledged, report.opt_ins_withheld) == (1, 1)
        (line,) = ledger.consent_log()
        assert (line.identifier, line.subscribed, line.status) == ("+12125550001", 1, "withheld")
        assert "timestamp" in line.reason

    def test_an_older_decision_that_is_left_out_is_logged_as_what_it_was(self, deliver, ledger):
        deliver([self.no(1, 5), self.yes(1, 2)], call="identify", now=NOW)
        assert sorted((line.subscribed, line.status) for line in ledger.consent_log()) == [
            (0, "withheld"), (1, "acknowledged"),
        ]  # fmt: skip

    def test_each_is_logged_once_whichever_try_settles_its_row(self, deliver, regal_sandbox, ledger):
        rows = [self.contact(n, sms_opt_in=True, plan="a") for n in range(20)]
        regal_sandbox.set_faults([{"on": {"from": 6}, "do": {"status": 401}}])
        with pytest.raises(FixConnectionError):
            deliver(rows, call="identify", now=NOW, max_connections=1)
        regal_sandbox.set_faults([])
        report = deliver(rows, call="identify", number=2, now=NOW)
        assert (report.acknowledged, report.opt_ins_withheld) == (20, 20)
        assert Counter(line.position for line in ledger.consent_log()) == dict.fromkeys(range(1, 21), 1)

    def test_events_without_a_time_are_counted_once_whichever_try_settles_them(self, deliver, regal_sandbox):
        rows = [{"user_id": f"u{n}"} for n in range(20)]
        regal_sandbox.set_faults([{"on": {"from": 6}, "do": {"status": 401}}])
        with pytest.raises(FixConnectionError):
            deliver(rows, max_connections=1)
        regal_sandbox.set_faults([])
        assert deliver(rows, number=2).without_time == 20

    def test_where_identifiers_are_hashed_the_log_names_nobody(self, deliver, ledger):
        deliver([self.yes(1)], call="identify", now=NOW, secret=b"pepper")
        (line,) = ledger.consent_log()
        assert len(line.identifier) == 64
        (outcome,) = ledger.outcomes()
        assert {len(outcome.user_id), len(outcome.phone)} == {64}


def test_a_dead_letter_names_what_regal_said_and_no_value_of_the_row(deliver, regal_sandbox, ledger):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 422, "body": "json"}}])
    deliver([{"user_id": "secret-user", "plan": "secret-plan"}], max_rejected=1)
    (letter,) = ledger.dead_letters()
    assert letter.message.startswith("HTTP 422, Regal says: ")
    assert "secret" not in letter.message
    assert letter.payload["userId"] == "secret-user"
    assert (letter.form, letter.call) == ("body", "track")


def test_a_row_whose_mapping_changed_after_a_crash_is_unknown_all_the_same(deliver, ledger, regal_sandbox):
    """It was reserved under the old options; under the new ones it could not even be sent."""
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 401}}])
    with pytest.raises(FixConnectionError):
        deliver([{"user_id": "u", "x": "text"}], timeout_s=1)
    ledger.change("UPDATE regal_row_chunks SET states = :states", states=bytes([RowState.RESERVED]))
    regal_sandbox.set_faults([])
    report = deliver([], number=2, timeout_s=1, types={"x": int})
    assert (report.unknown, report.unknown_of_outage, report.rejected) == (1, 1, 0)
    (letter,) = ledger.dead_letters()
    assert (letter.reason, letter.form) == ("worker died", "row")
