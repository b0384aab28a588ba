"""Dead letters sent again by an operator, in a real Airflow."""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_regal.journal.dead_letters import read_dead_letters
from airflow_provider_regal.journal.folder_letters import claims_in_folder
from airflow_provider_regal.journal.run_folder import remove_old_folders
from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from tests.operators.ways import context

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
OLD = {"timestamp": (datetime.now(UTC) - timedelta(days=9)).isoformat()}


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
    path = tmp_path / "runs"
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(path))
    return path


@pytest.fixture
def refused(regal, storage):
    """Deliver rows that Regal refuses."""

    def run(rows, **options):
        regal.set_faults([REFUSE])
        options = {"call": "track", "event": "Lesson Booked", "max_rejected": 1.0, **options}
        RegalRowsOperator(task_id="t", rows=rows, **options).execute(context())
        regal.set_faults([])
        return storage / "d" / "r" / "t" / "-1"

    return run


def people(count):
    return [{"user_id": f"secret-{number}", "amount": number} for number in range(count)]


def again(here=None, *, task_id="again", **options):
    options.setdefault("path", "d/*/t")
    here = here or context()
    here["ti"].task_id = task_id
    return RegalRedeliverOperator(task_id=task_id, **options).execute(here), here["ti"].report


def test_the_letters_of_a_task_are_sent_again_in_airflow(run_dag, regal, storage, everything_stored):
    at = datetime(2026, 1, 1, tzinfo=UTC)
    regal.set_faults([REFUSE])
    with DAG(dag_id="redelivered_events", schedule=None, start_date=at, default_args={"retries": 0}) as dag:
        RegalRowsOperator(task_id="t", rows=people(3), call="track", event="Lesson Booked")
    assert str(run_dag(dag).state) == "failed"
    regal.set_faults([])

    with DAG(dag_id="redelivers", schedule=None, start_date=at, default_args={"retries": 0}) as dag:
        RegalRedeliverOperator(
            task_id="again",
            path="{{ 'redelivered' }}_events/*/t",
            fix=lambda row: {**row, "properties": {"mended": True}},
        )
    run = run_dag(dag)

    assert str(run.state) == "success"
    (ti,) = run.get_task_instances()
    report = ti.xcom_pull(task_ids="again", key="regal_report")
    assert (report["read"], report["acknowledged"]) == (3, 3)
    assert [event["body"]["properties"] for event in regal.events(stored=True)] == [{"mended": True}] * 3
    assert "secret-" not in json.dumps(report)
    assert "redelivers" in report["run_folder"]


def test_two_operators_do_not_send_the_same_letters(refused, regal):
    folder = refused(people(4))
    assert again(limit=3)[0]["acknowledged"] == 3
    assert again(path=["d/r/t", str(folder), "d/**"], task_id="other")[0]["read"] == 1
    assert regal.stats()["stored"] == 4
    assert {claim.outcome for claim in claims_in_folder(folder).values()} == {"acknowledged"}


def test_a_dry_run_takes_nothing_and_counts_only_what_nobody_has(refused, regal):
    folder = refused(people(4))
    again(limit=1)
    report, _ = again(task_id="look", dry_run=True)
    assert (report["status"], report["read"]) == ("dry_run", 3)
    assert len(claims_in_folder(folder)) == 1
    assert regal.stats()["stored"] == 1
    assert again(task_id="other")[0]["acknowledged"] == 3


def test_a_failed_redelivery_pushes_its_report_and_can_be_cleared(refused, regal, storage):
    refused(people(2))
    regal.set_faults([REFUSE])
    with pytest.raises(AirflowFailException, match="2 rejected, more than max_rejected=0"):
        again()
    letters = list(read_dead_letters(storage / "d" / "r" / "again" / "-1" / "dead_letters.jsonl"))
    assert [letter.status for letter in letters] == ["rejected"] * 2
    regal.set_faults([])

    report, _ = again(context(try_number=2, max_tries=1))
    assert report["acknowledged"] == 2
    assert regal.stats()["stored"] == 2


@pytest.mark.parametrize(
    ("row", "delivered", "option"),
    [
        ({**people(1)[0], **OLD}, {"max_event_age": None}, {"max_event_age": timedelta(days=30)}),
        ({"user_id": "u1", "ref": 7, "phone": "x"}, {}, {"mapping": {"ref": "properties.amount"}}),
        ({"user_id": "u1", "amount": "7", "phone": "x"}, {}, {"types": {"amount": int}}),
    ],
)
def test_options_of_the_first_delivery_are_honoured(refused, regal, row, delivered, option):
    refused([row], **delivered)
    report, _ = again(event="Lesson Booked", fix=lambda row: {k: v for k, v in row.items() if k != "phone"}, **option)
    assert report["acknowledged"] == 1
    if "phone" in row:
        assert regal.events(stored=True)[0]["body"]["properties"] == {"amount": 7}


def test_unknown_is_sent_only_when_named(regal, caplog):
    regal.set_faults([{"on": {"from": 1}, "do": {"status": 500}}])
    RegalRowsOperator(task_id="t", rows=people(2), call="track", event="E", max_unknown=1.0).execute(context())
    regal.set_faults([])
    assert again()[0]["read"] == 0
    with caplog.at_level(logging.WARNING):
        assert again(task_id="both", status=("rejected", "unknown"))[0]["acknowledged"] == 2
    assert "people may be reached twice" in caplog.text


def test_the_ledger_file_beside_the_run_folders_is_used_where_there_is_one(regal, storage):
    person = {"user_id": "u1", "phone": "+12125550100", "plan": "old"}
    regal.set_faults([REFUSE])
    options = {"call": "identify", "only_changed": True, "max_rejected": 1.0}
    RegalRowsOperator(task_id="t", rows=[person], **options).execute(context())
    regal.set_faults([])
    newer = context()
    newer["ti"].task_id = "newer"
    RegalRowsOperator(task_id="newer", rows=[{**person, "plan": "new"}], **options).execute(newer)
    assert (storage / "ledger.db").exists()

    assert again()[0]["skips"] == {"overtaken": 1}
    assert regal.contact(user_id="u1")["traits"] == {"plan": "new"}


def test_a_path_that_names_nothing_fails_and_a_glob_sends_nothing(regal):
    with pytest.raises(FileNotFoundError, match="There is no run folder"):
        again(path="d/r/nothing")
    assert again(path="d/r/nothing*", task_id="other")[0]["read"] == 0


@pytest.mark.parametrize(
    "options", [{"status": "sent"}, {"status": ()}, {"only_changed": True}, {"key": "id"}, {"call": "page"}]
)
def test_what_cannot_be_meant_is_said_when_the_dag_is_written(options):
    with pytest.raises(ValueError):
        RegalRedeliverOperator(task_id="x", path="d", **options)


def test_retention_keeps_claims_as_long_as_their_letters(refused, regal, storage, monkeypatch):
    folder = refused(people(2))
    long_ago = datetime.now(UTC).timestamp() - 40 * 86_400
    for file in folder.rglob("*"):
        os.utime(file, (long_ago, long_ago))
    again()
    assert remove_old_folders(storage, older_than_s=30 * 86_400, now=datetime.now(UTC).timestamp()) == 0
    assert len(claims_in_folder(folder)) == 2


def test_a_redelivery_that_only_looks_does_not_keep_letters_from_retention(refused, storage):
    folder = refused(people(2))
    long_ago = datetime.now(UTC).timestamp() - 40 * 86_400
    for file in folder.rglob("*"):
        os.utime(file, (long_ago, long_ago))
    assert again(status="unknown")[0]["read"] == 0
    assert remove_old_folders(storage, older_than_s=30 * 86_400, now=datetime.now(UTC).timestamp()) == 1
    assert not folder.exists()
