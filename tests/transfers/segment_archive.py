"""A local Segment: accepts what its client libraries send, and archives it like Segment in a bucket.

One gzip file per batch, one call per line, in a folder for the day of receipt; unordered, and duplicates are kept.
"""

from __future__ import annotations

import gzip
import json
import threading
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from uuid import uuid4


class SegmentArchive:
    """Runs during the ``with`` block.

    :param folder: where the archive goes.
    :param failures: this many batches are archived but answered with 500, as if the answer had been lost.
    """

    def __init__(self, folder: Path, *, failures: int = 0) -> None:
        self.folder = folder
        self.batches: list[list[dict]] = []
        self._failures = failures
        self._lock = threading.Lock()
        archive = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                self.send_response(200 if archive.take(json.loads(body)) else 500)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *args):
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def take(self, body: dict) -> bool:
        """Archive a batch; return whether to answer that it succeeded."""
        received = datetime.now(UTC)
        sent = datetime.fromisoformat(body["sentAt"])
        lines = [self._archived(message, body["writeKey"], sent, received) for message in body["batch"]]
        with self._lock:
            self.batches.append(body["batch"])
            self._failures -= 1
            failed = self._failures >= 0
        self.write(lines, received)
        return not failed

    def write(self, lines: list[dict], received: datetime) -> Path:
        """Write a file like Segment: the order of file names means nothing."""
        day = int(received.replace(hour=0, minute=0, second=0, microsecond=0).timestamp() * 1000)
        path = self.folder / "segment-logs" / "source-1" / str(day) / f"{uuid4().hex}.gz"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.compress("".join(json.dumps(line) + "\n" for line in lines).encode()))
        return path

    def _archived(self, message: dict, write_key: str, sent: datetime, received: datetime) -> dict:
        original = datetime.fromisoformat(message["timestamp"])
        times = {
            "originalTimestamp": original,
            "sentAt": sent,
            "receivedAt": received,
            "timestamp": received - (sent - original),
        }
        written = {name: time.isoformat(timespec="milliseconds") for name, time in times.items()}
        return {**message, **written, "writeKey": write_key, "projectId": "project-1", "version": 2}

    def __enter__(self) -> SegmentArchive:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
