"""dlt: a pipeline from a resource that reads SQLite to ``@dlt.destination``, one event per request.

The rows are split into as many files as dlt has load workers (20), so that it sends from 20 threads, each with a
session that retries failures (``dlt.sources.helpers.requests``). It keeps the rows in its folder until they are sent,
and commits its position per batch. The phone is rewritten by hand, nothing is validated.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from benchmarks import contacts
from benchmarks.senders.work import Work

WORKERS = 20


def send(work: Work) -> int:
    """Send the rows; returns how many were acknowledged."""
    os.environ.update(
        DLT_DATA_DIR=str(work.path),
        RUNTIME__DLTHUB_TELEMETRY="false",
        RUNTIME__LOG_LEVEL="ERROR",
        LOAD__WORKERS=str(WORKERS),
        NORMALIZE__DATA_WRITER__FILE_MAX_ITEMS=str(-(-work.count // WORKERS)),
    )
    import dlt
    from dlt.sources.helpers import requests

    acknowledged: list[int] = []
    headers = {"Authorization": work.key, "Content-Type": "application/json"}

    @dlt.destination(batch_size=100, name="regal")  # type: ignore[untyped-decorator]
    def regal(items: Any, table: Any) -> None:
        for item in items:
            body = contacts.encoded(contacts.body_of(item))
            acknowledged.append(requests.post(f"{work.url}/events", data=body, headers=headers).status_code)

    name = f"contacts_{work.first}_{work.count}"
    pipeline = dlt.pipeline(name, destination=regal, pipelines_dir=str(work.path / "pipelines"), progress=None)
    read = contacts.rows(Path(work.database), work.first, work.count)
    # Without the hint, dlt would convert the text to a datetime.
    pipeline.run(read, table_name="contacts", columns={"signed_up": {"data_type": "text"}})
    return acknowledged.count(200)
