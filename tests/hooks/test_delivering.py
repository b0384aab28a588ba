"""A delivery inside a task instance: its place, its report, and that nothing personal is shown."""

from __future__ import annotations

import json
import logging
import traceback

import pytest

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.errors import FixConnectionError, FixSourceError, RetryLaterError, TooManyFailedRowsError
from airflow_provider_regal.events import Track
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.operators.rows import RegalRowsOperator
from tests.ledger_file import deliveries, everything
from tests.operators.ways import context, set_current_context
from tests.people import SECRETS

TRACK = {"call": "track", "event": "Lesson Booked"}
KEYS = {
    "delivery", "status", "read", "acknowledged", "rejected", "unknown", "skipped", "left", "known", "skips", "plan",
    "notes", "opt_ins_withheld", "opt_outs_owed", "opt_outs_rejected", "opt_outs_unknown", "without_time", "requests",
    "repeats", "outages", "seconds", "per_second", "reasons", "withheld",
    "samples",
}  # fmt: skip


def people(count):
    return [{"user_id": f"u{number}"} for number in range(count)]


class Task:
    """A task instance that keeps all that is pushed, and deliveries within it."""

    def __init__(self, **told):
        self.context = context(**told)
        self.pushed = {}
        self.context["ti"].xcom_push = self._push

    def _push(self, key, value):
        self.pushed[key] = value

    def deliver(self, rows, **options):
        with set_current_context(self.context):
            return RegalHook().deliver(rows, **{**TRACK, **options})


def test_a_delivery_is_of_its_task_instance(regal, regal_ledger):
    here = context(run_id="monday", try_number=3, max_tries=2)
    here["ti"].map_index = 4
    with set_current_context(here):
        RegalHook().deliver(people(1), **TRACK, name="first")
    (line,) = deliveries(regal_ledger)
    place = (line["dag_id"], line["task_id"], line["run_id"], line["map_index"], line["name"])
    assert place == ("d", "t", "monday", 4, "first")
    assert (line["epoch"], line["try_number"]) == (2, 3)


def test_the_report_has_every_key_whatever_happened(regal):
    done, failed, dry, nothing = Task(), Task(run_id="failed"), Task(run_id="dry"), Task(try_number=2)
    planned = Task(run_id="planned")
    done.deliver(people(2))
    with pytest.raises(TooManyFailedRowsError):
        failed.deliver([{"user_id": None}])
    dry.deliver(people(2), dry_run=True)
    nothing.deliver(people(2))
    planned.deliver(people(2), plan=True)
    for task in (done, failed, dry, nothing, planned):
        assert task.pushed["regal_report"].keys() == KEYS
    statuses = [task.pushed["regal_report"]["status"] for task in (done, failed, dry, nothing, planned)]
    assert statuses == ["finished", "failed", "dry_run", "nothing_to_do", "planned"]


@pytest.mark.parametrize("guarantee", ["at_most_once", "at_least_once"])
def test_a_retry_after_too_many_failed_rows_sends_no_contact_again_and_fails_again(regal, regal_ledger, guarantee):
    """Airflow retries a task of one's own whatever the error; and an operator's, if its worker dies while it fails."""
    rows = [*people(3), {"user_id": None}]
    for number in (1, 2, 3):
        with pytest.raises(TooManyFailedRowsError, match="1 rejected"):
            Task(try_number=number).deliver(rows, call="identify", event=None, guarantee=guarantee)
    assert [event["body"]["userId"] for event in regal.events()] == ["u0", "u1", "u2"]
    (line,) = deliveries(regal_ledger)
    assert (line["state"], line["acknowledged"], line["rejected"], line["try_number"]) == ("failed", 3, 1, 3)


def test_the_report_is_pushed_before_anything_is_raised_and_says_what_is_left(regal):
    regal.set_faults([{"on": {"from": 3}, "do": {"status": 503, "retry_after": 900}}])
    task = Task()
    with pytest.raises(RetryLaterError):
        task.deliver(people(5), max_connections=1, outage_patience=0.1)
    report = task.pushed["regal_report"]
    assert (report["status"], report["read"], report["acknowledged"], report["left"]) == ("stopped", 5, 2, 3)


def test_each_named_delivery_has_a_report_of_its_own(regal, regal_ledger):
    task = Task()
    task.deliver(people(1), name="first")
    task.deliver(people(2), name="second")
    assert [task.pushed[f"regal_report_{name}"]["read"] for name in ("first", "second")] == [1, 2]
    with pytest.raises(ValueError, match="give each a name of its own"):
        task.deliver(people(3), name="second")
    assert len(deliveries(regal_ledger)) == 2
    assert regal.stats()["requests"] == 3


def test_how_the_task_ended_in_another_run_is_known(regal):
    hook, tuesday = RegalHook(), Task(run_id="tuesday").context["ti"]
    assert hook.state_before(tuesday) is None
    Task(run_id="monday").deliver(people(1))
    assert hook.state_before(tuesday) == "finished"
    with pytest.raises(TooManyFailedRowsError):
        Task(run_id="monday").deliver([{"user_id": None}], name="second")
    assert (hook.state_before(tuesday), hook.state_before(tuesday, name="second")) == ("finished", "failed")
    assert hook.state_before(Task(run_id="monday").context["ti"]) is None, "its own run does not count"
    other = Task(run_id="tuesday").context["ti"]
    other.task_id = "another"
    assert hook.state_before(other) is None


def test_a_retry_goes_on_where_the_last_try_stopped(regal, regal_ledger):
    regal.set_faults([{"on": {"from": 3}, "do": {"status": 503, "retry_after": 900}}])
    with pytest.raises(RetryLaterError):
        Task().deliver(people(5), max_connections=1, outage_patience=0.1)
    regal.set_faults([])
    assert Task(try_number=2).deliver(people(5)).acknowledged == 5
    stored = [event["body"]["userId"] for event in regal.events(stored=True)]
    assert sorted(stored) == [f"u{number}" for number in range(5)]
    assert len(deliveries(regal_ledger)) == 1


def test_outside_of_a_task_every_call_is_a_delivery_of_its_own(regal, regal_ledger):
    hook = RegalHook()
    for _ in range(2):
        assert hook.deliver(people(2), **TRACK).acknowledged == 2
    assert hook.deliver(people(2), **TRACK, name="named").acknowledged == 2
    assert regal.stats()["stored"] == 6
    assert [(line["dag_id"], line["name"]) for line in deliveries(regal_ledger)] == [
        (None, None), (None, None), (None, "named"),
    ]  # fmt: skip


class Store:
    """Where Airflow keeps what a task notes of itself (3.3 and later)."""

    def __init__(self, error=None):
        self.noted, self._error = [], error

    def set(self, key, value):
        self.noted.append((key, value))
        if self._error is not None:
            raise self._error


@pytest.mark.long
@pytest.mark.parametrize("error", [None, RuntimeError("no such API")])
def test_progress_is_noted_in_airflow_names_nobody_and_is_never_in_the_way(error, regal):
    regal.set_faults([{"do": {"delay_ms": 400}}])
    task = Task()
    store = task.context["task_state_store"] = Store(error)
    rows = [{"user_id": SECRETS["id"], "phone": SECRETS["phone"], "name": SECRETS["name"]} for _ in range(30)]
    assert task.deliver(rows, max_connections=1).acknowledged == 30
    assert {key for key, _ in store.noted} == {"regal_progress"}
    assert "/30 " in store.noted[0][1]
    for secret in SECRETS.values():
        assert secret not in repr(store.noted)


@pytest.mark.parametrize("fault", [None, {"status": 400}, {"status": 500}, {"status": 401}, {"drop": True}])
def test_nothing_personal_and_no_key_is_logged_raised_or_pushed(fault, regal, regal_ledger, caplog, capfd):
    regal.set_faults([{"do": fault}] if fault else [])
    person = {
        "user_id": SECRETS["id"], "phone": SECRETS["phone"], "email": SECRETS["email"], "first_name": SECRETS["name"],
        "sms_opt_in": True, "sms_opt_in_at": "2026-01-02", "sms_opt_in_ip": SECRETS["ip"],
    }  # fmt: skip
    rows = [person, {**person, "phone": f"{SECRETS['phone']}99"}, {**person, "sms_opt_in_ip": None}]
    task, shown = Task(), ""
    with caplog.at_level(logging.DEBUG):
        try:
            task.deliver(rows, call="identify", event=None, outage_patience=0.5)
        except Exception as error:  # noqa: BLE001 - its text is looked at
            shown = repr(error) + str(error)
    seen = shown + json.dumps(task.pushed) + caplog.text + "".join(capfd.readouterr())
    assert "regal_report" in seen
    for secret in (*SECRETS.values(), SECRETS["e164"][2:], regal.api_key):
        assert secret not in seen
    kept = everything(regal_ledger)
    assert SECRETS["name"].encode() in kept or fault is None or fault == {"status": 401}, "the ledger is where it is"
    assert regal.api_key.encode() not in kept


class TestASourceThatFails:
    """An iterator of the user's, whose error quotes a row."""

    def rows(self, error):
        for row in people(1_500):
            if row["user_id"] == "u1234":
                raise error
            yield row

    @pytest.mark.parametrize(
        ("error", "kind"),
        [(KeyError(SECRETS["name"]), RetryLaterError), (ValueError(SECRETS["email"]), FixSourceError)],
    )
    def test_is_named_by_row_and_line_and_none_of_its_text_is_shown(self, error, kind, regal, caplog):
        with pytest.raises(kind) as caught:
            Task().deliver(self.rows(error))
        said = str(caught.value)
        assert said.startswith(f"The source failed at row 1,235 ({type(error).__name__} at test_delivering.py line ")
        assert "Nothing was sent" in said
        shown = "".join(traceback.format_exception(caught.value)) + caplog.text
        assert SECRETS["name"] not in shown
        assert SECRETS["email"] not in shown
        assert regal.stats()["requests"] == 0

    def test_is_read_again_and_nothing_is_lost(self, regal):
        with pytest.raises(RetryLaterError):
            Task().deliver(self.rows(ConnectionError("gone")))
        report = Task(try_number=2).deliver(people(1_500))
        assert (report.acknowledged, regal.stats()["duplicates"]) == (1_500, 0)

    @pytest.mark.parametrize("error", [AirflowFailException("enough"), FixConnectionError("the key is wrong")])
    def test_raises_errors_of_airflow_and_of_ours_as_they_are(self, error, regal):
        with pytest.raises(type(error), match=str(error)):
            Task().deliver(self.rows(error))

    def test_names_its_row_in_an_operator_too(self, regal):
        rows = RegalRowsOperator(task_id="t", rows=lambda: self.rows(KeyError()), **TRACK)
        with pytest.raises(RetryLaterError, match="at row 1,235"):
            rows.execute(context())


def test_what_is_no_event_among_events_is_rejected(regal):
    events = [Track(event="Seen", user_id="anne"), 5, Track(event="Seen", user_id="bob")]
    report = RegalHook().deliver(events, max_rejected=1)
    assert (report.acknowledged, report.rejected) == (2, 1)
