"""Guards: a broken join, a wrong table or a wrong key costs an error, not ten thousand calls."""

from __future__ import annotations

import sqlite3
from collections import Counter
from contextlib import closing

import pytest

from airflow_provider_regal.delivery.guards import Refusals, StoppedByGuardError, why_stopped
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.sources.rows import row_of
from tests.delivery.consents import NOW, no, phone, told, yes

REFUSE = {"do": {"status": 400}}


def people(count, start=0):
    return [{"user_id": f"u{number}", "plan": "gold"} for number in range(start, start + count)]


def arrived(regal_sandbox):
    return Counter(event["body"]["userId"] for event in regal_sandbox.events(stored=True))


def stopped(read, runs=(), **options):
    return why_stopped(read, DeliverySettings.of(call="track", **options), runs)


class TestTheSource:
    @pytest.mark.parametrize(("read", "stops"), [(9, True), (10, False), (20, False), (21, True)])
    def test_may_have_from_min_rows_to_max_rows(self, read, stops):
        assert (stopped(read, min_rows=10, max_rows=20) is not None) == stops

    @pytest.mark.parametrize(("read", "stops"), [(49, True), (50, False), (200, False), (201, True), (0, True)])
    def test_may_have_what_is_usual(self, read, stops):
        assert (stopped(read, [100, 90, 110, 1, 10_000], volume=(0.5, 2.0)) is not None) == stops

    def test_may_have_anything_until_five_runs_have_finished(self):
        assert stopped(10_000, [1, 1, 1, 1], volume=(0.5, 2.0)) is None
        assert stopped(10_000, [1, 1, 1, 1, 1], volume=(0.5, 2.0)) is not None

    def test_that_is_not_usual_is_told_with_what_is(self):
        assert stopped(3_000, [1_204, 1_100, 1_300, 1_204, 1_250], volume=(0.5, 2.0)) == (
            "The source has 3,000 rows. Normal here are 1,204 rows (the median of the last 5 finished runs, 1,100 to "
            "1,300), and volume=(0.5, 2) allows 602 to 2,408. Check the query or the files. If it is meant, set "
            "volume=None for one run and clear the task."
        )

    def test_is_compared_with_the_finished_runs_of_this_task_alone(self, deliver, regal_sandbox):
        for run in range(5):
            deliver(people(10), of_run=f"run {run}", volume=(0.5, 2.0))
        deliver(people(1_000), of_run="other", name="another delivery of the task")
        with pytest.raises(FixSourceError, match=r"Normal here are 10 rows .* Nothing was sent"):
            deliver(people(21), of_run="much", volume=(0.5, 2.0))
        assert regal_sandbox.stats()["requests"] == 1_050
        assert deliver(people(21), of_run="much", epoch=1, number=2).acknowledged == 21, "after a clear"
        with pytest.raises(FixSourceError, match="the last 6 finished runs"):
            deliver(people(4), of_run="few", volume=(0.5, 2.0))

    def test_with_more_than_max_rows_is_not_sent(self, deliver, regal_sandbox):
        with pytest.raises(FixSourceError, match=r"has 21 rows, more than max_rows=20\..* Nothing was sent"):
            deliver(people(21), max_rows=20)
        assert regal_sandbox.stats()["requests"] == 0
        assert deliver(people(21), max_rows=21, epoch=1, number=2).acknowledged == 21

    @pytest.mark.parametrize(
        ("stopping", "passing", "kept"),
        [({"max_rows": 20}, {"max_rows": 21}, 21), ({"min_rows": 30}, {"min_rows": 10}, 21),
         ({"min_rows": 30}, {}, 21)],
    )  # fmt: skip
    def test_that_was_stopped_is_kept_and_sent_as_it_was_read_by_a_clear_that_lets_it_pass(
        self, deliver, regal_sandbox, ledger, stopping, passing, kept
    ):
        with pytest.raises(StoppedByGuardError, match="the rows are kept"):
            deliver(people(kept), **stopping)
        assert (regal_sandbox.stats()["requests"], ledger.delivery().state) == (0, "stopped")
        report = deliver(people(5, start=500), epoch=1, number=2, **passing)
        assert (report.read, report.acknowledged, report.delivery) == (kept, kept, 1)
        assert arrived(regal_sandbox) == Counter(f"u{number}" for number in range(kept))
        assert deliver(people(5), epoch=2, number=3, **passing).status == "nothing_to_do"

    def test_of_files_that_was_stopped_is_kept_as_well(self, deliver, regal_sandbox, ledger):
        rows = [row_of(row, f"a.csv line {number}") for number, row in enumerate(people(21), 2)]
        with pytest.raises(StoppedByGuardError, match="the rows are kept"):
            deliver(rows, max_rows=20)
        assert ledger.delivery().state == "stopped"
        assert deliver([], epoch=1, number=2, max_rows=21).acknowledged == 21
        assert len(arrived(regal_sandbox)) == 21

    @pytest.mark.parametrize("again", [{"max_rows": 20}, {"max_rows": 30, "source": "another query"}])
    def test_that_was_stopped_is_read_again_by_a_clear_that_does_not_let_it_pass_or_has_another_source(
        self, deliver, regal_sandbox, again
    ):
        with pytest.raises(StoppedByGuardError):
            deliver(people(21), max_rows=20)
        report = deliver(people(7, start=100), epoch=1, number=2, **again)
        assert (report.read, report.acknowledged, report.delivery) == (7, 7, 1)
        assert arrived(regal_sandbox) == Counter(f"u{number}" for number in range(100, 107))

    def test_that_was_stopped_twice_is_kept_as_it_was_read_last(self, deliver, regal_sandbox):
        with pytest.raises(StoppedByGuardError):
            deliver(people(21), max_rows=20)
        with pytest.raises(StoppedByGuardError, match="has 23 rows"):
            deliver(people(23), max_rows=20, epoch=1, number=2)
        assert deliver([], epoch=2, number=3).acknowledged == 23

    def test_that_was_stopped_is_not_sent_by_a_try_that_dies_before_it_could_say_so(
        self, deliver, regal_sandbox, ledger_path
    ):
        with pytest.raises(StoppedByGuardError):
            deliver(people(21), max_rows=20)
        with closing(sqlite3.connect(ledger_path)) as connection, connection:
            connection.execute("UPDATE regal_deliveries SET state = 'sending', error = NULL, ended_at = NULL")
        with pytest.raises(StoppedByGuardError):
            deliver(people(21), max_rows=20, number=2)
        assert regal_sandbox.stats()["requests"] == 0

    def test_that_was_stopped_with_a_column_missing_is_read_again(self, deliver):
        with pytest.raises(FixSourceError, match=r"max_rows=20.*Nothing was sent\.$"):
            deliver(people(21), max_rows=20, mapping={"no_such_column": "properties.x"})
        assert deliver(people(3), epoch=1, number=2).acknowledged == 3

    def test_of_contacts_is_read_again_by_a_clear(self, deliver, regal_sandbox):
        with pytest.raises(FixSourceError, match=r"max_rows=2.*Nothing was sent\.$"):
            deliver(people(3), call="identify", max_rows=2)
        assert deliver(people(4), call="identify", epoch=1, number=2).acknowledged == 4

    def test_of_contacts_has_its_opt_outs_sent_all_the_same(self, deliver, regal_sandbox):
        rows = [*people(3), {"user_id": "out", "phone": phone(7), "sms_opt_in": False}]
        with pytest.raises(FixSourceError, match=r"max_rows=2.*Only opt-outs were sent \(1\)"):
            deliver(rows, call="identify", max_rows=2)
        assert [said for _, *said in told(regal_sandbox)] == [["sms", False]]

    def test_of_consents_has_its_opt_outs_sent_all_the_same(self, sync, regal_sandbox):
        with pytest.raises(FixSourceError, match=r"3 consents, more than max_rows=2\b.*opt-outs were sent \(1\)"):
            sync([yes(1), no(2), yes(3)], max_rows=2)
        assert told(regal_sandbox) == [("u2", "sms", False)]
        for number in range(5):
            sync([yes(1), no(2), yes(3)], task="dag.t", of_run=f"r{number}", volume=(0.9, 1.1))
        with pytest.raises(FixSourceError, match="Normal here are 3 consents"):
            sync([yes(1)], task="dag.t", volume=(0.9, 1.1))


class TestRefusals:
    def test_stop_the_sending_and_the_rest_is_kept(self, deliver, regal_sandbox, ledger):
        regal_sandbox.set_faults([REFUSE])
        with pytest.raises(FixSourceError, match=r"Regal refused 20 of the last 20 events \(the last: HTTP 400\)"):
            deliver(people(3_000), max_connections=4)
        assert 20 <= regal_sandbox.stats()["requests"] < 40
        assert ledger.delivery().state == "stopped"
        regal_sandbox.set_faults([])
        report = deliver(people(3_000), epoch=1, number=2)
        assert (report.acknowledged, report.rejected, report.read) == (3_000, 0, 3_000)
        assert set(arrived(regal_sandbox).values()) == {1}

    def test_that_are_few_beside_what_is_acknowledged_stop_nothing(self, deliver, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"every": 10}, "do": {"status": 400}}])
        report = deliver(people(400), max_rejected=1.0)
        assert (report.acknowledged, report.rejected) == (360, 40)

    def test_stop_nothing_where_there_is_no_limit(self, deliver, regal_sandbox):
        regal_sandbox.set_faults([REFUSE])
        assert deliver(people(200), max_refused=None, max_rejected=1.0).rejected == 200

    def test_leave_opt_outs_owed_to_the_next_delivery(self, deliver, regal_sandbox, ledger):
        rows = [*people(60), {"user_id": "out", "phone": phone(7), "sms_opt_in": False}]
        regal_sandbox.set_faults([REFUSE])
        with pytest.raises(FixSourceError, match="max_refused"):
            deliver(rows, call="identify", max_connections=1, now=NOW)
        regal_sandbox.set_faults([])
        report = deliver(people(1), call="identify", of_run="next", now=NOW)
        assert (report.owed_sent, report.opt_outs_owed) == (1, 0)

    @pytest.mark.parametrize(
        ("allowed", "answers", "stops"),
        [
            (0.2, "R" * 19, False), (0.2, "R" * 20, True), (0.2, "R" * 20 + "A" * 81, False),
            (0.2, "A" * 500 + "R" * 20, True), (0.0, "R", True), (0.0, "A", False), (1.0, "R" * 99, False),
            (1.0, "R" * 100, True), (None, "R" * 1_000, False), (0.29, "R" * 28, False), (0.29, "R" * 29, True),
        ],
    )  # fmt: skip
    def test_count_among_the_last_hundred_answers(self, allowed, answers, stops):
        refusals = Refusals(allowed)
        for answer in answers:
            refusals.note(refused=answer == "R")
        assert (refusals.why_stopped("HTTP 400") is not None) == stops


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_rows": -1}, {"max_rows": 1.5}, {"volume": 2}, {"volume": (2.0, 0.5)}, {"volume": (0.5,)},
        {"volume": ("0.5", "2")}, {"max_refused": 1.5}, {"max_refused": -0.1}, {"max_refused": "20%"},
        {"max_refused": True}, {"max_refused": float("nan")},
    ],
)  # fmt: skip
def test_what_cannot_be_right_is_said_when_the_dag_is_written(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DeliverySettings.of(call="track", **wrong)
