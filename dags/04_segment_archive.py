"""From a Segment archive to Regal, without Segment: what its libraries recorded becomes contacts, events and consent.

Put the ``segment-logs`` folder of your archive beside the DAGs folder, or point ARCHIVE at the bucket itself, such as
``s3://aws_default@my-bucket/segment-logs``.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from airflow import DAG

from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator

ARCHIVE = Path(os.environ.get("AIRFLOW_HOME", Path.home() / "airflow")) / "segment-logs"

with DAG(
    dag_id="regal_segment_archive",
    # No schedule: an archive is read when you trigger it. Old events can start journeys today.
    schedule=None,
    start_date=datetime(2026, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    # regal_sandbox leads to a local Regal (make demo). Put your own connection here to send to Regal.
    default_args={
        "regal_conn_id": "regal_sandbox",
        "retries": 3,
        "retry_delay": timedelta(seconds=5),
        "retry_exponential_backoff": True,
    },
    tags=["regal", "example", "segment"],
    doc_md=__doc__,
) as dag:
    # If the archive does not exist yet, the task succeeds and sends nothing.
    archive = FileToRegalOperator(
        task_id="archive",
        path=f"{ARCHIVE}/**/*.gz",
        format="segment",
        # Regal no longer accepts page views from Segment; include=["page", "screen"] sends them as events.
        include=[],
        # Events older than this are rejected: they would start journeys as if they had just happened.
        max_event_age=timedelta(days=7),
        # One message in twenty may be invalid; each is kept as a dead letter with its file and line.
        max_rejected=0.05,
    )
