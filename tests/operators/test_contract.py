"""The option ``contract`` of everything that sends: as a dictionary, or a file that is read when the task runs."""

from __future__ import annotations

import json

import pytest

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import Identify
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.page import RegalPageOperator
from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from tests.ledger_file import outcomes
from tests.operators.ways import context, set_current_context

PHONE = "+12125550100"
CONTRACT = {
    "traits": {"required": ["plan"], "properties": {"plan": {"type": "string"}}, "additionalProperties": False},
    "events": {
        "Order Placed": {"required": ["order_id"], "properties": {"order_id": {"type": "string"}}},
        "pageview": {"required": ["url"]},
    },
}
ROWS = [{"user_id": "u1", "order_id": "7"}, {"user_id": "u2", "orderId": "8"}]


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "contract.json"
    path.write_text(json.dumps(CONTRACT))
    return path


def statuses(regal_ledger):
    return [(line["user_id"], line["status"]) for line in outcomes(regal_ledger)]


class TestAFile:
    @pytest.mark.parametrize(
        "written", [lambda path: path, str, lambda path: path.as_uri()], ids=["Path", "str", "URI"]
    )
    def test_it_is_read_when_the_task_runs(self, file, written, regal, regal_ledger):
        text = file.read_text()
        file.unlink()
        task = RegalRowsOperator(
            task_id="t", call="track", event="Order Placed", rows=ROWS, contract=written(file), max_rejected=1
        )
        file.write_text(text)
        task.execute(context())
        assert statuses(regal_ledger) == [("u1", "acknowledged"), ("u2", "rejected")]

    def test_each_run_reads_it_anew(self, file, regal, regal_ledger):
        task = RegalRowsOperator(
            task_id="t", call="track", event="Order Placed", rows=ROWS, contract=file, max_rejected=1
        )
        task.execute(context(run_id="first"))
        file.write_text(json.dumps({"events": {"Order Placed": {}}}))
        report = task.execute(context(run_id="second"))
        assert (report["acknowledged"], report["rejected"]) == (2, 0)

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            (None, "can't be read: FileNotFoundError"),
            ("{", "is not JSON"),
            ('{"events": {"Order Placed": {"type": "strng"}}}', r"is wrong: events\.Order Placed\.type 'strng'"),
            ('{"traits": {}}', 'is wrong: it has no "events", so track events cannot be checked'),
            ('{"events": {"Order placed": {}}}', r"have no 'Order Placed' \(did you mean 'Order placed'\?\)"),
            ('{"events": {"Order Placed": {"$ref": "http://127.0.0.1:1/a.json"}}}', "nothing is fetched"),
        ],
    )
    def test_a_wrong_one_fails_the_task_for_good_before_a_row_is_read(self, text, complaint, file, regal):
        file.write_text(text) if text is not None else file.unlink()

        def rows():
            raise AssertionError("the source was opened")

        task = RegalRowsOperator(task_id="t", call="track", event="Order Placed", rows=rows, contract=file)
        with pytest.raises(
            AirflowFailException, match=f"The contract {file} {complaint}|The contract {file} is wrong.*{complaint}"
        ):
            task.execute(context())
        assert regal.stats()["requests"] == 0

    def test_one_that_is_not_used_costs_nothing(self, file):
        RegalRowsOperator(task_id="t", call="track", event="Order Placed", rows=[], contract=file.with_name("none"))


def test_a_dry_run_says_what_would_be_rejected(regal, regal_ledger):
    task = RegalRowsOperator(
        task_id="t", call="track", event="Order Placed", rows=ROWS, contract=CONTRACT, dry_run=True
    )
    report = task.execute(context())
    assert (report["status"], report["rejected"]) == ("dry_run", 1)
    assert list(report["reasons"]) == ["properties.order_id: required by the contract, missing"]


def test_messages_of_segment_are_checked_each_by_its_own_schema(tmp_path, regal, regal_ledger):
    messages = [
        {"type": "identify", "userId": "u1", "traits": {"plan": "gold"}},
        {"type": "identify", "userId": "u2", "traits": {"plan": 5}},
        {"type": "track", "userId": "u3", "event": "Order Placed", "properties": {}},
        {"type": "track", "userId": "u4", "event": "Order placed", "properties": {"order_id": "7"}},
    ]
    path = tmp_path / "messages.jsonl"
    path.write_text("".join(json.dumps(message) + "\n" for message in messages))
    FileToRegalOperator(
        task_id="t", path=path, format="segment", contract=CONTRACT, max_rejected=3, require_ip=False
    ).execute(context())
    assert {*statuses(regal_ledger)} == {
        ("u1", "acknowledged"), ("u2", "rejected"), ("u3", "rejected"), ("u4", "rejected"),
    }  # fmt: skip


def test_dead_letters_are_checked(regal, regal_ledger):
    regal.set_faults([{"do": {"status": 400}}])
    with pytest.raises(AirflowFailException):
        RegalRowsOperator(task_id="t", call="track", event="Order Placed", rows=ROWS, max_refused=None).execute(
            context()
        )
    regal.set_faults([])
    task = RegalRedeliverOperator(task_id="again", from_task="t", contract=CONTRACT, max_rejected=1)
    report = task.execute(context(run_id="again"))
    assert (report["acknowledged"], report["rejected"]) == (1, 1)


class TestEventOperators:
    @pytest.mark.parametrize(
        ("kind", "right", "wrong", "fault"),
        [
            (
                RegalTrackOperator,
                {"event": "Order Placed", "properties": {"order_id": "7"}},
                {"event": "Order Placed", "properties": {"orderId": "Jane"}},
                "properties.order_id: required by the contract, missing",
            ),
            (
                RegalTrackOperator,
                {"event": "Order Placed", "properties": {"order_id": "7"}},
                {"event": "Order", "properties": {}},
                "event: is not in the contract",
            ),
            (
                RegalIdentifyOperator,
                {"traits": {"plan": "gold", "phone": PHONE}},
                {"traits": {"plan": 5, "tariff": "Jane"}},
                "traits.tariff: is not in the contract",
            ),
            (
                RegalPageOperator,
                {"properties": {"url": "/"}},
                {"name": "Jane"},
                "properties.url: required by the contract, missing",
            ),
        ],
    )
    def test_an_event_that_does_not_meet_it_fails_for_good_with_all_that_is_wrong(
        self, kind, right, wrong, fault, file, regal, regal_ledger
    ):
        kind(task_id="right", user_id="anne", contract=file, **right).execute(context(run_id="right"))
        with pytest.raises(AirflowFailException) as caught:
            kind(task_id="wrong", user_id="anne", contract=file, **wrong).execute(context(run_id="wrong"))
        assert fault in str(caught.value)
        assert "Jane" not in str(caught.value)
        assert ("2 faults" in str(caught.value)) is (kind is RegalIdentifyOperator)
        assert regal.stats()["requests"] == 1

    def test_its_opt_outs_are_sent_all_the_same(self, regal, regal_ledger):
        task = RegalIdentifyOperator(
            task_id="t",
            phone=PHONE,
            traits={"tariff": 5},
            opt_in=[{"channel": "sms", "subscribed": False}],
            contract=CONTRACT,
        )
        with pytest.raises(AirflowFailException, match=r"traits\.plan: required by the contract, missing"):
            task.execute(context())
        assert regal.contact(phone=PHONE)["phones"][PHONE]["sms"]["status"] == "Unsubscribed"

    def test_one_that_says_nothing_of_the_call_is_refused_when_the_dag_is_written(self):
        with pytest.raises(ValueError, match='has no "traits", so identify events cannot be checked'):
            RegalIdentifyOperator(task_id="t", user_id="a", contract={"events": {}})
        with pytest.raises(ValueError, match="events have no 'pageview'"):
            RegalPageOperator(task_id="t", user_id="a", contract={"events": {}})


class TestHook:
    @pytest.fixture
    def hook(self, file, regal, regal_ledger):
        return RegalHook(contract=file)

    def test_each_call_is_checked(self, hook, regal):
        hook.identify(user_id="anne", traits={"plan": "gold"})
        hook.track("Order Placed", user_id="anne", properties={"order_id": "7"})
        for call, fields in (
            (hook.identify, {"traits": {"plan": 5}}),
            (hook.track, {"event": "Order Placed"}),
            (hook.page, {"name": "Home"}),
        ):
            with pytest.raises(InvalidEventError, match=r"the contract requires|by the contract"):
                call(user_id="anne", **fields)
        with pytest.raises(InvalidEventError, match="event: is not in the contract"):
            hook.track("Order Sent", user_id="anne")
        with pytest.raises(ValueError, match="events have no 'screen'"):
            hook.screen(user_id="anne", name="Home")
        assert regal.stats()["requests"] == 2

    def test_an_event_that_was_made_before_is_checked_and_its_opt_outs_are_sent(self, hook, regal):
        opt_out = {"channel": "sms", "subscribed": False}
        event = Identify(user_id="anne", phones=[{"number": PHONE, "opt_ins": [opt_out]}])
        with pytest.raises(InvalidEventError, match=r"traits\.plan: required by the contract, missing"):
            hook.identify(event)
        assert [entry["body"].get("userId") for entry in regal.events()] == [None]
        assert regal.contact(phone=PHONE)["phones"][PHONE]["sms"]["status"] == "Unsubscribed"

    def test_a_dry_run_checks_as_well(self, hook, regal, monkeypatch):
        monkeypatch.setenv("AIRFLOW__REGAL__DRY_RUN", "True")
        with pytest.raises(InvalidEventError, match=r"traits\.plan: required by the contract"):
            hook.identify(user_id="anne")

    def test_deliveries_of_it_have_it_unless_they_have_another(self, hook, regal):
        assert hook.deliver(ROWS, call="track", event="Order Placed", max_rejected=1).rejected == 1
        assert hook.deliver(ROWS, call="track", event="Order Placed", name="other", contract=None).rejected == 0

    @pytest.mark.parametrize("wrong", ["contract.json", {}, 5])
    def test_what_can_be_none_is_refused_at_once(self, wrong):
        with pytest.raises(ValueError, match="contract"):
            RegalHook(contract=wrong)

    def test_a_call_it_says_nothing_of_is_an_error(self, regal, regal_ledger):
        with pytest.raises(ValueError, match='has no "traits", so identify events cannot be checked'):
            RegalHook(contract={"events": {}}).identify(user_id="anne")


def test_the_type_of_a_single_event_is_compared_with_the_first_on_record(regal, regal_ledger):
    RegalHook().identify(user_id="anne", traits={"plan": 5})
    opt_out = [{"channel": "sms", "subscribed": False}]
    for hook in (RegalHook(), RegalHook()):
        hook.track("Order Placed", user_id="anne", properties={"plan": "gold"})  # a name of its own
        with pytest.raises(
            InvalidEventError, match=r"traits\.plan: type_drift: is text, but was sent as a number since 20"
        ):
            hook.identify(user_id="anne", traits={"plan": "gold", "phone": PHONE}, opt_in=opt_out)
    assert regal.contact(phone=PHONE)["phones"][PHONE]["sms"]["status"] == "Unsubscribed"


def test_the_types_of_single_events_are_on_record_for_deliveries(regal, regal_ledger):
    with set_current_context(context()):
        RegalHook().identify(user_id="anne", traits={"plan": 5})
        RegalHook().track("A", user_id="anne", properties={"plan": 5})
    report = RegalHook().deliver([{"user_id": "a", "plan": "x"}], call="identify", max_rejected=1)
    assert "was sent as a number since" in str(report.reasons)
