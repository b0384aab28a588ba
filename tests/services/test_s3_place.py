"""What Airflow says about a bucket: connection, place of a task, ledger, link, retention."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import pytest

from airflow_provider_regal.cli import main
from airflow_provider_regal.errors import FixConnectionError
from airflow_provider_regal.hooks import _place
from airflow_provider_regal.hooks._bucket import fault_of, open_bucket, tidy_bucket
from airflow_provider_regal.hooks._ledger import has_ledger_file, open_ledger
from airflow_provider_regal.links import RegalDeadLettersLink
from airflow_provider_regal.operators.rows import RegalRowsOperator

pytestmark = pytest.mark.services
FOLDER = "s3://bucket@journal/prefix/d/manual__2026-11-24T00:00:00+00:00/t/-1"


class TaskInstance(SimpleNamespace):
    def xcom_push(self, key, value):
        self.pushed = {key: value}


def context(number=1, store=None):
    ti = TaskInstance(
        dag_id="d", run_id="manual__2026-11-24T00:00:00+00:00", task_id="t", map_index=-1, try_number=number,
        max_tries=3,
    )  # fmt: skip
    return {"ti": ti, "task": SimpleNamespace(retries=3, pool_slots=1), "task_state_store": store}


@pytest.fixture
def regal(regal_sandbox, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal_sandbox.connection())
    return regal_sandbox


def test_an_operator_keeps_its_folder_in_the_bucket_and_links_to_it(s3, regal, monkeypatch):
    rows = [{"user_id": "a"}, {"user_id": "b"}, {"amount": 1}]
    operator = RegalRowsOperator(task_id="t", call="track", event="Seen", rows=rows, max_rejected=1)
    given = context()
    report = operator.execute(given)

    assert (report["acknowledged"], report["rejected"], report["run_folder"]) == (2, 1, FOLDER)
    pushed = given["ti"].pushed["regal_report"]
    monkeypatch.setattr("airflow_provider_regal.links.XCom.get_value", lambda **_: pushed)
    link = RegalDeadLettersLink().get_link(operator, ti_key=None)
    assert link == f"{FOLDER}/dead_letters.jsonl"
    (letter,) = open_bucket().below(*FOLDER.split("/")[4:]).get("dead_letters.jsonl").splitlines()
    assert json.loads(letter)["position"] == 2


def test_no_folder_in_the_bucket_means_that_nothing_was_started(s3, regal):
    for store in (None, {"regal_run_folder": FOLDER}):
        assert not _place.place_of(context(number=2, store=store), None).lost
    operator = RegalRowsOperator(task_id="t", call="track", event="Seen", rows=[{"user_id": "a"}])
    assert operator.execute(context(number=3))["acknowledged"] == 1


def test_a_ledger_needs_a_database_of_its_own(s3, regal):
    with pytest.raises(FixConnectionError, match="Give ledger_conn_id= the connection of an SQL database"):
        open_ledger(None, account="a", run="r", source="s", timeout_s=1.0)
    operator = RegalRowsOperator(task_id="t", call="identify", rows=[{"user_id": "a"}], only_changed=True)
    with pytest.raises(Exception, match="Give ledger_conn_id="):
        operator.execute(context(number=4))
    assert regal.stats()["requests"] == 0


def test_what_needs_a_folder_says_so(s3):
    with pytest.raises(FixConnectionError, match=r"s3://\.\.\., but this needs a folder"):
        _place.storage()


@pytest.mark.parametrize("uri", ["gs://bucket/prefix", "abfs://container/prefix", "hdfs://host/path"])
def test_a_storage_nobody_proved_is_refused(monkeypatch, uri):
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", uri)
    with pytest.raises(FixConnectionError, match=r"must be s3://conn_id@bucket/prefix"):
        open_bucket()


@pytest.mark.parametrize("uri", ["", "/mnt/regal", "file:///mnt/regal"])
def test_a_folder_is_no_bucket(monkeypatch, uri):
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", uri)
    assert open_bucket() is None


def test_old_run_folders_are_removed_once_a_day(s3, in_bucket):
    in_bucket.delivery([{"user_id": "a"}]).run()
    bucket, day_s = open_bucket(), 86_400.0
    assert tidy_bucket(bucket, days=30, now=time.time()) == 0
    assert in_bucket.objects() != []
    assert tidy_bucket(bucket, days=30, now=time.time() + 0.9 * day_s) == 0
    before = len(s3.requests)
    assert tidy_bucket(bucket, days=30, now=time.time() + 0.9 * day_s) == 0
    assert len(s3.requests) == before + 1, "one look at the stamp"
    assert tidy_bucket(bucket, days=30, now=time.time() + 31 * day_s) == 1
    assert in_bucket.objects() == []


def test_a_bucket_that_cannot_be_tidied_does_not_fail_a_task(s3, regal, monkeypatch):
    bucket = open_bucket(patience_s=0.1)
    s3.refuses = "AccessDenied"
    assert tidy_bucket(bucket, days=30, now=time.time()) == 0


def test_a_check_tries_the_bucket_out_and_leaves_nothing(s3):
    bucket = open_bucket(patience_s=0.1)
    assert fault_of(bucket) is None
    assert bucket.list() == {}
    s3.refuses = "AccessDenied"
    assert fault_of(bucket).startswith("s3://bucket@journal cannot be reached or written: AccessDenied")


def test_the_doctor_tries_the_bucket_out(s3, regal, capsys):
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert (
        "ok       storage      s3://bucket@journal/prefix can be written and read back, and makes an object only" in out
    )
    assert "ok       ledger       none; where run folders are on object storage, ledger_conn_id= names one" in out
    s3.refuses = "AccessDenied"
    assert main(["check"]) == 1
    said = capsys.readouterr()
    assert "failure  storage      s3://bucket@journal cannot be reached or written: AccessDenied. Mend the" in said.out
    assert "1 of 6 would keep a delivery from working" in said.err


def test_the_doctor_warns_where_the_connection_to_the_bucket_is_missing(s3, regal, airflow_db, monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", "s3://forgotten@journal/prefix")
    for name, value in {"ENDPOINT_URL": s3.url, "ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    assert main(["check"]) == 0
    out = capsys.readouterr().out
    assert "ok       storage      s3://forgotten@journal/prefix can be written" in out
    assert "warning  storage      there is no connection 'forgotten', so this machine's own credentials" in out


def test_the_doctor_says_what_to_do_about_a_storage_nobody_proved(regal, monkeypatch, capsys):
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", "gs://bucket/prefix")
    assert main(["check"]) == 1
    assert (
        "failure  storage      [regal] storage_path is gs://..., but must be s3://conn_id@" in capsys.readouterr().out
    )


def test_looking_for_a_ledger_beside_run_folders_in_a_bucket_finds_none(s3):
    assert not has_ledger_file()
