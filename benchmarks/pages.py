"""Response times of the pages in Airflow's UI with a large ledger in PostgreSQL: 5,000 deliveries, 5 million outcomes.

``python -m benchmarks.pages [--deliveries 5000] [--outcomes 5000000] [--rounds 15]``

The ledger is filled in its own database, which is dropped afterwards. One delivery has a fifth of all outcomes, of
which 20,000 rows were rejected; 50 DAGs deliver, and the user may read all of them. Each page is requested in this
process, as mounted by Airflow, by a user with a token of Airflow's simple auth manager: authentication, permissions,
queries and the template are measured; the network and the browser are not. CPU is that of this process, without
PostgreSQL's.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import uuid4

from benchmarks.running import write_results

POSTGRES: Final = os.environ.get("REGAL_TEST_POSTGRES", "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres")
_BIG_SHARE: Final = 5
_BIG_REJECTED: Final = 20_000
_SETTINGS: Final = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
    "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that is long enough for HMAC with SHA-512: more than 64 bytes",
    "AIRFLOW__API__SECRET_KEY": "another secret",
    "AIRFLOW__REGAL__LEDGER_CONN_ID": "ledger",
    "AIRFLOW__REGAL__PEOPLE_PAGE": "True",
}
# One in a hundred deliveries fails, one in fifty has unknown rows; times go back 90 days.
_FILL_DELIVERIES: Final = """
INSERT INTO regal_deliveries (id, place, incarnation, account, dag_id, run_id, task_id, map_index, call, source, epoch,
    try_number, restarted, hold_s, state, kept_rows, read_rows, acknowledged, rejected, unknown, skipped, rate, counts,
    error, started_at, ended_at)
SELECT n, md5(n::text), 0, 'acme', 'dag_' || n % 50, 'scheduled__' || n, 'task_' || n % 2, -1, 'track', '', 0, 1, 0,
    120, CASE WHEN n % 100 = 0 THEN 'failed' ELSE 'finished' END, {each}, {each},
    {each} - 3 - CASE WHEN n % 50 = 0 THEN 1 ELSE 0 END, 3, CASE WHEN n % 50 = 0 THEN 1 ELSE 0 END, 0, 100,
    '{{"requests": {each}, "seconds": 9.5, "skips": {{}}}}',
    CASE WHEN n % 100 = 0 THEN 'Of {each} rows, 3 rejected, more than max_rejected=0. Top reasons:' END,
    to_char(now() AT TIME ZONE 'UTC' - ({deliveries} - n) * interval '90 days' / {deliveries},
        'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    to_char(now() AT TIME ZONE 'UTC' - ({deliveries} - n) * interval '90 days' / {deliveries},
        'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
FROM generate_series(1, {deliveries}) AS n
"""
# Twenty tries of the largest one, one try of the others; each with the maximum number of speed points.
_FILL_TRIES: Final = """
INSERT INTO regal_tries (delivery, number, try_number, began_at, ended_at, state, acknowledged, rejected, unknown,
    began_with, pace)
SELECT d.id, n, n, d.started_at, d.ended_at, d.state, d.acknowledged, d.rejected, d.unknown, '{{}}',
    (SELECT '[' || string_agg('[' || s * 60 || '.0,' || s * 5000 || ']', ',') || ']' FROM generate_series(1, 60) AS s)
FROM regal_deliveries AS d, generate_series(1, CASE WHEN d.id = {deliveries} THEN 20 ELSE 1 END) AS n
"""
_FILL_OUTCOMES: Final = """
INSERT INTO regal_outcomes (delivery, position, account, call, event, user_id, phone, status, reason, field, message,
    attempts, first_at, last_at, payload_hash, form, payload)
SELECT d, p, 'acme', 'track', 'Lesson Booked', 'user-' || (p * 791 + d) % 900000,
    '+1212' || lpad(((p * 791 + d) % 9000000)::text, 7, '0'),
    CASE WHEN p <= {rejected} THEN 'rejected' ELSE 'acknowledged' END,
    CASE WHEN p <= {rejected} THEN 'invalid' END, CASE WHEN p <= {rejected} THEN 'phone' END,
    CASE WHEN p <= {rejected} THEN 'phone: not a valid phone number (' || p % 30 || ')' END,
    1, '{at}', '{at}', CASE WHEN p <= {rejected} THEN md5(d || ' ' || p) END,
    CASE WHEN p <= {rejected} THEN 'row' END, CASE WHEN p <= {rejected} THEN '{{"a": 1}}' END
FROM generate_series({first}, {last}) AS d, generate_series(1, {each}) AS p
"""


@contextmanager
def database() -> Iterator[str]:
    """Create a database, and drop it afterwards; yields its URL."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import make_url

    name = f"regal_pages_{uuid4().hex[:12]}"
    engine = create_engine(POSTGRES, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    try:
        yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
        engine.dispose()


def _run(connection: Any, statement: str) -> None:
    connection.exec_driver_sql(statement.replace("%", "%%"))  # the driver reads % itself


def fill(url: str, deliveries: int, outcomes: int) -> int:
    """Fill the ledger; return the id of the delivery with the most outcomes."""
    from sqlalchemy import create_engine

    from airflow_provider_regal.ledger.schema import upgrade

    big = outcomes // _BIG_SHARE
    each = (outcomes - big) // (deliveries - 1)
    at = (datetime.now(UTC) - timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S.000000Z")
    engine = create_engine(url)
    with engine.begin() as connection:
        upgrade(connection)
        connection.exec_driver_sql("INSERT INTO regal_accounts (account, identifiers) VALUES ('acme', 'plain')")
        _run(connection, _FILL_DELIVERIES.format(deliveries=deliveries, each=each))
        connection.exec_driver_sql(  # the numbers are ours
            f"UPDATE regal_deliveries SET state = 'failed', kept_rows = {big}, read_rows = {big}, "
            f"acknowledged = {big - _BIG_REJECTED}, rejected = {_BIG_REJECTED}, "
            f"error = 'Of {big} rows, {_BIG_REJECTED} rejected, more than max_rejected=0. Top reasons:' "
            f"WHERE id = {deliveries}"
        )
        _run(connection, _FILL_TRIES.format(deliveries=deliveries))
        for first, last, rows, rejected in (
            (1, deliveries - 1, each, 3),
            (deliveries, deliveries, big, _BIG_REJECTED),
        ):
            _run(connection, _FILL_OUTCOMES.format(first=first, last=last, each=rows, rejected=rejected, at=at))
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.exec_driver_sql("VACUUM ANALYZE")
    engine.dispose()
    return deliveries


def browser() -> tuple[Any, str]:
    """Return what asks for pages as an admin, and the token of a form."""
    from airflow.api_fastapi.app import create_auth_manager
    from airflow.api_fastapi.auth.managers.simple.user import SimpleAuthManagerUser
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    from airflow_provider_regal.plugin import PREFIX, Lazy
    from airflow_provider_regal.plugin.access import Viewer

    auth, user = create_auth_manager(), SimpleAuthManagerUser(username="ada", role="ADMIN")
    airflow = FastAPI()
    airflow.mount(PREFIX, Lazy())
    client = TestClient(airflow, base_url="http://airflow.test", follow_redirects=True)
    client.cookies.set("_token", auth.generate_jwt(user))
    return client, Viewer(user).token()


def pages(big: int) -> dict[str, Callable[[Any, str], Any]]:
    """Return the measured pages."""
    task = (
        f"/regal/task?dag_id=dag_{(big - 3) % 50}&run_id=scheduled__{big - 3}&task_id=task_{(big - 3) % 2}&map_index=-1"
    )
    return {
        "deliveries, 7 days": lambda client, token: client.get("/regal/"),
        "deliveries, all 90 days": lambda client, token: client.get("/regal/?days="),
        "deliveries, page 40 of all": lambda client, token: client.get("/regal/?days=&page=39"),
        "deliveries of a DAG": lambda client, token: client.get("/regal/?days=&dag=dag_7"),
        "delivery of a million rows": lambda client, token: client.get(f"/regal/deliveries/{big}"),
        "its rows from 15,000 on": lambda client, token: client.get(f"/regal/deliveries/{big}?after=15000"),
        "its acknowledged rows": lambda client, token: client.get(f"/regal/deliveries/{big}?status=acknowledged"),
        "a usual delivery": lambda client, token: client.get(f"/regal/deliveries/{big - 2}"),
        "a task instance": lambda client, token: client.get(task),
        "health": lambda client, token: client.get("/regal/health"),
        "one person": lambda client, token: client.post("/regal/people", data={"token": token, "who": "user-4711"}),
    }


def measure(big: int, rounds: int) -> Iterator[dict[str, Any]]:
    """Request each page several times."""
    client, token = browser()
    for name, ask in pages(big).items():
        took, cpu = [], []
        for _ in range(rounds + 1):
            began, cpu_began = time.perf_counter(), time.process_time()
            answer = ask(client, token)
            took.append(1_000 * (time.perf_counter() - began))
            cpu.append(1_000 * (time.process_time() - cpu_began))
            if answer.status_code != 200:
                raise SystemExit(f"{name}: {answer.status_code} {answer.text[:2000]}")
        first, *others = took
        yield {
            "page": name, "first_ms": round(first, 1), "median_ms": round(statistics.median(others), 1),
            "worst_ms": round(max(others), 1),
            "best_ms": round(min(others), 1),
            "cpu_ms": round(statistics.median(cpu[1:]), 1), "bytes": len(answer.content),
            "load": round(os.getloadavg()[0], 2),
        }  # fmt: skip


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, fill, measure, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--deliveries", type=int, default=5_000)
    parser.add_argument("--outcomes", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--keep", default="pages", help="name of the file of results")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as home, database() as url:
        os.environ.update(
            _SETTINGS, AIRFLOW_HOME=home, AIRFLOW_CONN_LEDGER=url.replace("postgresql+psycopg2", "postgres")
        )
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True)
        began = time.monotonic()
        big = fill(url, given.deliveries, given.outcomes)
        print(f"Filled in {time.monotonic() - began:.0f} s", flush=True)
        found = []
        for result in measure(big, given.rounds):
            found.append({**result, "deliveries": given.deliveries, "outcomes": given.outcomes})
            print(
                f"{result['page']:<28} median {result['median_ms']:>7.1f} ms, best {result['best_ms']:>7.1f}, worst "
                f"{result['worst_ms']:>7.1f}, first {result['first_ms']:>7.1f}; CPU {result['cpu_ms']:.1f} ms; "
                f"{result['bytes'] / 1_000:.0f} KB; load {result['load']}",
                flush=True,
            )
    print(write_results(given.keep, found))


if __name__ == "__main__":
    main()
