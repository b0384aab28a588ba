"""Dead letters sent again by an operator, in a real Airflow."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime, timedelta

import pytest
from airflow.providers.common.compat.sdk import DAG, AirflowFailException

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from tests.ledger_file import dead_letters, deliveries
from tests.operators.ways import context

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
LOSE = {"on": {"from": 1}, "do": {"status": 500}}
OLD = {"timestamp": (datetime.now(UTC) - timedelta(days=9)).isoformat()}


@pytest.fixture
def refused(regal, regal_ledger):
    """Deliver rows that Regal refuses; returns the id of the delivery."""

    def run(rows, *, run_id="r", **options):
        regal.set_faults([REFUSE])
        options = {"call": "track", "event": "Lesson Booked", "max_rejected": 1.0, **options}
        report = RegalRowsOperator(task_id="t", rows=rows, **options).execute(context(run_id=run_id))
        regal.set_faults([])
        return report["delivery"]

    return run


def people(count):
    return [{"user_id": f"secret-{number}", "amount": number} for number in range(count)]


def again(here=None, *, task_id="again", **options):
    if not {"delivery", "from_dag", "from_task", "from_run", "since", "reason"} & options.keys():
        options["from_task"] = "t"
    here = here or context()
    here["ti"].task_id = task_id
    return RegalRedeliverOperator(task_id=task_id, **options).execute(here)


def a_dag(name, **options):
    options = {"default_args": {"retries": 0}, **options}
    return DAG(dag_id=name, schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **options)


def test_the_letters_of_a_task_are_sent_again_in_airflow(run_dag, regal, regal_ledger, everything_stored):
    regal.set_faults([REFUSE])
    with a_dag("redelivered_events") as dag:
        RegalRowsOperator(task_id="t", rows=people(3), call="track", event="Lesson Booked")
    assert str(run_dag(dag).state) == "failed"
    regal.set_faults([])
    (failed,) = deliveries(regal_ledger)

    with a_dag(
        "redelivers", params={"which": failed["id"], "since": failed["started_at"], "run": failed["run_id"]}
    ) as dag:
        RegalRedeliverOperator(
            task_id="again",
            delivery="{{ params.which }}",
            from_dag="{{ 'redelivered' }}_events",
            from_task="{{ 't' }}",
            from_run="{{ params.run }}",
            since="{{ params.since }}",
            until="{{ '2100-01-01' }}",
            reason="{{ 'HTTP 400' }}",
            fix=lambda row: {**row, "properties": {"fixed": True}},
        )
    run = run_dag(dag)

    assert str(run.state) == "success"
    (ti,) = run.get_task_instances()
    report = ti.xcom_pull(task_ids="again", key="regal_report")
    assert (report["read"], report["acknowledged"]) == (3, 3)
    assert [event["body"]["properties"] for event in regal.events(stored=True)] == [{"fixed": True}] * 3
    assert "secret-" not in json.dumps(report)
    assert [letter["redelivered_by"] for letter in dead_letters(regal_ledger, failed["id"])] == [report["delivery"]] * 3


def test_a_fix_that_fails_is_one_clear_error_without_retry_and_no_letter_is_touched(
    run_dag, refused, regal, regal_ledger, capfd, caplog
):
    number = refused(people(2))

    def fix(row):
        return {**row, "amount": row["no such key"]}

    with a_dag("fix_fails", default_args={"retries": 3, "retry_delay": timedelta(0)}) as dag:
        RegalRedeliverOperator(task_id="again", delivery=number, fix=fix)
    run = run_dag(dag)

    (ti,) = run.get_task_instances()
    assert (str(run.state), ti.try_number) == ("failed", 1)
    logged = "".join(capfd.readouterr()) + caplog.text
    assert f"fix failed on row 1 of delivery {number} (KeyError); its letter stays as it is." in logged
    assert regal.stats()["stored"] == 0
    assert [letter["redelivered_by"] for letter in dead_letters(regal_ledger, number)] == [None, None]
    assert again(delivery=number)["acknowledged"] == 2


@pytest.mark.parametrize("positions", [[1, 3], "1, 3", "{{ '1' }} 3"])
def test_single_rows_of_a_delivery_can_be_meant(run_dag, refused, regal, regal_ledger, positions):
    number = refused(people(3))
    with a_dag(f"single_rows_{len(str(positions))}") as dag:
        RegalRedeliverOperator(task_id="again", delivery=number, positions=positions)
    assert str(run_dag(dag).state) == "success"
    assert {event["body"]["userId"] for event in regal.events(stored=True)} == {"secret-0", "secret-2"}
    assert [letter["redelivered_by"] is not None for letter in dead_letters(regal_ledger, number)] == [
        True,
        False,
        True,
    ]


def test_other_rows_after_some_were_sent_are_another_source():
    def told(positions):
        return RegalRedeliverOperator(task_id="again", delivery=1, positions=positions).source()

    assert told("1, 3") == told([3, 1]) != told("1, 2")


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"delivery": 1, "positions": "1-3"}, "numbers of rows"),
        ({"delivery": [1, 2], "positions": [3]}, "one delivery"),
        ({"from_task": "t", "positions": [3]}, "one delivery"),
    ],
)
def test_rows_that_cannot_be_meant_are_an_error_at_once(options, word):
    with pytest.raises(ValueError, match=word):
        RegalRedeliverOperator(task_id="again", **options)


def test_two_operators_do_not_send_the_same_letters(refused, regal, regal_ledger):
    number = refused(people(4))
    first = again(limit=3)
    assert first["acknowledged"] == 3
    second = again(delivery=[str(number), number], task_id="other")
    assert second["read"] == 1
    assert regal.stats()["stored"] == 4
    taken = [letter["redelivered_by"] for letter in dead_letters(regal_ledger, number)]
    assert taken == [first["delivery"]] * 3 + [second["delivery"]]


def test_a_dry_run_takes_nothing_and_counts_only_what_nobody_has(refused, regal, regal_ledger):
    number = refused(people(4))
    again(limit=1)
    before = dead_letters(regal_ledger)
    report = again(task_id="look", dry_run=True)
    assert (report["status"], report["read"], report["delivery"]) == ("dry_run", 3, None)
    assert dead_letters(regal_ledger) == before
    assert regal.stats()["stored"] == 1
    assert again(task_id="other", delivery=number)["acknowledged"] == 3


def test_a_failed_redelivery_pushes_its_report_and_can_be_cleared(refused, regal, regal_ledger):
    refused(people(2))
    regal.set_faults([REFUSE])
    here = context()
    with pytest.raises(AirflowFailException, match="2 rejected, more than max_rejected=0"):
        again(here)
    assert here["ti"].report["rejected"] == 2
    letters = dead_letters(regal_ledger, here["ti"].report["delivery"])
    assert [letter["status"] for letter in letters] == ["rejected"] * 2
    regal.set_faults([])

    assert again(context(try_number=2, max_tries=1))["acknowledged"] == 2
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
    report = again(event="Lesson Booked", fix=lambda row: {k: v for k, v in row.items() if k != "phone"}, **option)
    assert report["acknowledged"] == 1
    if "phone" in row:
        assert regal.events(stored=True)[0]["body"]["properties"] == {"amount": 7}


def test_unknown_is_sent_only_when_named(regal, caplog):
    regal.set_faults([LOSE])
    RegalRowsOperator(task_id="t", rows=people(2), call="track", event="E", max_unknown=1.0).execute(context())
    regal.set_faults([])
    with pytest.raises(AirflowFailException, match="No dead letter matches"):
        again()
    with caplog.at_level(logging.WARNING):
        assert again(task_id="both", status=("rejected", "unknown"))["acknowledged"] == 2
    assert "people may be reached twice" in caplog.text


def test_the_status_may_come_from_a_template(regal):
    regal.set_faults([LOSE])
    RegalRowsOperator(task_id="t", rows=people(2), call="track", event="E", max_unknown=1.0).execute(context())
    regal.set_faults([])
    task = RegalRedeliverOperator(task_id="again", from_task="t", status="{{ params.status }}", reason="{{ none }}")
    task.status, task.reason = "both", ""  # as rendered
    here = context()
    here["ti"].task_id = "again"
    assert task.execute(here)["acknowledged"] == 2
    task.status = "sent"
    with pytest.raises(AirflowFailException, match="status must be of rejected, unknown"):
        task.execute(here)
    assert "status" in RegalRedeliverOperator.template_fields


def test_nothing_that_matches_fails_without_retry_unless_it_may_be(run_dag, refused, regal, capfd, caplog):
    with a_dag("nothing_there", default_args={"retries": 3, "retry_delay": timedelta(0)}) as dag:
        RegalRedeliverOperator(task_id="again", from_dag="no_such_dag")
    (ti,) = run_dag(dag).get_task_instances()
    assert (str(ti.state), ti.try_number) == ("failed", 1)
    assert "No dead letter matches (dag no_such_dag; status rejected)" in "".join(capfd.readouterr()) + caplog.text
    with a_dag("nothing_there_as_may_be") as dag:
        RegalRedeliverOperator(task_id="again", from_dag="no_such_dag", allow_empty=True)
    assert str(run_dag(dag).state) == "success"


def test_letters_are_chosen_by_their_age_reason_and_run(refused, regal):
    refused(people(1), run_id="monday")
    between = datetime.now(UTC)
    refused([{"user_id": "later", "phone": "x"}], run_id="tuesday")
    looked = {"dry_run": True, "allow_empty": True}
    assert again(since=between.isoformat(), **looked)["read"] == 1
    assert again(from_task="t", until=between.isoformat(), **looked)["read"] == 1
    assert again(since=f"{between:%Y-%m-%d}", **looked)["read"] == 2
    assert again(since="2100-01-01", **looked)["read"] == 0
    assert again(reason="HTTP 400", **looked)["read"] == 1
    assert again(reason="phone", **looked)["read"] == 1, "the beginning of the message"
    assert again(from_run="tuesday", **looked)["read"] == 1
    assert again(from_dag="d", from_task="another", **looked)["read"] == 0


def test_a_contact_that_was_sent_anew_since_is_left_out(regal):
    person = {"user_id": "u1", "phone": "+12125550100", "plan": "old"}
    regal.set_faults([REFUSE])
    options = {"call": "identify", "only_changed": True, "max_rejected": 1.0}
    RegalRowsOperator(task_id="t", rows=[person], **options).execute(context())
    regal.set_faults([])
    newer = context()
    newer["ti"].task_id = "newer"
    RegalRowsOperator(task_id="newer", rows=[{**person, "plan": "new"}], **options).execute(newer)

    assert again()["skips"] == {"older": 1}
    assert regal.contact(user_id="u1")["traits"] == {"plan": "new"}


def test_the_event_of_an_event_operator_is_a_letter_like_any_other(regal):
    regal.set_faults([REFUSE])
    with pytest.raises(AirflowFailException):
        RegalTrackOperator(task_id="t", event="Lesson Booked", user_id="u1", properties={"n": 1}).execute(context())
    regal.set_faults([])
    assert again()["acknowledged"] == 1
    assert regal.events(stored=True)[0]["body"]["properties"] == {"n": 1}


def test_the_rows_of_a_sync_are_left_to_the_sync(regal, caplog):
    row = {"phone": "+12125550100", "channel": "sms", "subscribed": True, "timestamp": "2026-01-02"}
    RegalOptInSyncOperator(task_id="t", rows=[row], initial="send", max_rejected=1).execute(context())
    assert again()["read"] == 0
    assert "run the sync again, it tries what was rejected" in caplog.text


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delivery": 1, "status": "sent"}, "status must be of rejected, unknown"),
        ({"delivery": 1, "status": ()}, "status must be of rejected, unknown"),
        ({"delivery": 1, "only_changed": True}, "only_changed: not for dead letters"),
        ({"delivery": 1, "key": "id"}, "key: not for dead letters"),
        ({"delivery": 1, "call": "page"}, "call: not for dead letters"),
        ({}, "name what to redeliver"),
        ({"until": "2026-01-01"}, "name what to redeliver"),
    ],
)
def test_what_cannot_be_meant_is_said_when_the_dag_is_written(options, said):
    with pytest.raises(ValueError, match=said):
        RegalRedeliverOperator(task_id="x", **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"delivery": "the last one"}, "delivery must be the id of a delivery"),
        ({"delivery": [None]}, "delivery must be the id of a delivery"),
        ({"since": "yesterday"}, "since and until must be times"),
        ({"from_task": "t", "until": "soon"}, "since and until must be times"),
    ],
)
def test_what_a_template_gave_is_looked_at_before_anything_is_sent(options, said, regal):
    with pytest.raises(AirflowFailException, match=said):
        again(**options)
    assert regal.stats()["requests"] == 0


def test_a_letter_is_taken_by_its_own_account_only(refused, regal, monkeypatch):
    from airflow_provider_regal.testing import Sandbox

    refused(people(1))
    with Sandbox(api_key="another-key") as other:
        monkeypatch.setenv("AIRFLOW_CONN_OTHER", other.connection())
        with pytest.raises(AirflowFailException, match="No dead letter matches"):
            again(regal_conn_id="other")
        assert other.stats()["requests"] == 0
