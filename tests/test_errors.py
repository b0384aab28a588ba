"""Errors can be caught by what to do next, name it, and survive a process boundary."""

from __future__ import annotations

import copy
import pickle

import pytest

from airflow_provider_regal.delivery.report import DeliveryReport
from airflow_provider_regal.errors import (
    CheckRegalError,
    Fault,
    FixConnectionError,
    FixSourceError,
    InvalidEventError,
    LedgerError,
    RefusedEventError,
    RegalError,
    ResumeError,
    RetryLaterError,
    TakenOverError,
    TooManyFailedRowsError,
    WrongLedgerError,
)

FAULTS = (Fault("traits.optIn[1].timestamp", "is missing"), Fault("phone", "not a phone number"))
ALL = [
    FixConnectionError("fix it", status=401),
    InvalidEventError("identify", FAULTS),
    RefusedEventError("refused", status=400, tries=2),
    RetryLaterError("wait", status=429, tries=3, retry_after_s=7.5),
    CheckRegalError("who knows", status=504),
    FixSourceError("too few rows"),
    WrongLedgerError("another key"),
    LedgerError("no ledger"),
    TakenOverError("another try delivers"),
    TooManyFailedRowsError("2 rejected", "its report"),
    ResumeError("decide"),
]


@pytest.mark.parametrize("error", ALL, ids=lambda error: type(error).__name__)
def test_every_error_is_a_regal_error_and_survives_pickling_and_copying(error):
    assert isinstance(error, RegalError)
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(twin) is type(error)
        assert str(twin) == str(error)
        assert vars(twin) == vars(error)


def test_errors_of_the_ledger_can_be_caught_by_what_to_do_next():
    assert issubclass(WrongLedgerError, FixConnectionError), "retrying would not help"
    assert issubclass(LedgerError, RetryLaterError)
    assert issubclass(TakenOverError, RetryLaterError)


def test_a_delivery_that_failed_carries_its_report():
    report = DeliveryReport(delivery=7, rejected=2)
    assert TooManyFailedRowsError("2 rejected", report).report is report


def test_an_invalid_event_names_every_fault_on_its_line():
    assert str(InvalidEventError("identify", FAULTS)) == (
        "This identify event is invalid and was not sent (2 faults):\n"
        "  - traits.optIn[1].timestamp: is missing\n"
        "  - phone: not a phone number"
    )
    assert "(1 fault)" in str(InvalidEventError("page", FAULTS[:1]))


def test_a_message_stays_readable_however_many_faults_there_are():
    error = InvalidEventError("track", [Fault(f"properties.p{i}", "must be text") for i in range(1000)])
    assert str(error).count("\n") == 26
    assert str(error).endswith("  - and 975 more")
    assert len(error.faults) == 1000


def test_an_answer_is_told_with_its_status_and_tries():
    error = RetryLaterError("wait", status=503, tries=2, retry_after_s=1.0)
    assert (error.status, error.tries, error.retry_after_s) == (503, 2, 1.0)
    assert (CheckRegalError("x").status, CheckRegalError("x").tries) == (None, 1)
    assert FixConnectionError("x").status is None
