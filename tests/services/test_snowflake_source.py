"""Snowflake's rows through its own driver, from a substitute API: upper-case names, NUMBER as int and Decimal."""

from __future__ import annotations

import gzip
import json
import threading
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from airflow_provider_regal.operators._query import read_query

pytest.importorskip("snowflake.connector")
pytestmark = [pytest.mark.services, pytest.mark.warehouses]

MOMENT = datetime(2026, 3, 2, 14, 5, 9, tzinfo=UTC)
SECONDS = f"{MOMENT.timestamp():.9f}"
DAYS = str((date(2026, 3, 2) - date(1970, 1, 1)).days)
#: Name, type, scale, as the API writes the value, as the row has it.
COLUMNS = [
    ("USER_ID", "fixed", 0, "42", 42),
    ("PRICE", "fixed", 2, "19.90", Decimal("19.90")),
    ("SHARE", "real", None, "0.5", 0.5),
    ("SMS_OPT_IN", "boolean", None, "0", False),
    ("PLAN", "text", None, "gold", "gold"),
    ("DAY", "date", None, DAYS, date(2026, 3, 2)),
    ("SEEN_AT", "timestamp_ntz", 9, SECONDS, MOMENT.replace(tzinfo=None)),
    ("TIMESTAMP", "timestamp_tz", 9, f"{SECONDS} 1560", MOMENT.astimezone(timezone(timedelta(hours=2)))),
    ("PREFS", "variant", None, '{"k": [1]}', '{"k": [1]}'),
    ("NOTHING", "text", None, None, None),
]


class Api(BaseHTTPRequestHandler):
    """Lets anyone in, and answers every query with one row, as the API does."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path.startswith("/session/v1/login-request"):
            data = {"token": "t", "masterToken": "m", "parameters": [], "sessionId": 1, "sessionInfo": {}}
        elif self.path.startswith("/queries/v1/query-request"):
            data = {
                "parameters": [], "queryId": "01", "queryResultFormat": "json", "total": 1, "returned": 1,
                "statementTypeId": 4096, "sqlState": None,
                "rowtype": [
                    {"name": name, "type": kind, "scale": scale, "precision": 38, "length": 100, "nullable": True,
                     "byteLength": 100}
                    for name, kind, scale, _, _ in COLUMNS
                ],
                "rowset": [[written for _, _, _, written, _ in COLUMNS]],
            }  # fmt: skip
        else:
            data = {}
        answer = json.dumps({"success": True, "data": data, "code": None, "message": None}).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args):
        """Print nothing."""


@pytest.fixture
def connection(monkeypatch):
    monkeypatch.setenv("SNOWFLAKE_DISABLE_PLATFORM_DETECTION", "true")  # asks the cloud where it is running
    import snowflake.connector

    server = ThreadingHTTPServer(("127.0.0.1", 0), Api)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield snowflake.connector.connect(
        account="a", user="u", password="p", host="127.0.0.1", port=server.server_port, protocol="http",
        session_parameters={"CLIENT_TELEMETRY_ENABLED": False}, platform_detection_timeout_seconds=0,
    )  # fmt: skip
    server.shutdown()
    server.server_close()


def test_rows_of_snowflake_have_their_types(connection):
    (row,) = read_query(connection, "SELECT * FROM t")
    assert row == {name: read for name, _, _, _, read in COLUMNS}
