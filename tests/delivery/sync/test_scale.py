"""A million consents, one in a hundred changed: only those are sent, in memory independent of the ledger's size."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from airflow_provider_regal.testing import Sandbox

PROJECT = Path(__file__).parents[3]
_RUN = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from benchmarks.sync_unchanged import START, consents, fill
from tests.delivery.sync.syncing import run_sync
from datetime import timedelta
folder, count, url, key = Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4], sys.argv[5]
fill(folder / "ledger.db", count)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
report = run_sync(
    lambda: consents(count, changed=True), (url, key), "run", folder / "ledger.db",
    now=START + timedelta(days=300),
)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"peak_mb": peak / 1024, "sent": report.requests, "read": report.read, "skips": report.skips}))
"""


def synced(folder, count):
    folder.mkdir()
    with Sandbox() as regal:
        given = [sys.executable, "-c", _RUN, str(PROJECT), str(folder), str(count), regal.url, regal.api_key]
        ran = subprocess.run(given, capture_output=True, text=True, check=False, cwd=PROJECT)
    assert ran.returncode == 0, ran.stderr[-2_000:]
    return json.loads(ran.stdout)


@pytest.mark.long
def test_one_in_a_hundred_of_a_million_is_sent_in_memory_that_does_not_grow(tmp_path, record_property):
    few, many = synced(tmp_path / "few", 10_000), synced(tmp_path / "many", 1_000_000)
    record_property("peak of 10,000 (MB)", round(few["peak_mb"]))
    record_property("peak of 1,000,000 (MB)", round(many["peak_mb"]))
    assert (few["sent"], many["sent"]) == (100, 10_000)
    assert (many["read"], many["skips"]) == (1_000_000, {"unchanged": 990_000})
    assert many["peak_mb"] - few["peak_mb"] < 80, "the cache of the working file, and what waits to be sent"
