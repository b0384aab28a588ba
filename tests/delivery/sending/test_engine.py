"""The engine when things go wrong: our own failures, outages, endless 429s; and the cost of these."""

from __future__ import annotations

import re
import threading
import time
import tracemalloc
from collections import Counter
from contextlib import contextmanager, nullcontext

import pytest

from airflow_provider_regal.client.many import ManySender
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.sending.recorder import Recorder
from airflow_provider_regal.errors import FixConnectionError, RetryLaterError
from airflow_provider_regal.ledger.deliveries import Commit
from airflow_provider_regal.ledger.states import RowState
from airflow_provider_regal.testing import Sandbox
from tests.delivery.trouble import cannot_be_written

HANG = {"hang": True}


def people(count, start=0):
    return [{"user_id": f"u{number}", "amount": number} for number in range(start, start + count)]


def arrivals(regal):
    return Counter(event["body"]["userId"] for event in regal.events() if event["stored"])


def once(monkeypatch, owner, name, at, what):
    """Let one call of a method fail."""
    calls = 0
    real = getattr(owner, name)

    def failing(self, *args, **kwargs):
        nonlocal calls
        calls += 1
        if calls == at:
            raise what
        return real(self, *args, **kwargs)

    monkeypatch.setattr(owner, name, failing)


@pytest.mark.parametrize(
    ("owner", "name", "at"),
    [(Recorder, "acknowledge", 20), (ManySender, "attempt", 20), (Commit, "write", 2), (Commit, "write", 4)],
)
@pytest.mark.parametrize("error", [ValueError("+12125550100"), OSError(28, "No space left on device")])
def test_a_failure_of_our_own_stops_with_its_cause_and_the_next_try_resumes(
    deliver, regal_sandbox, monkeypatch, owner, name, at, error
):
    with monkeypatch.context() as patched:
        once(patched, owner, name, at, error)
        with pytest.raises(RetryLaterError, match="Remaining rows are saved") as caught:
            deliver(people(200), max_connections=8)
    assert caught.value.__cause__ is error
    assert "2125550100" not in str(caught.value)

    report = deliver(people(200), number=2)

    assert report.acknowledged + report.unknown == 200
    assert report.unknown <= 1, "only the row whose answer could not be noted"
    assert max(arrivals(regal_sandbox).values()) == 1
    assert report.unknown_of_outage == report.unknown


def test_a_refusal_that_cannot_be_committed_at_first_is_committed_later(deliver, regal_sandbox, ledger):
    regal_sandbox.set_faults([{"on": {"requests": [5]}, "do": {"status": 400}}])
    with cannot_be_written(ledger, regal_sandbox, after=5, for_s=1):
        report = deliver(people(40), max_connections=1, rate=20, max_rejected=1, timeout_s=1)
    assert (report.acknowledged, report.rejected, report.unknown) == (39, 1, 0)
    (letter,) = ledger.dead_letters()
    assert (letter.reason, letter.payload["userId"]) == ("HTTP 400", "u4")


def test_a_row_that_breaks_the_preparation_stops_and_keeps_what_is_under_way(deliver, regal_sandbox, monkeypatch):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 30}}])
    with monkeypatch.context() as patched:
        once(patched, Preparer, "prepare", 100, KeyError("bug"))
        with pytest.raises(KeyError):
            deliver(people(200))
    assert deliver.last.report.acknowledged == regal_sandbox.stats()["requests"] > 0

    assert deliver(people(200), number=2).acknowledged == 200
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_rows_that_wait_for_a_repeat_are_open_after_a_stop(deliver, regal_sandbox):
    regal_sandbox.set_faults(
        [{"on": {"to": 4}, "do": {"status": 503, "retry_after": 60}}, {"on": {"from": 30}, "do": {"status": 401}}]
    )
    with pytest.raises(FixConnectionError):
        deliver(people(100), max_connections=4)
    assert deliver.last.report.repeats == 0
    regal_sandbox.set_faults([])

    report = deliver(people(100), number=2)

    assert (report.acknowledged, report.unknown) == (100, 0)
    assert set(arrivals(regal_sandbox).values()) == {1}


@pytest.mark.slow
def test_an_outage_is_left_promptly_though_requests_hang(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 21}, "do": HANG}])
    started = time.monotonic()
    with pytest.raises(RetryLaterError, match="outage_patience"):
        deliver(people(500), max_connections=8, outage_patience=3)
    assert time.monotonic() - started < 3 + 3 + 2, "patience and a small grace, not the timeout of 30 s"
    report = deliver.last.report
    assert (report.acknowledged, report.unknown) == (20, 8)


def test_an_outage_is_told_when_it_begins_and_when_it_ends(deliver, regal_sandbox, caplog):
    caplog.set_level("INFO")
    regal_sandbox.set_faults([{"on": {"from": 21, "to": 31}, "do": {"status": 503, "retry_after": 0}}])
    assert deliver(people(100), max_connections=1, outage_patience=60).acknowledged == 100
    began, ended = (
        one for one in caplog.records if "Regal has accepted nothing" in one.message or "answers again" in one.message
    )
    assert (began.levelname, ended.levelname) == ("WARNING", "INFO")
    told = re.sub(r"\d\d:\d\d:\d\d", "hh:mm:ss", began.message)
    assert told == (
        "Regal has accepted nothing since hh:mm:ss UTC (the last request: HTTP 503). One row at a time probes whether "
        "it is back, at least every 30 s. At hh:mm:ss UTC (outage_patience=60 s) the task stops with all unsent rows "
        "saved, and its retry resumes"
    )
    assert re.fullmatch(r"Regal answers again after \d+ s\. Sending resumes", ended.message)


def test_unknowns_of_an_outage_do_not_count_even_in_a_later_try(deliver, regal_sandbox, ledger):
    regal_sandbox.set_faults([{"on": {"from": 21}, "do": {"status": 500}}])
    with pytest.raises(RetryLaterError):
        deliver(people(100), max_connections=1, outage_patience=0.4, max_unknown=0)
    assert deliver.last.report.unknown >= 10
    assert {letter.reason for letter in ledger.dead_letters()} == {"outage: HTTP 500"}, "also those that began it"
    regal_sandbox.set_faults([])

    report = deliver(people(100), number=2, max_unknown=0)

    assert report.acknowledged + report.unknown == 100
    assert report.unknown_of_outage == report.unknown


@pytest.mark.slow
def test_a_row_that_never_gets_a_good_answer_is_given_up_and_the_others_go(deliver, regal_sandbox, no_back_off):
    regal_sandbox.set_faults([{"on": {"name": "poison"}, "do": {"status": 500}}])
    rows = [{"user_id": "p", "event": "poison"}, *({**row, "event": "fine"} for row in people(400))]

    report = deliver(rows, guarantee="at_least_once", event=None, rate=60, max_unknown=1)

    assert (report.acknowledged, report.unknown) == (400, 1)
    assert report.repeats == 9


def test_contacts_are_kept_through_an_outage_rather_than_given_up(deliver, regal_sandbox, no_back_off):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 500}}])
    with pytest.raises(RetryLaterError):
        deliver([{"user_id": "a", "phone": "+12125550100"}], call="identify", outage_patience=1)
    assert deliver.last.report.unknown == 0


@pytest.fixture
def no_back_off(monkeypatch):
    monkeypatch.setattr("airflow_provider_regal.client.exchange._BASE_S", 0.02)


def test_a_worker_is_not_held_where_regal_asks_for_more_than_the_patience(deliver, regal_sandbox):
    """Five minutes is what it would wait at most for one header, and the usual patience as well."""
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900}}])
    with pytest.raises(RetryLaterError):
        deliver(people(3), outage_patience=300)


@pytest.mark.slow
def test_429_without_end_costs_few_requests_and_leaves_no_row_in_doubt(deliver, regal_sandbox, ledger):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 429}}])
    with pytest.raises(RetryLaterError):
        deliver(people(1_000), rate=100, outage_patience=6)
    assert regal_sandbox.stats()["requests"] <= 30
    assert deliver.last.report.unknown == 0
    assert set(ledger.states()) == {RowState.OPEN}


@contextmanager
def counted_calls():
    """Count the functions, of Python and of C, that threads which start from now on call: work, on any machine."""
    calls = Counter[str]()
    threading.setprofile(lambda _frame, event, _arg: calls.update([event]))
    try:
        yield calls
    finally:
        threading.setprofile(None)


@pytest.mark.parametrize(("rows", "rate", "patience"), [(20, 5, 300), (1_000, 100_000, 4)])
@pytest.mark.slow
def test_waiting_is_no_work(deliver, regal_sandbox, rows, rate, patience):
    deliver(people(20), number=1)  # what is done once in a process
    faults = rows > 20
    if faults:
        regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 1}}])
    started = time.monotonic()
    with counted_calls() as calls, pytest.raises(RetryLaterError) if faults else nullcontext():
        deliver(people(rows), rate=rate, outage_patience=patience, restart=True, number=2, max_connections=4)
    wall = time.monotonic() - started
    assert wall > 3
    # About 5,500 a second, most of them of requests, and 12 to read a row; a loop that looks every 10 ms: 5,000 more.
    assert 0 < calls["call"] + calls["c_call"] < 7_500 * wall + 15 * rows


def test_rows_that_cannot_be_sent_do_not_keep_the_loop_from_its_requests(deliver, regal_sandbox):
    rows = [*people(20), *({"amount": number} for number in range(9_000)), *people(20, 20)]
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 20}}])
    rejected_by_then = []
    acknowledge = Recorder.acknowledge

    def noting(self, row):
        rejected_by_then.append(self._held.counts.rejected)
        acknowledge(self, row)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(Recorder, "acknowledge", noting)
        report = deliver(rows, max_rejected=1.0)
    assert (report.acknowledged, report.rejected) == (40, 9_000)
    assert rejected_by_then[0] < 6_000


@pytest.mark.slow
def test_memory_is_bounded_by_the_size_of_rows_not_by_their_number(deliver, regal_sandbox, monkeypatch):
    monkeypatch.setattr("airflow_provider_regal.delivery.sending.window.MOST_BYTES", 1_000_000)
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 20}}])
    most = 0
    admit = Preparer.prepare

    def watching(self, *given):
        nonlocal most
        most = max(most, tracemalloc.get_traced_memory()[0])
        return admit(self, *given)

    monkeypatch.setattr(Preparer, "prepare", watching)
    # The rows are about one person, so each waits for the one before.
    tracemalloc.start()
    try:
        deliver([{"user_id": "same", "text": "x" * 50_000} for _ in range(150)])
    finally:
        tracemalloc.stop()
    assert regal_sandbox.stats()["stored"] == 150
    assert most < 150 * 50_000 * 3


def test_what_is_acknowledged_is_committed_within_about_a_second(deliver, regal_sandbox, ledger):
    contacts = [{"user_id": f"u{number}", "phone": f"+1212555{number:04d}"} for number in range(160)]
    running = threading.Thread(target=deliver, args=(contacts,), kwargs={"call": "identify", "rate": 40})
    running.start()
    seen = []
    while running.is_alive():
        requests = regal_sandbox._ask(lambda account: account.stats()["requests"])
        if requests:
            seen.append((time.monotonic(), requests, ledger.delivery().acknowledged))
        time.sleep(0.1)
    running.join()
    assert ledger.delivery().acknowledged == 160
    for now, _, committed in seen:
        before = [requests for at, requests, _ in seen if at < now - 2]
        assert committed >= max(before, default=0), "what was sent two seconds ago is committed"
    assert len({committed for *_, committed in seen}) >= 4


@pytest.mark.long
class TestManyRows:
    @pytest.fixture
    def regal_sandbox(self):
        with Sandbox(keep_events=50_000) as sandbox:
            yield sandbox

    def test_twenty_thousand_rows_with_faults_of_all_kinds(
        self, deliver, regal_sandbox, ledger, record_property, no_back_off
    ):
        regal_sandbox.set_faults(
            [
                {"on": {"share": 0.02, "seed": 1}, "do": {"status": 500}},
                {"on": {"share": 0.01, "seed": 2}, "do": {"drop": True}},
                {"on": {"share": 0.01, "seed": 3}, "do": {"status": 429, "retry_after": 0}},
            ]
        )
        count = 20_000
        report = deliver(people(count), max_unknown=1.0)
        record_property("report", report.as_dict())

        assert report.read == count == report.acknowledged + report.rejected + report.unknown + report.skipped
        arrived = arrivals(regal_sandbox)
        assert max(arrived.values()) == 1
        dead = {letter.position for letter in ledger.dead_letters()}
        assert len(dead) == report.unknown
        assert all(f"u{number}" in arrived or number + 1 in dead for number in range(count))
        assert 0.02 * count < report.unknown < 0.04 * count
