"""Object storage for the tests that need it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.run import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.tries import Try

PROJECT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("s3_driver.py")


@pytest.fixture(scope="session")
def s3_server():
    """Start moto's S3 in a thread of this process; gives the door before it."""
    import boto3
    from moto.server import ThreadedMotoServer

    from tests.services.s3 import Door

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    door = Door(
        *server.get_host_and_port()
    )  # one for all: Airflow keeps a file system for as long as the process lives
    door.direct = boto3.client(
        "s3",
        endpoint_url="http://{}:{}".format(*server.get_host_and_port()),
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    yield door
    door.close()
    server.stop()


@pytest.fixture
def s3(s3_server, monkeypatch, tmp_path):
    """Make an empty bucket, and point ``[regal] storage_path`` at it; gives the door before it."""
    from tests.services.s3 import BUCKET, CONN_ID, connection_to

    door, direct = s3_server, s3_server.direct
    door.open()
    direct.create_bucket(Bucket=BUCKET)
    monkeypatch.setenv(f"AIRFLOW_CONN_{CONN_ID.upper()}", connection_to(door.url))
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", f"s3://{CONN_ID}@{BUCKET}/prefix")
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield door
    door.open()
    empty(direct, BUCKET)


def empty(direct, bucket):
    """Remove a bucket with all that is in it."""
    for page in direct.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            direct.delete_object(Bucket=bucket, Key=entry["Key"])
    direct.delete_bucket(Bucket=bucket)


class InBucket:
    """Runs tries of one delivery whose run folder is in the bucket."""

    def __init__(self, door, regal, tmp_path):
        self.door, self.regal, self.tmp_path = door, regal, tmp_path
        self.folder = ("dag", "run", "task", "-1")

    def bucket(self, patience_s=20.0):
        from airflow_provider_regal.hooks._bucket import open_bucket

        return open_bucket(patience_s=patience_s).below(*self.folder)

    def delivery(
        self, rows, *, number=1, epoch=0, call="track", rate=1_000, timeout_s=2.0, patience_s=20.0, clock=None,
        **options,
    ):  # fmt: skip
        if call == "track":
            options.setdefault("event", "Lesson Booked")
        return Delivery(
            folder=self.bucket(patience_s),
            rows=rows if callable(rows) else lambda: rows,
            fingerprint="table",
            settings=DeliverySettings.of(call=call, **options),
            target=Target(
                "regal",
                self.regal.url,
                self.regal.api_key,
                rate_limit=rate,
                timeout_s=timeout_s,
                event_source=f"try {number}",
            ),
            pacer=Pacer(rate),
            this=Try(epoch, number),
            clock=clock or Clock(),
        )

    def begin(
        self, rows, *, number=1, call="track", rate=300, timeout_s=2.0, epoch=0, patience_s=20.0, uvloop=True, **options
    ):
        """Begin a try in a process of its own, with a folder for temporary files of its own."""
        own = self.tmp_path / f"machine-{number}-{time.monotonic_ns()}"
        own.mkdir()
        given = {
            "url": self.regal.url, "key": self.regal.api_key, "folder": self.folder, "rows": rows, "number": number,
            "call": call, "rate": rate, "timeout_s": timeout_s, "epoch": epoch, "patience_s": patience_s,
            "options": options, "endpoint": self.door.url, "uvloop": uvloop,
        }  # fmt: skip
        return subprocess.Popen(
            [sys.executable, str(DRIVER), json.dumps(given)],
            cwd=PROJECT,
            env={**os.environ, "PYTHONPATH": str(PROJECT), "TMPDIR": str(own)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def end(self, process, *, s3_complains=False):
        """Wait for a try to end; gives what came of it.

        :param s3_complains: the S3 library logs what it could not tell anybody, where the bucket is gone.
        """
        out, complaints = process.communicate(timeout=120)
        assert s3_complains or "Traceback" not in complaints, complaints
        return json.loads(out.splitlines()[-1]) if out else None

    def requests(self):
        return self.regal._ask(lambda account: account.requests)

    def wait_for(self, requests):
        while self.requests() < requests:
            time.sleep(0.002)

    def then(self, what, requests):
        """Do something once Regal has got some requests."""

        def wait_and_do():
            self.wait_for(requests)
            what()

        thread = threading.Thread(target=wait_and_do)
        thread.start()
        return thread

    def arrivals(self):
        """:returns: user id -> how often it arrived."""
        arrived = {}
        for event in self.regal.events():
            if event["stored"]:
                arrived[event["body"]["userId"]] = arrived.get(event["body"]["userId"], 0) + 1
        return arrived

    def objects(self):
        start = "/".join(("prefix", *self.folder)) + "/"
        listed = self.door.direct.list_objects_v2(Bucket="journal", Prefix=start).get("Contents", [])
        return [entry["Key"].removeprefix(start) for entry in listed]

    def read(self, name):
        key = "/".join(("prefix", *self.folder, name))
        return self.door.direct.get_object(Bucket="journal", Key=key)["Body"].read()


@pytest.fixture
def in_bucket(s3, regal_sandbox, tmp_path):
    return InBucket(s3, regal_sandbox, tmp_path)
