"""The opt-in sync in a real Airflow: from SQL, files and other tasks, run after run."""

from __future__ import annotations

import csv
import json
import re
import sqlite3
from contextlib import closing

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from airflow.providers.common.compat.sdk import task

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from tests.ledger_file import consents, remembered
from tests.operators.opt_ins import a_dag, consent, phone, ran, status, sync


@pytest.fixture
def database(tmp_path, monkeypatch):
    """Make a database that the connection ``warehouse`` points at."""
    path = tmp_path / "warehouse.db"
    monkeypatch.setenv("AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(path)}))

    def fill(rows):
        columns = list(rows[0])
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute("DROP TABLE IF EXISTS consents")
            connection.execute(f"CREATE TABLE consents ({', '.join(columns)})")
            places = ", ".join("?" for _ in columns)
            connection.executemany(
                f"INSERT INTO consents VALUES ({places})", [tuple(row[name] for name in columns) for row in rows]
            )
        return path

    return fill


def order_of(regal):
    """What arrived, in this order: phone and yes or no."""
    said = []
    for event in regal.events():
        for number, point in event["body"]["traits"]["phones"].items():
            said.append((number, point["smsOptIn"]["subscribed"]))
    return said


QUERY = "SELECT * FROM consents WHERE channel = :channel ORDER BY rowid"


def test_a_query_is_sent_once_and_then_only_what_changed_opt_outs_first(run_dag, regal, database):
    options = {"sql": QUERY, "sql_conn_id": "{{ 'ware' + 'house' }}", "parameters": {"channel": "{{ 's' + 'ms' }}"}}
    database([consent(100), consent(101), consent(102, False), consent(103, False, timestamp=None)])

    first = sync(run_dag, "opt_ins_sql", initial="send", **options)

    assert first.state == "success"
    assert (first.report["read"], first.report["acknowledged"]) == (4, 4)
    assert [subscribed for _, subscribed in order_of(regal)] == [False, False, True, True]
    assert [status(regal, number) for number in (100, 102)] == ["Subscribed", "Unsubscribed"]

    again = sync(run_dag, "opt_ins_sql", **options)  # nothing changed; the opt-out still has no time

    assert (again.report["read"], again.report["skipped"], again.report["requests"]) == (4, 4, 0)

    regal.reset()
    new = [consent(102, day=9), consent(103, False, timestamp=None), consent(104, day=2)]
    database([consent(100), consent(101), consent(101, False, day=5), *new])

    then = sync(run_dag, "opt_ins_sql", **options)

    assert then.report["requests"] == 3
    assert order_of(regal) == [(phone(101), False), (phone(102), True), (phone(104), True)]
    assert regal.stats()["contract_findings"] == {}


def test_a_sql_file_is_read_and_connections_are_templated(
    run_dag, regal, regal_ledger, database, ledger, tmp_path, monkeypatch
):
    database([consent(100), consent(101)])
    (tmp_path / "consents.sql").write_text("SELECT * FROM consents WHERE phone <> '{{ params.without }}'")
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_OTHER", regal.connection())
    with a_dag("opt_ins_templates", template_searchpath=[str(tmp_path)], params={"without": phone(101)}) as dag:
        RegalOptInSyncOperator(
            task_id="opt_ins",
            sql="consents.sql",
            sql_conn_id="warehouse",
            regal_conn_id="{{ 'regal_' + 'other' }}",
            ledger_conn_id="{{ 'led' + 'ger' }}",
            initial="send",
        )

    there = ran(run_dag(dag), "opt_ins")

    assert (there.state, there.report["read"]) == ("success", 1)
    (known,) = consents(ledger).values()
    assert (known["account"], known["identifier"]) == ("regal_other", phone(100))
    assert consents(regal_ledger) == {}


@pytest.mark.parametrize("format", ["jsonl", "csv", "parquet"])
def test_a_file_is_synced_and_its_path_is_templated(run_dag, regal, tmp_path, format):
    path = tmp_path / f"consents.{format}"
    rows = [consent(100), consent(101, "false"), consent(102, channel="voice")]
    with path.open("w") as file:
        if format == "parquet":
            typed = [{**row, "subscribed": row["subscribed"] is True} for row in rows]
            pq.write_table(pa.Table.from_pylist(typed), path)
        elif format == "csv":
            table = csv.DictWriter(file, rows[0].keys())
            table.writeheader()
            table.writerows(rows)
        else:
            file.writelines(json.dumps(row) + "\n" for row in rows)

    options = {"path": f"{tmp_path}/{{{{ 'consents' }}}}.{format}", "format": format}
    first = sync(run_dag, f"opt_ins_{format}", initial="send", **options)
    again = sync(run_dag, f"opt_ins_{format}", **options)

    assert (first.state, first.report["acknowledged"]) == ("success", 3)
    assert [status(regal, 100), status(regal, 101), status(regal, 102, "voice")] == [
        "Subscribed", "Unsubscribed", "Subscribed",
    ]  # fmt: skip
    assert (again.report["requests"], again.report["skips"]) == (0, {"unchanged": 3})


def test_the_output_of_a_task_is_waited_for_and_synced(run_dag, regal):
    with a_dag("opt_ins_upstream") as dag:

        @task
        def agreed():
            return [consent(100), consent(101, False)]

        opt_ins = RegalOptInSyncOperator(task_id="opt_ins", rows=agreed(), initial="send")
    assert opt_ins.upstream_task_ids == {"agreed"}

    there = ran(run_dag(dag), "opt_ins")

    assert (there.state, there.report["acknowledged"]) == ("success", 2)
    assert status(regal, 101) == "Unsubscribed"


def test_a_first_run_that_is_not_told_what_to_do_fails_at_once_and_says_so(run_dag, regal, capfd, caplog):
    there = sync(run_dag, "opt_ins_first", retries=2, rows=[consent(100)])

    assert (there.state, there.tries) == ("failed", 1)
    assert regal.stats()["requests"] == 0
    logged = "".join(capfd.readouterr()) + caplog.text
    assert "initial='send' sends all of the source, initial='baseline' only records it" in logged


DIRT = [
    consent(100, day=9),
    consent(100),
    consent(101, False, day=9),
    consent(102, ip=None),
    consent(103, timestamp=None),
    consent(104, day=3),
    consent(105, False, timestamp=None),
]


def test_a_dry_run_shows_the_plan_and_sends_and_remembers_nothing(run_dag, regal, regal_ledger, capfd, caplog):
    known = sync(run_dag, "opt_ins_dry", rows=[consent(101), consent(104), consent(106)], initial="send")
    assert known.report["acknowledged"] == 3
    before = remembered(regal_ledger)
    regal.reset()
    capfd.readouterr()
    caplog.clear()

    there = sync(run_dag, "opt_ins_dry", rows=DIRT, dry_run=True)

    assert there.state == "success"
    assert regal.stats()["requests"] == 0
    assert remembered(regal_ledger) == before
    assert there.report["status"] == "dry_run"
    assert there.report["plan"] == {
        "sent": 4, "unchanged": 0, "older": 1, "no_evidence": 2, "unreadable": 0, "opt_outs": 2, "opt_ins": 2,
        "suppressed": 0, "removed": 1, "recorded": 0, "no_decision": 0,
    }  # fmt: skip
    assert sum(there.report["reasons"].values()) == 2
    assert any("no ip" in reason for reason in there.report["reasons"])
    logged = "".join(capfd.readouterr()) + caplog.text
    table = [line.split() for line in logged.splitlines()]
    for line in (["sent", "4"], ["unchanged", "0"], ["older", "1"], ["no", "evidence"], ["unreadable", "0"]):
        assert any(words[:2] == line for words in table), line
    assert "1 x ip: no ip" in logged
    assert "1 x timestamp: no timestamp" in logged
    assert ": identify, sms opt-out of 2026-01-09 {" in logged
    assert ": identify, sms opt-in of 2026-01-03 {" in logged
    assert "4 of 7 rows would be sent" in logged
    assert re.search(r"212\D{0,2}555", logged) is None, "and no run id or time that happens to hold 555 is one"

    after = sync(run_dag, "opt_ins_dry", rows=DIRT, max_rejected=2)  # and does what was planned

    assert (after.report["plan"], after.report["requests"]) == (there.report["plan"], 4)


def test_the_report_with_its_plan_is_in_xcom_and_small(run_dag, regal):
    rows = [consent(100 + n, channel=f"fax{'é' * 40}{n}") for n in range(30)]
    there = sync(run_dag, "opt_ins_small", rows=[*rows, consent(150)], initial="send", max_rejected=30)

    assert there.state == "success"
    assert there.report["plan"]["unreadable"] == 30
    assert there.report["plan"]["sent"] == 1
    assert len(json.dumps(there.report).encode()) < 2_048
    (ti,) = there.run.get_task_instances()
    assert ti.xcom_pull(task_ids="opt_ins", key="return_value") == there.report


def test_no_personal_data_reaches_airflow(run_dag, regal, database, everything_stored, capfd, caplog):
    secret = {"ip": "198.51.100.77", "text": "Yes-by-Petronella", "source": "form-Petronella"}
    path = database(
        [
            consent(177, user_id="petronella-1", email="petronella@example.com", **secret),
            consent(178, user_id="petronella-2", email=None, **{**secret, "ip": None}),
            consent(179, "perhaps-petronella", user_id=None, email=None, **secret),
            consent(180, False, user_id=None, email="petronella@example.com", **{**secret, "channel": "email"}),
        ]
    )
    options = {"sql": "SELECT * FROM consents", "sql_conn_id": "warehouse", "max_rejected": 2, "initial": "send"}
    for dry_run in (True, False):
        there = sync(run_dag, "opt_ins_private", **options, dry_run=dry_run)
        # A value that is neither yes nor no fails the task regardless of max_rejected.
        assert (there.state, there.report["rejected"]) == ("success" if dry_run else "failed", 2)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE consents SET subscribed = NULL, timestamp = 'Petronella'")
    failed = sync(run_dag, "opt_ins_private", **options, min_rows=50)

    logged = "".join(capfd.readouterr()) + caplog.text
    assert failed.state == "failed"
    assert "fewer than min_rows=50" in logged
    seen = everything_stored() + logged + json.dumps(there.report)
    for personal in ("petronella", "555017", "5550180", "198.51.100.77"):
        assert personal not in seen.lower(), personal


class TestALostLedger:
    """``initial="send"`` is still in the DAG, and Airflow remembers what was on record."""

    ROWS = (consent(100), consent(101, False), consent(102))

    def run(self, run_dag, name, rows=ROWS, **options):
        return sync(run_dag, name, rows=[*rows], **{"initial": "send", **options})

    def lose(self, regal_ledger):
        for file in regal_ledger.parent.glob("ledger.db*"):
            file.unlink()

    def test_it_is_noticed_whatever_initial_says(self, run_dag, regal, regal_ledger, caplog):
        assert self.run(run_dag, "lost_ledger").report["acknowledged"] == 3
        assert self.run(run_dag, "lost_ledger").report["skips"] == {"unchanged": 3}
        self.lose(regal_ledger)
        requests = regal.stats()["requests"]
        for initial in ("send", "baseline", None):
            assert self.run(run_dag, "lost_ledger", initial=initial).state == "failed"
        assert regal.stats()["requests"] == requests
        assert "The ledger has 0 consents of account 'regal_default' on record, but had 3 after" in caplog.text
        assert "run the task once with restart=True and initial='send'" in caplog.text

    def test_one_that_was_filled_a_little_since_is_noticed_as_well(self, run_dag, regal, regal_ledger):
        self.run(run_dag, "filled_ledger")
        self.lose(regal_ledger)
        assert self.run(run_dag, "another_task_fills_it", [consent(150)]).report["acknowledged"] == 1
        assert self.run(run_dag, "filled_ledger").state == "failed"

    def test_who_wants_to_start_over_says_so(self, run_dag, regal, regal_ledger):
        self.run(run_dag, "start_over")
        self.lose(regal_ledger)
        assert self.run(run_dag, "start_over").state == "failed"
        assert self.run(run_dag, "start_over", restart=True).report["acknowledged"] == 3
        assert self.run(run_dag, "start_over").report["skips"] == {"unchanged": 3}

    def test_a_dry_run_and_a_failure_do_not_make_it_forgotten(self, run_dag, regal, regal_ledger):
        self.run(run_dag, "not_forgotten")
        self.run(run_dag, "not_forgotten", dry_run=True)
        self.lose(regal_ledger)
        for _ in range(2):
            assert self.run(run_dag, "not_forgotten").state == "failed"


def test_the_first_run_asks_airflow_for_nothing_that_is_not_there_and_a_lost_ledger_is_noticed(
    run_dag, regal, regal_ledger, capfd, caplog
):
    rows = [consent(100 + n) for n in range(4)]
    first = sync(run_dag, "opt_ins_lost", rows=rows, initial="send")
    assert first.state == "success"
    assert "XCom not found" not in caplog.text + "".join(capfd.readouterr())
    with closing(sqlite3.connect(regal_ledger)) as connection, connection:
        connection.execute("DELETE FROM regal_consents WHERE identifier <> ?", (phone(100),))
    second = sync(run_dag, "opt_ins_lost", rows=rows)
    assert second.state == "failed"
    assert second.report["acknowledged"] == 0


def test_acknowledged_rows_of_a_file_have_their_line(run_dag, regal, regal_ledger, tmp_path):
    path = tmp_path / "consents.csv"
    people = [f"{phone(100 + n)},{'no' if n % 2 else 'true'},2026-03-0{n + 1}T10:00:00Z" for n in range(4)]
    path.write_text("\n".join(["phone,sms_opt_in,sms_opt_in_at", *people, ""]))
    assert sync(
        run_dag, "opt_ins_lines", path=str(path), format="csv", initial="send", require_ip=False
    ).state == "success"  # fmt: skip
    with closing(sqlite3.connect(regal_ledger)) as connection:
        places = dict(connection.execute("SELECT phone, place FROM regal_outcomes"))
        logged = dict(connection.execute("SELECT identifier, place FROM regal_consent_log"))
    assert places == logged == {phone(100 + n): f"consents.csv line {n + 2}" for n in range(4)}
