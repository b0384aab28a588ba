"""Dead letters on S3: processes that share nothing but the bucket send each once, and go on when one is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from urllib.parse import unquote

import pytest

from airflow_provider_regal.cli import main
from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.errors import ReadDeadLettersError
from airflow_provider_regal.hooks._bucket import open_bucket
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.journal.bucket_letters import BucketLetters
from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from tests.operators.ways import context
from tests.services.conftest import PROJECT
from tests.services.s3 import BUCKET

pytestmark = pytest.mark.services
REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
SLOW = {"on": {"from": 1}, "do": {"delay_ms": 50}}


@pytest.fixture
def regal(regal_sandbox, monkeypatch):
    extra = {"rate_limit": 1_000, "timeout": 2}
    connection = {**json.loads(regal_sandbox.connection())}
    connection["extra"] = {**(connection.get("extra") or {}), **extra}
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", json.dumps(connection))
    monkeypatch.setattr("airflow_provider_regal.hooks._delivering._used", set())  # the bucket is a new one
    return regal_sandbox


@pytest.fixture
def refused(s3, regal):
    """Deliver rows that Regal refuses; gives their run folder."""

    def run(count, name="first", start=0):
        regal.set_faults([REFUSE])
        rows = [{"user_id": f"u{number}"} for number in range(start, start + count)]
        with suppress(ReadDeadLettersError):
            RegalHook().deliver(rows, call="track", event="Lesson Booked", name=name)
        regal.set_faults([])
        return open_bucket().below("outside-tasks", name)

    return run


def begin(tmp_path, name, *options):
    """Redeliver on a machine of its own: it shares nothing but the bucket."""
    own = tmp_path / name
    (own / "tmp").mkdir(parents=True)
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_regal", "redeliver", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=PROJECT,
        env={**os.environ, "TMPDIR": str(own / "tmp"), "AIRFLOW_HOME": str(own / "home")},
    )  # fmt: skip


def end(process):
    out, complaints = process.communicate(timeout=120)
    assert "Traceback" not in complaints, complaints
    return process.returncode, out, complaints


def arrivals(regal):
    return Counter(event["body"]["userId"] for event in regal.events(stored=True))


def once(count):
    return Counter({f"u{number}": 1 for number in range(count)})


def outcomes_in(*folders):
    found = Counter()
    for folder in folders:
        with closing(BucketLetters(folder, Clock(), only_looks=True)) as letters:
            found.update(claim.outcome for claim in letters._claims.values())
    return found


def test_machines_with_overlapping_globs_send_each_letter_once(refused, regal, tmp_path):
    folders = [refused(40, f"first-{number}", 40 * number) for number in range(3)]
    regal.set_faults([SLOW])
    ways = ["outside-tasks/first-*", "outside-tasks/*", f"{open_bucket()}/**/first-[012]"]
    processes = [begin(tmp_path, f"machine-{number}", way) for number, way in enumerate(ways)]
    ends = [end(process) for process in processes]
    assert [code for code, *_ in ends] == [0, 0, 0], ends
    assert arrivals(regal) == once(120)
    assert outcomes_in(*folders) == Counter({"acknowledged": 120})


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_the_same_command_on_another_machine_goes_on(refused, regal, tmp_path, how):
    folder = refused(120)
    before = regal.stats()["requests"]
    regal.set_faults([SLOW])
    process = begin(tmp_path, "machine-1", "--rate", "40", "outside-tasks/first")
    while regal._ask(lambda account: account.stats()["requests"]) - before < 30 and process.poll() is None:
        time.sleep(0.01)
    getattr(process, how)()
    code, *_ = end(process)
    assert code != 0
    regal.set_faults([])

    code, out, _ = end(begin(tmp_path, "machine-2", "outside-tasks/first"))

    arrived, outcomes = arrivals(regal), outcomes_in(folder)
    assert code == (0 if "unknown                  0" in out else code)
    assert set(arrived.values()) == {1}
    assert outcomes.keys() <= {"acknowledged", "unknown"}
    assert outcomes.total() == 120
    assert len(arrived) >= outcomes["acknowledged"] >= 120 - 2 * 40 - 30
    if how == "terminate":
        assert outcomes == {"acknowledged": 120}


def has_note(s3):
    listed = s3.direct.list_objects_v2(Bucket=BUCKET, Prefix="prefix/outside-tasks/first/log/")["Contents"]
    last = s3.direct.get_object(Bucket=BUCKET, Key=listed[-1]["Key"])["Body"].read()
    return b'"kind": "note"' in last


def test_killed_between_taking_and_sending_it_sends_all_once_on_the_retry(refused, regal, tmp_path, s3):
    folder = refused(60)
    s3.delay_s = 0.2  # between taking and sending there are some requests
    process = begin(tmp_path, "machine-1", "outside-tasks/first")
    while not has_note(s3):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    end(process)
    s3.delay_s = 0.0
    assert arrivals(regal) == Counter()
    assert outcomes_in(folder) == Counter({None: 60})

    code, *_ = end(begin(tmp_path, "machine-2", "outside-tasks/first"))

    assert code == 0
    assert arrivals(regal) == once(60)
    assert outcomes_in(folder) == Counter({"acknowledged": 60})


def test_operators_redeliver_folders_of_tasks_in_the_bucket(s3, regal, caplog):
    regal.set_faults([REFUSE])
    given = {"call": "track", "event": "Lesson Booked", "max_rejected": 1.0}
    RegalRowsOperator(task_id="t", rows=[{"user_id": f"u{n}"} for n in range(4)], **given).execute(context())
    regal.set_faults([])

    def again(task_id, path, **options):
        here = context()
        here["ti"].task_id = task_id
        return RegalRedeliverOperator(task_id=task_id, path=path, **options).execute(here)

    assert again("look", "d/*/t", dry_run=True)["read"] == 4
    report = again("again", "d/*/t", limit=3, fix=lambda row: {**row, "properties": {"mended": True}})
    assert (report["read"], report["acknowledged"]) == (3, 3)
    assert report["run_folder"] == "s3://bucket@journal/prefix/d/r/again/-1"
    assert again("other", [report["run_folder"].replace("again", "t"), "d/**"])["read"] == 1
    assert arrivals(regal) == once(4)
    assert Counter("properties" in event["body"] for event in regal.events(stored=True)) == {True: 3, False: 1}
    with pytest.raises(FileNotFoundError, match="There is no run folder s3://bucket@journal/prefix/d/r/nothing"):
        again("none", "d/r/nothing")


def test_a_contact_that_was_sent_anew_since_is_overtaken_by_the_ledger(s3, regal, tmp_path, monkeypatch):
    ledger = {"conn_type": "sqlite", "host": str(tmp_path / "ledger.db")}
    monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps(ledger))
    person = {"user_id": "u1", "phone": "+12125550100", "plan": "old"}

    def deliver(task_id, operator, **options):
        here = context()
        here["ti"].task_id = task_id
        return operator(task_id=task_id, ledger_conn_id="ledger", **options).execute(here)

    given = {"call": "identify", "only_changed": True, "max_rejected": 1.0}
    regal.set_faults([REFUSE])
    deliver("t", RegalRowsOperator, rows=[person], **given)
    regal.set_faults([])
    deliver("newer", RegalRowsOperator, rows=[{**person, "plan": "new"}], **given)

    assert deliver("again", RegalRedeliverOperator, path="d/r/t")["skips"] == {"overtaken": 1}
    assert regal.contact(user_id="u1")["traits"] == {"plan": "new"}
    assert outcomes_in(open_bucket().below("d", "r", "t", "-1")) == Counter({"skipped": 1})


def test_the_command_says_what_it_did(refused, regal, capsys):
    refused(2)
    assert main(["redeliver", "--dry-run", "outside-tasks/first"]) == 0
    assert arrivals(regal) == Counter()
    assert main(["redeliver", "outside-tasks/first"]) == 0
    told = capsys.readouterr().out
    assert "Run folder: s3://bucket@journal/prefix/outside-tasks/redeliver-" in told
    assert main(["redeliver", "outside-tasks/first"]) == 0
    assert "read                     0" in capsys.readouterr().out
    assert arrivals(regal) == once(2)


def test_what_a_redelivery_costs_beside_its_own_delivery(refused, regal, s3, record_property):
    refused(3)
    refused(3, "other", 3)
    assert main(["redeliver", "outside-tasks/other"]) == 0
    s3.requests.clear()
    assert main(["redeliver", "outside-tasks/[fo]*"]) == 0
    asked = {
        name: [method for _, method, target, _ in s3.requests if f"outside-tasks/{name}" in unquote(target)]
        for name in ("first", "other")
    }
    record_property("taken", f"{len(asked['first'])}, writes {asked['first'].count('PUT')}")
    record_property("looked at", len(asked["other"]))
    assert (len(asked["first"]), asked["first"].count("PUT")) == (9, 3)
    assert "PUT" not in asked["other"]
    assert len(asked["other"]) <= 12


def test_a_bucket_that_cannot_be_written_takes_no_letter_and_sends_nothing(refused, regal, s3, capsys, monkeypatch):
    folder = refused(2)
    monkeypatch.setitem(open_bucket.__kwdefaults__, "patience_s", 0.5)
    before = regal.stats()["requests"]
    s3.refuses = "AccessDenied"
    assert main(["redeliver", "outside-tasks/first"]) == 1
    assert "cannot be reached or written: AccessDenied" in capsys.readouterr().err
    s3.refuses = None
    monkeypatch.setattr("airflow_provider_regal.hooks._delivering._used", set())  # as in a new process
    assert regal.stats()["requests"] == before
    assert outcomes_in(folder) == Counter()
    assert main(["redeliver", "outside-tasks/first"]) == 0
    assert arrivals(regal) == once(2)


def test_letters_in_a_bucket_are_read_though_run_folders_are_elsewhere(refused, regal, monkeypatch, tmp_path):
    folder = refused(2)
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(tmp_path / "runs"))
    assert main(["redeliver", str(folder)]) == 0
    assert arrivals(regal) == once(2)
    assert outcomes_in(folder) == Counter({"acknowledged": 2})
