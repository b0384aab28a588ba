"""Every operator in every common form: plain, mapped, with the output of another task, and through an outage.

``scripts/installed.py`` copies this file into the DAGs folder of an Airflow that has the package installed, and
compares what arrives with ``EXPECTED``. It imports what a user's DAG file would import.
"""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow import DAG

try:
    from airflow.sdk import task
except ImportError:  # Airflow 2.11
    from airflow.decorators import task

from airflow_provider_regal.notifications.regal import RegalNotifier
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.operators.page import RegalPageOperator
from airflow_provider_regal.operators.plan import RegalSendPlanOperator
from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.operators.screen import RegalScreenOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

HERE = Path(os.environ["AIRFLOW_HOME"])
PEOPLE = "SELECT 'sql-' || :who AS user_id, 'basic' AS plan"
ROWS_SQL = {"sql_conn_id": "people", "call": "track"}

#: How many events of each name arrive. Contacts have no name; ``CONTACTS`` counts them.
EXPECTED = {
    "Track": 1,
    "Track mapped": 2,
    "Track of XCom": 1,
    "Page": 1,
    "Page mapped": 2,
    "Screen": 1,
    "Screen mapped": 2,
    "SQL": 1,
    "SQL mapped": 2,
    "SQL of XCom": 1,
    "File": 2,
    "File mapped": 3,
    "File of XCom": 2,
    "Rows": 2,
    "Rows mapped": 3,
    "Rows of XCom": 2,
    "Decorator": 2,
    "Decorator mapped": 3,
    "Decorator of XCom": 1,
    "Plan": 1,
    "Plan mapped": 2,
    "Fixed": 1,
    "Fixed mapped": 2,
    "Outage": 20,
    "Notified": 1,
}
CONTACTS = {"identified": 1, "identified-mapped-0": 1, "identified-mapped-1": 1, "identified-xcom": 1}
#: phone -> whether it is subscribed to texts at the end
CONSENTS = {
    "+12125550101": True,
    "+12125550102": False,
    "+12125550103": True,
    "+12125550104": True,
    "+12125550105": True,
}


def consent(phone: str, *, subscribed: bool = True) -> dict[str, Any]:
    """Return the row of one decision about texts."""
    return {
        "phone": phone,
        "channel": "sms",
        "subscribed": subscribed,
        "timestamp": "2026-01-01T12:00:00Z",
        "ip": "198.51.100.54",
        "text": "I agree to receive texts.",
    }


def with_user(row: dict[str, Any]) -> dict[str, Any]:
    """Fix a dead letter: name the person."""
    return {**row, "user_id": "fixed"}


with DAG(
    "every_operator",
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
) as dag:

    @task
    def who() -> str:
        """Return a user id."""
        return "xcom"

    @task
    def name_of(kind: str) -> str:
        """Return a value for a templated field."""
        return f"{HERE}/people.csv" if kind == "file" else f"identified-{kind}"

    @task
    def some(count: int = 2) -> list[dict[str, str]]:
        """Return rows."""
        return [{"user_id": f"xcom-{number}"} for number in range(count)]

    @task
    def consents() -> list[dict[str, Any]]:
        """Return decisions."""
        return [consent("+12125550105")]

    # One event: plain, mapped, with XCom.
    RegalIdentifyOperator(task_id="identify", user_id="identified", traits={"plan": "{{ dag.dag_id }}"})
    RegalIdentifyOperator.partial(task_id="identify_mapped", traits={"plan": "basic"}).expand(
        user_id=["identified-mapped-0", "identified-mapped-1"]
    )
    RegalIdentifyOperator(task_id="identify_xcom", user_id=name_of("xcom"), traits={"plan": "basic"})
    RegalTrackOperator(task_id="track", event="Track", user_id="anne", properties={"dag": "{{ dag.dag_id }}"})
    RegalTrackOperator.partial(task_id="track_mapped", event="Track mapped").expand(user_id=["m0", "m1"])
    RegalTrackOperator(task_id="track_xcom", event="Track of XCom", user_id=who())
    RegalPageOperator(task_id="page", name="Page", user_id="anne")
    RegalPageOperator.partial(task_id="page_mapped", name="Page mapped").expand(user_id=["m0", "m1"])
    RegalScreenOperator(task_id="screen", name="Screen", user_id="anne")
    RegalScreenOperator.partial(task_id="screen_mapped", name="Screen mapped").expand(user_id=["m0", "m1"])

    # Many rows: plain, mapped, with XCom.
    SqlToRegalOperator(task_id="sql", sql=PEOPLE, parameters={"who": "a"}, event="SQL", **ROWS_SQL)
    SqlToRegalOperator.partial(task_id="sql_mapped", sql=PEOPLE, event="SQL mapped", **ROWS_SQL).expand(
        parameters=[{"who": "b"}, {"who": "c"}]
    )
    SqlToRegalOperator(task_id="sql_xcom", sql=PEOPLE, parameters={"who": who()}, event="SQL of XCom", **ROWS_SQL)
    FileToRegalOperator(task_id="file", path=f"{HERE}/people.jsonl", call="track", event="File")
    FileToRegalOperator.partial(task_id="file_mapped", format="csv", call="track", event="File mapped").expand(
        path=[f"{HERE}/people.csv", f"{HERE}/more.csv"]
    )
    FileToRegalOperator(task_id="file_xcom", path=name_of("file"), format="csv", call="track", event="File of XCom")
    RegalRowsOperator(task_id="rows", call="track", event="Rows", rows=[{"user_id": "r0"}, {"user_id": "r1"}])
    RegalRowsOperator.partial(task_id="rows_mapped", call="track", event="Rows mapped").expand(
        rows=[[{"user_id": "r2"}], [{"user_id": "r3"}, {"user_id": "r4"}]]
    )
    RegalRowsOperator(task_id="rows_xcom", call="track", event="Rows of XCom", rows=some())
    (
        RegalOptInSyncOperator(
            task_id="opt_ins",
            rows=[consent("+12125550101"), consent("+12125550102", subscribed=False)],
            initial="send",
        )
        >> RegalOptInSyncOperator.partial(task_id="opt_ins_mapped", initial="send", max_active_tis_per_dag=1).expand(
            rows=[[consent("+12125550103")], [consent("+12125550104")]]
        )
        >> RegalOptInSyncOperator(task_id="opt_ins_xcom", rows=consents(), initial="send")
    )

    @task.regal(call="track", event="Decorator")
    def decorated(count: int, ti: Any = None) -> Any:
        """Yield rows, using Airflow's context."""
        for number in range(count):
            yield {"user_id": f"{ti.task_id}-{number}"}

    decorated(2)
    decorated.override(task_id="decorated_mapped", event="Decorator mapped").expand(count=[1, 2])

    @task.regal(call="track", event="Decorator of XCom")
    def decorated_xcom(person: str) -> dict[str, str]:
        """Return one row."""
        return {"user_id": person}

    decorated_xcom(who())

    # Plan, then send what was planned.
    plan = SqlToRegalOperator(task_id="plan", sql=PEOPLE, parameters={"who": "p"}, event="Plan", plan=True, **ROWS_SQL)
    RegalSendPlanOperator(task_id="send_plan", plan=plan.output)
    plans = SqlToRegalOperator.partial(task_id="plans", sql=PEOPLE, event="Plan mapped", plan=True, **ROWS_SQL).expand(
        parameters=[{"who": "q"}, {"who": "r"}]
    )
    RegalSendPlanOperator.partial(task_id="send_plans").expand(plan=plans.output)

    # Rows without a person are dead letters, which are fixed and sent.
    for letters, event, redeliver in (
        ("letters", "Fixed", RegalRedeliverOperator(task_id="redeliver", from_task="letters", fix=with_user)),
        (
            "more_letters",
            "Fixed mapped",
            RegalRedeliverOperator.partial(task_id="redeliver_mapped", fix=with_user).expand(
                from_task=["more_letters_0", "more_letters_1"]
            ),
        ),
    ):
        for task_id in [letters] if letters == "letters" else [f"{letters}_{number}" for number in range(2)]:
            (
                RegalRowsOperator(
                    task_id=task_id, call="track", event=event, rows=[{"reason": "no person"}], max_rejected=1
                )
                >> redeliver
            )

    # Regal is down while the first try runs; the second one sends what is left.
    @task
    def stop_regal() -> None:
        """Ask ``scripts/installed.py`` to stop the local Regal."""
        (HERE / "stop").touch()
        ends = time.monotonic() + 60
        while (HERE / "stop").exists():
            if time.monotonic() > ends:
                raise TimeoutError("the local Regal was not stopped")
            time.sleep(0.05)

    outage = RegalRowsOperator(
        task_id="outage",
        call="track",
        event="Outage",
        rows=[{"user_id": f"o{number}"} for number in range(20)],
        outage_patience=1,
        retries=3,
        retry_delay=timedelta(seconds=2),
        on_success_callback=RegalNotifier(event="Notified", user_id="on-call"),
    )
    stop = stop_regal()
    for leaf in [one for one in dag.tasks if not one.downstream_list and one.task_id not in ("stop_regal", "outage")]:
        leaf >> stop
    stop >> outage
