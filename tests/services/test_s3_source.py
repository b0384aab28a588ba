"""Files in a bucket as a source, through a real Airflow: read over Airflow's own object storage, resumed by a retry."""

from __future__ import annotations

import json
import logging
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from airflow import DAG

from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator

pytestmark = pytest.mark.services
BUCKET = "source"
PEOPLE = 50


@pytest.fixture(scope="module")
def s3_server():
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    yield "http://{}:{}".format(*server.get_host_and_port())
    server.stop()


@pytest.fixture
def files(s3_server, monkeypatch):
    """Two files of events in a bucket; returns the glob that finds them."""
    import boto3

    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing", "region_name": "us-east-1"}
    client = boto3.client("s3", endpoint_url=s3_server, **keys)
    client.create_bucket(Bucket=BUCKET)
    for number in range(2):
        rows = range(number * PEOPLE // 2, (number + 1) * PEOPLE // 2)
        lines = "".join(json.dumps({"user_id": f"u{row}", "amount": row}) + "\n" for row in rows)
        client.put_object(Bucket=BUCKET, Key=f"events/part-{number}.jsonl", Body=lines.encode())
    extra = {"endpoint_url": s3_server, "region_name": "us-east-1"}
    connection = {"conn_type": "aws", "login": "testing", "password": "testing", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_BUCKET", json.dumps(connection))
    return f"s3://bucket@{BUCKET}/events/*.jsonl"


def report_of(run, task_id):
    (ti,) = [ti for ti in run.get_task_instances() if ti.task_id == task_id]
    return ti.xcom_pull(task_ids=task_id, key="regal_report")


def test_files_of_a_bucket_are_sent_once_over_an_outage_and_a_retry(run_dag, regal, files):
    regal.set_faults(
        [
            {"on": {"from": 21, "to": 23}, "do": {"status": 503, "retry_after": 90}},
            {"on": {"requests": [30]}, "do": {"status": 400}},
        ]
    )
    with DAG(
        dag_id="from_s3",
        schedule=None,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        default_args={"retries": 6, "retry_delay": timedelta(0)},
    ) as dag:
        events = FileToRegalOperator(
            task_id="events",
            path=files,
            call="track",
            event="Plan Seen",
            outage_patience=30,
            max_connections=8,
            max_rejected=1,
        )
        again = RegalRedeliverOperator(task_id="again", from_dag="from_s3", from_task="events")
        events >> again

    run = run_dag(dag)

    assert str(run.state) == "success"
    report = report_of(run, "events")
    assert (report["read"], report["acknowledged"], report["rejected"]) == (PEOPLE, PEOPLE - 1, 1)
    assert report_of(run, "again")["acknowledged"] == 1
    arrived = Counter(event["body"]["userId"] for event in regal.events() if event["stored"])
    assert arrived == {f"u{row}": 1 for row in range(PEOPLE)}
