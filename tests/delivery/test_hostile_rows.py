"""Whatever a source returns, each row has one outcome, good ones arrive, no value is shown, and the delivery ends."""

from __future__ import annotations

import io
import json
import logging
import re
import resource
import signal
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from airflow_provider_regal.delivery.report import DeliveryReport
from airflow_provider_regal.errors import TooManyFailedRowsError
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.sources.files import SourceFile, read_files
from tests.delivery.hostile_rows import GOOD_EVERY, hostile_consents, hostile_file, hostile_rows
from tests.hostile_objects import CANARY
from tests.ledger_file import outcomes

IDENTIFY = {"call": "identify"}
TRACK = {"call": "track", "event": "Lesson Booked"}
ONLY_CHANGED = {**IDENTIFY, "only_changed": True}
_PATIENCE_S = 240
_MOST_KB = 700_000


@pytest.fixture(autouse=True)
def ends() -> Iterator[None]:
    """End a delivery that does not, and fail where it took the machine's memory."""

    def too_long(*_: object) -> None:
        raise AssertionError(f"not done after {_PATIENCE_S} s")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(_PATIENCE_S)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory < _MOST_KB


@pytest.fixture
def check(regal, regal_ledger, monkeypatch, caplog) -> Callable[..., DeliveryReport]:
    """Deliver rows, and check what became of each; returns the report."""
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(rate_limit=10_000))

    def run(rows: Any, good: int, **options: Any) -> DeliveryReport:
        """:param good: how many of the rows are good ones."""
        before, shown = regal.stats()["stored"], ""
        with caplog.at_level(logging.DEBUG), warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                report = RegalHook().deliver(rows, max_rejected=1.0, max_refused=None, **options)
            except TooManyFailedRowsError as error:  # no threshold permits rejected opt-outs
                report, shown = error.report, str(error)
        for said in (caplog.text, shown, *(str(one.message) for one in warned), json.dumps(report.as_dict())):
            assert CANARY not in said
        caplog.clear()
        lines = outcomes(regal_ledger, report.delivery)
        status = Counter(line["status"] for line in lines)
        assert report.read == report.acknowledged + report.rejected + report.unknown + report.skipped
        assert (report.acknowledged, report.rejected, report.unknown) == (
            status["acknowledged"], status["rejected"], 0,
        )  # fmt: skip
        assert len({line["position"] for line in lines}) == len(lines) == report.read - report.skipped
        for line in lines:
            if line["status"] == "rejected":
                assert line["field"]
                assert line["message"]
                assert CANARY not in line["field"] + line["message"]
        sent = [event["body"] for event in regal.events(stored=True)[before:]]
        arrived = Counter(body.get("userId", "") for body in sent)
        accepted = Counter(line["user_id"] or "" for line in lines if line["status"] == "acknowledged")
        assert len(sent) == report.requests - report.repeats
        opt_outs = len(sent) - report.acknowledged  # of rows with other faults
        assert arrived.total() - accepted.total() == opt_outs
        kept_as_hashes = re.compile("[0-9a-f]{64}").fullmatch  # long ids are shortened in the ledger
        assert [user for user in accepted - arrived if user and not kept_as_hashes(user)] == []
        assert sum(user.startswith("good-") for user in accepted) == good
        assert regal.stats()["contract_findings"] == {}
        return report

    return run


@pytest.mark.parametrize("options", [IDENTIFY, TRACK, ONLY_CHANGED], ids=["identify", "track", "only_changed"])
@pytest.mark.parametrize(("seed", "count"), [(1, 60), pytest.param(2, 2_500, marks=pytest.mark.long)])
def test_each_row_has_one_outcome_and_the_good_ones_arrive(check, options, seed, count):
    report = check(hostile_rows(seed, count), count // GOOD_EVERY, **options)
    assert report.read == count


@pytest.mark.parametrize("file_format", ["csv", "jsonl", "segment"])
@pytest.mark.parametrize(("seed", "count"), [(1, 40), pytest.param(2, 1_000, marks=pytest.mark.long)])
def test_each_line_of_a_file_has_one_outcome(check, file_format, seed, count):
    file = SourceFile("a", lambda: io.BytesIO(hostile_file(file_format, seed, count)))
    options = {"call": "track"} if file_format == "segment" else IDENTIFY
    check(read_files([file], file_format), count // GOOD_EVERY, **options)


def test_a_line_of_10_mb_and_a_quote_that_stays_open_are_one_rejection_each(check):
    lines = b"user_id,x\ngood-1,a\n" + b"y" * 10_000_000 + b'\ngood-2,b\nu3,"open\n'
    report = check(read_files([SourceFile("a", lambda: io.BytesIO(lines))], "csv"), 2, **IDENTIFY)
    assert (report.acknowledged, report.rejected) == (2, 2)


@pytest.mark.parametrize(("seed", "count"), [(1, 60), pytest.param(2, 1_500, marks=pytest.mark.long)])
def test_each_row_of_consents_has_one_outcome(sync, regal_sandbox, ledger, seed, count, caplog):
    with caplog.at_level(logging.DEBUG):
        try:
            report, shown = sync(hostile_consents(seed, count), max_rejected=1.0, max_refused=None), ""
        except TooManyFailedRowsError as error:
            report, shown = error.report, str(error)
    assert CANARY not in caplog.text + shown + json.dumps(report.as_dict())
    assert report.read == report.acknowledged + report.rejected + report.unknown + report.skipped
    assert report.read >= count
    assert report.unknown == 0
    good = {f"good-{number}" for number in range(GOOD_EVERY, count + 1, GOOD_EVERY)}
    arrived = Counter(event["body"].get("userId") for event in regal_sandbox.events(stored=True))
    assert {user: arrived[user] for user in good} == dict.fromkeys(good, 1)
    assert regal_sandbox.stats()["contract_findings"] == {}
    rejected = [line for line in ledger.outcomes("run-0") if line.status == "rejected"]
    assert len(rejected) == report.rejected
    assert all(line.field and line.message and CANARY not in line.field + line.message for line in rejected)
