"""A source of one's own: a subclass of ``RegalBulkOperator``. What it raises is shown without its text."""

from __future__ import annotations

import logging
import traceback

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.operators.bulk import RegalBulkOperator
from airflow_provider_regal.sources.rows import bad_row, row_of
from tests.ledger_file import dead_letters, deliveries, everything
from tests.operators.ways import context
from tests.people import SECRETS

PHONE = SECRETS["phone"]
PEOPLE = 1_500


class DriverError(Exception):
    """What a driver raises: it quotes the row at which it failed."""


class People(RegalBulkOperator):
    """Rows of a subclass that fails at one of them.

    :param fails_at: number of the row; 0 while it is opened.
    """

    def __init__(self, *, error=None, fails_at=1, table="people", **kwargs):
        super().__init__(task_id="t", call="track", event="Lesson Booked", **kwargs)
        self.error, self.fails_at, self.table = error, fails_at, table

    def source(self):
        return ("people", self.table)

    def open_rows(self, context):
        if self.error is not None and self.fails_at == 0:
            raise self.error from KeyError(PHONE)
        return self._rows()

    def _rows(self):
        for number in range(1, PEOPLE + 1):
            if self.error is not None and self.fails_at == number:
                raise self.error from KeyError(PHONE)
            yield {"user_id": f"u{number}"}


class Opened(People):
    """A subclass that overrides what the base class opens rows with."""

    def opener(self, context, settings):
        return lambda held: self.open_rows(context)


def fail(operator, caplog, capfd):
    """Return what the operator raised, and all that was shown."""
    with caplog.at_level(logging.DEBUG), pytest.raises(Exception) as raised:
        operator.execute(context())
    shown = "".join(traceback.format_exception(raised.value)) + repr(raised.value) + caplog.text
    return raised.value, shown + "".join(capfd.readouterr())


@pytest.mark.parametrize("kind", [People, Opened])
@pytest.mark.parametrize(("fails_at", "row"), [(0, "1"), (1, "1"), (1_235, "1,235")])
@pytest.mark.parametrize(
    ("error", "raised"),
    [(DriverError(f"bad row: {PHONE}"), RetryLaterError), (ValueError(f"no phone: {PHONE}"), AirflowFailException)],
)
def test_what_a_source_raises_names_its_type_and_place_and_shows_no_value(
    error, raised, fails_at, row, kind, regal, regal_ledger, caplog, capfd
):
    failed, shown = fail(kind(error=error, fails_at=fails_at), caplog, capfd)
    assert type(failed) is raised
    assert str(failed).startswith(f"The source failed at row {row} ({type(error).__name__} at test_bulk.py line ")
    assert "Nothing was sent" in str(failed)
    assert PHONE not in shown
    assert PHONE.encode() not in everything(regal_ledger)
    assert regal.stats()["requests"] == 0


@pytest.mark.parametrize("fails_at", [0, 1, 1_235])
def test_the_retry_reads_all_of_it_again_and_sends_each_row_once(fails_at, regal, regal_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(rate_limit=5_000))
    with pytest.raises(RetryLaterError):
        People(error=DriverError(PHONE), fails_at=fails_at).execute(context())
    report = People().execute(context(try_number=2, max_tries=1))
    assert (report["read"], report["acknowledged"]) == (PEOPLE, PEOPLE)
    assert regal.stats()["duplicates"] == 0
    assert len(deliveries(regal_ledger)) == 1


@pytest.mark.parametrize("error", [AirflowSkipException("no lessons today"), AirflowFailException("enough")])
def test_what_airflow_acts_on_is_raised_as_it_is_without_its_cause(error, regal, caplog, capfd):
    failed, shown = fail(People(error=error, fails_at=3), caplog, capfd)
    assert failed is error
    assert PHONE not in shown


@pytest.mark.parametrize("returned", [None, 5])
def test_a_source_that_returns_no_rows_is_an_error_that_says_so(returned, regal):
    class Nothing(People):
        def open_rows(self, context):
            return returned

    with pytest.raises(AirflowFailException, match=f"must return rows, not {type(returned).__name__}. Nothing was"):
        Nothing().execute(context())


def test_a_row_knows_its_place_and_what_is_no_row_is_a_dead_letter(regal, regal_ledger):
    class Messages(People):
        def open_rows(self, context):
            yield row_of({"user_id": "anne"}, "lessons offset 17")
            yield bad_row("the message", "is not JSON", "lessons offset 18", {"message": "{"})
            yield {"user_id": "ines"}

    report = Messages(max_rejected=1).execute(context())
    assert (report["acknowledged"], report["rejected"]) == (2, 1)
    (letter,) = dead_letters(regal_ledger)
    assert (letter["place"], letter["message"]) == ("lessons offset 18", "the message: is not JSON")


def test_rows_are_read_before_the_first_is_sent_and_not_again_once_they_are_kept(regal, regal_ledger):
    read = []

    class Counted(People):
        def open_rows(self, context):
            for number in range(5):
                read.append(regal.stats()["requests"])
                yield {"user_id": f"u{number}"}

    regal.set_faults([{"on": {"from": 3}, "do": {"status": 503, "retry_after": 900}}])
    with pytest.raises(RetryLaterError):
        Counted(max_connections=1, outage_patience=0.1).execute(context())
    assert read == [0] * 5
    regal.set_faults([])
    assert Counted().execute(context(try_number=2, max_tries=1))["acknowledged"] == 5
    assert len(read) == 5


def test_another_source_in_the_retry_is_noticed(regal, regal_ledger):
    regal.set_faults([{"on": {"from": 3}, "do": {"status": 503, "retry_after": 900}}])
    with pytest.raises(RetryLaterError):
        People(limit=5, max_connections=1, outage_patience=0.1).execute(context())
    with pytest.raises(AirflowFailException, match="restart"):
        People(limit=5, table="others").execute(context(try_number=2, max_tries=1))
