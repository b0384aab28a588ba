"""A task of 600 rows that sends 60 per second, and what must hold in the end, whatever interrupted it."""

from __future__ import annotations

from collections.abc import Callable

from tests.airflow_settings.ledger import last_delivery
from tests.running_airflow import Airflow, Run, wait_until

ROWS = 600
RESERVED = 32  #: rows reserved ahead at most, at a rate below 128/s


def wait_until_it_sends(airflow: Airflow, dag: str) -> None:
    """Wait until a task has sent some of its rows."""
    wait_until(lambda: airflow.requests(dag) > 60, 90)


def assert_all_sent_once(
    airflow: Airflow, run: Run, record_property: Callable[[str, object], None], *, unknown: int
) -> None:
    """Check that every row is acknowledged or unknown, none arrived twice, and what was acknowledged did arrive."""
    line, arrived = last_delivery(airflow, run.dag), airflow.arrivals(run.dag)
    record_property("tries", run.task["try_number"])
    record_property("unknown", line["unknown"])
    assert line["state"] == "finished"
    assert line["acknowledged"] + line["unknown"] == line["read_rows"] == ROWS
    assert line["unknown"] <= unknown
    assert set(arrived.values()) == {1}
    assert line["acknowledged"] <= len(arrived) <= ROWS
