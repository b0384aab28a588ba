"""BigQuery's rows through Airflow's Google provider, from a substitute for its API."""

from __future__ import annotations

import json
import threading
from datetime import UTC, date, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_provider_regal.operators._query import open_query

pytest.importorskip("airflow.providers.google")
pytestmark = [pytest.mark.services, pytest.mark.warehouses]

MOMENT = datetime(2026, 3, 2, 14, 5, 9, tzinfo=UTC)
MICROSECONDS = str(int(MOMENT.timestamp() * 1_000_000))
#: Name, type, mode, as the API writes the value, as the row has it.
COLUMNS = [
    ("user_id", "INTEGER", "NULLABLE", "42", 42),
    ("at", "TIMESTAMP", "NULLABLE", MICROSECONDS, MOMENT),
    ("price", "NUMERIC", "NULLABLE", "19.90", Decimal("19.90")),
    ("day", "DATE", "NULLABLE", "2026-03-02", date(2026, 3, 2)),
    ("tags", "STRING", "REPEATED", [{"v": "a"}, {"v": "b"}], ["a", "b"]),
    ("sizes", "INTEGER", "REPEATED", [{"v": "1"}, {"v": "2"}], [1, 2]),
    ("prefs", "JSON", "NULLABLE", '{"k": [1]}', {"k": [1]}),
    ("last", "RECORD", "NULLABLE", {"f": [{"v": MICROSECONDS}]}, {"seen": MOMENT}),
]


class Api(BaseHTTPRequestHandler):
    """Answers every query with one row, as the API does."""

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        fields = [{"name": name, "type": kind, "mode": mode} for name, kind, mode, _, _ in COLUMNS]
        fields[-1]["fields"] = [{"name": "seen", "type": "TIMESTAMP", "mode": "NULLABLE"}]
        answer = json.dumps(
            {
                "kind": "bigquery#queryResponse",
                "schema": {"fields": fields},
                "jobReference": {"projectId": "p", "jobId": "j", "location": "US"},
                "jobComplete": True,
                "totalRows": "1",
                "rows": [{"f": [{"v": written} for _, _, _, written, _ in COLUMNS]}],
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        """Print nothing."""


@pytest.mark.parametrize("conn_type", ["google_cloud_platform", "gcpbigquery"])
def test_rows_of_bigquery_have_their_types(conn_type, monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("BIGQUERY_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    extra = {"project": "p", "is_anonymous": True}
    monkeypatch.setenv("AIRFLOW_CONN_BQ", json.dumps({"conn_type": conn_type, "extra": extra}))
    try:
        (row,) = open_query("bq", "SELECT * FROM d.t")
    finally:
        server.shutdown()
        server.server_close()
    assert row == {name: read for name, _, _, _, read in COLUMNS}
