"""The page about reports: its view can be made, its queries run and find what deliveries have left."""

from __future__ import annotations

import re
from contextlib import suppress

from sqlalchemy import create_engine, inspect, text

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.errors import TooManyFailedRowsError
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.admin.write_back import _tables
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from tests.databases import EVERY, on
from tests.docs.blocks import PROJECT
from tests.operators.ways import context

PAGE = (PROJECT / "docs" / "reporting.md").read_text()
VIEW, *QUERIES = re.findall(r"^```sql\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def run_queries(engine, queries):
    with engine.connect() as connection:
        return [connection.execute(text(query)).fetchall() for query in queries]


@on(EVERY)
def test_the_view_and_its_queries_run_on_every_database(database_url):
    engine = create_engine(database_url)
    Database(engine)
    with engine.begin() as connection:
        connection.execute(text(VIEW))
    assert run_queries(engine, QUERIES) == [[]] * len(QUERIES)
    engine.dispose()


def test_the_queries_find_what_deliveries_have_left(regal, regal_ledger):
    no_evidence = {"channel": "sms", "subscribed": True, "timestamp": None, "source": "checkout"}
    rows = [{"user_id": "anne", "phone": "+12125550100"}, {"user_id": "ines", "phone": "12"}]
    with suppress(TooManyFailedRowsError):
        RegalHook().deliver(rows, call="track", event="Lesson Booked")
    RegalHook().identify(phone="+12125550100", opt_in=[no_evidence])
    engine = create_engine(f"sqlite:///{regal_ledger}")
    with engine.begin() as connection:
        connection.execute(text(VIEW))
        (today,) = connection.execute(text("SELECT max(day) FROM outcomes_view")).scalars()
    queries = [query.replace("2026-11-28", today).replace("2026-11-22", today) for query in QUERIES]
    not_sent, rate, reasons, withheld, nothing = run_queries(engine, queries)
    engine.dispose()
    assert [(row.user_id, row.status, row.reason) for row in not_sent] == [("ines", "rejected", "invalid")]
    assert rate[0].acknowledged >= 1
    assert [(row.field, row.row_count) for row in reasons] == [("phone", 1)]
    assert [(row.form, row.channel, row.opt_ins) for row in withheld] == [("checkout", "sms", 1)]
    assert [(row.user_id, row.failed) for row in nothing] == [("ines", 1)]


def test_a_row_of_an_hourly_sync_counts_once_a_day_and_not_once_it_is_corrected(regal, regal_ledger, tmp_path):
    table = tmp_path / "consents.csv"
    sync = {"task_id": "sync", "path": table, "format": "csv", "require_ip": False, "initial": "send"}

    def run(number, *lines):
        table.write_text("\n".join(["phone,channel,subscribed,timestamp", *lines]))
        with suppress(AirflowFailException):
            RegalOptInSyncOperator(**sync).execute(context(run_id=f"run-{number}"))

    phones = ("212-555-0101", "12", "212-555-0102")
    right, wrong, corrected = (f"{phone},sms,1,2026-01-02T03:04:05Z" for phone in phones)
    for number in range(3):
        run(number, right, "212-555-0103,sms,maybe,", wrong)
    run(3, right, "212-555-0103,sms,maybe,", corrected)

    engine = create_engine(f"sqlite:///{regal_ledger}")
    with engine.begin() as connection:
        connection.execute(text(VIEW))
        (today,) = connection.execute(text("SELECT max(day) FROM outcomes_view")).scalars()
    queries = [query.replace("2026-11-28", today).replace("2026-11-22", today) for query in QUERIES]
    not_sent, rate, reasons, *_ = run_queries(engine, queries)
    engine.dispose()
    assert [(row.phone, row.place) for row in not_sent] == [("+12125550103", "consents.csv line 3")]
    assert [(row.acknowledged, row.row_count) for row in rate] == [(2, 3)]
    assert [(row.field, row.row_count) for row in reasons] == [("subscribed", 1)]


def test_runs_over_other_rows_or_with_rows_left_do_not_supersede_others(regal, regal_ledger, tmp_path):
    for hour in ("10", "11"):
        (tmp_path / f"{hour}.csv").write_text(f"user_id,phone\nok-{hour},212-555-01{hour}\nwrong-{hour},12\n")
        path = tmp_path / f"{hour}.csv"
        with suppress(AirflowFailException):
            FileToRegalOperator(task_id="t", path=path, format="csv", call="identify").execute(context(run_id=hour))
        with suppress(AirflowFailException):
            rows = [{"user_id": "event", "phone": "12"}, {"user_id": f"ok-{hour}"}]
            RegalRowsOperator(task_id="t", rows=rows, call="track", event="Lesson Booked").execute(
                context(run_id=f"event-{hour}")
            )
    guarded = FileToRegalOperator(task_id="t", path=path, format="csv", call="identify", min_rows=3)
    with suppress(AirflowFailException):
        guarded.execute(context(run_id="guarded"))
    query = "SELECT user_id FROM outcomes_view WHERE status = 'rejected' AND superseded = 0"
    engine = create_engine(f"sqlite:///{regal_ledger}")
    with engine.begin() as connection:
        connection.execute(text(VIEW))
        left = connection.execute(text(query))
        assert sorted(left.scalars()) == ["event", "event", "wrong-10", "wrong-11"]
    engine.dispose()


def test_the_copied_table_has_the_columns_of_the_view(tmp_path):
    engine = create_engine(f"sqlite:///{tmp_path}/ledger.db")
    Database(engine)
    with engine.begin() as connection:
        connection.execute(text(VIEW))
    of_view = {column["name"] for column in inspect(engine).get_columns("outcomes_view")}
    engine.dispose()
    lines, _ = _tables("regal.outcomes")
    assert {column.name for column in lines.columns} == of_view - {"day", "superseded"}
