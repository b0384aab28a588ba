"""Whole DAGs in a real Airflow whose run folders, and files, are on S3: retries, clears of rows, redelivery."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG

from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from tests.services.s3 import BUCKET

pytestmark = pytest.mark.services
PEOPLE = 50


def a_dag(name, *, retries=0):
    return DAG(
        dag_id=name,
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": retries, "retry_delay": timedelta(0)},
    )


@pytest.fixture
def files(s3, monkeypatch):
    """Write the rows into the bucket, as two files."""
    for number in range(2):
        rows = range(number * PEOPLE // 2, (number + 1) * PEOPLE // 2)
        lines = "".join(json.dumps({"user_id": f"u{row}", "amount": row}) + "\n" for row in rows)
        s3.direct.put_object(Bucket=BUCKET, Key=f"source/part-{number}.jsonl", Body=lines.encode())
    return f"s3://bucket@{BUCKET}/source/*.jsonl"


def arrivals(regal):
    return Counter(event["body"]["userId"] for event in regal.events() if event["stored"])


def report_of(run, task_id):
    (ti,) = [ti for ti in run.get_task_instances() if ti.task_id == task_id]
    return ti.xcom_pull(task_ids=task_id, key="regal_report")


def test_an_outage_is_resumed_by_airflows_retry_from_the_bucket(run_dag, regal, files, s3):
    regal.set_faults([{"on": {"from": 21, "to": 23}, "do": {"status": 503, "retry_after": 90}}])
    with a_dag("s3_resumed", retries=6) as dag:
        FileToRegalOperator(
            task_id="events", path=files, call="track", event="Plan Seen", outage_patience=30, max_connections=8
        )

    run = run_dag(dag)

    assert str(run.state) == "success"
    report = report_of(run, "events")
    assert (report["read"], report["acknowledged"]) == (PEOPLE, PEOPLE)
    assert report["run_folder"].startswith(f"s3://bucket@{BUCKET}/prefix/s3_resumed/")
    assert arrivals(regal) == Counter({f"u{row}": 1 for row in range(PEOPLE)})
    tries = {
        json.loads(body.split(b"\n", 1)[0])["rank"]["number"]
        for _, method, target, body in s3.requests
        if method == "PUT" and "/log/" in target and b'"kind": "take"' in body
    }
    assert len(tries) > 1, "a try of its own each time"


def test_what_was_refused_is_sent_again_by_a_task_of_the_same_dag(run_dag, regal, files):
    regal.set_faults([{"on": {"from": 1, "to": PEOPLE}, "do": {"status": 400}}])
    with a_dag("s3_again") as dag:
        first = FileToRegalOperator(task_id="events", path=files, call="track", event="Plan Seen", max_rejected=1.0)
        first >> RegalRedeliverOperator(task_id="again", path="s3_again/{{ run_id }}/events")

    run = run_dag(dag)

    assert str(run.state) == "success"
    assert report_of(run, "events")["rejected"] == PEOPLE
    assert report_of(run, "again")["acknowledged"] == PEOPLE
    assert arrivals(regal) == Counter({f"u{row}": 1 for row in range(PEOPLE)})
