"""One event at a time through the hook: each has its line in the ledger, and every rule of consent holds."""

from __future__ import annotations

import json
import signal
import time
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.errors import (
    CheckRegalError,
    FixConnectionError,
    InvalidEventError,
    RefusedEventError,
    RetryLaterError,
)
from airflow_provider_regal.events import ConsentPolicy
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin.forgetting import Forgetting
from airflow_provider_regal.ledger.people.suppressions import suppress
from airflow_provider_regal.ledger.rules import OPT_IN, Claim, Verdict
from airflow_provider_regal.ledger.shares import Shares
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from tests.killing import kill_while_sending
from tests.ledger.view import LedgerView, open_database
from tests.ledger_file import consents, dead_letters, deliveries, outcomes, table
from tests.operators.ways import context, set_current_context

PHONE = "+12125550100"
ANNE = {"user_id": "anne", "phone": PHONE}
NOW = datetime.now(UTC)
NEWER_NO = Claim(OPT_IN, PHONE, "sms", False, to_ledger_time(NOW))


def ago(days):
    return (NOW - timedelta(days=days)).isoformat()


def yes(days, **more):
    return {"channel": "sms", "subscribed": True, "timestamp": ago(days), "ip": "203.0.113.9", **more}


def no(days=None):
    return {"channel": "sms", "subscribed": False} | ({} if days is None else {"timestamp": ago(days)})


def status(regal):
    return regal.contact(phone=PHONE)["phones"][PHONE]["sms"]["status"]


def adds_up(line):
    return line["read_rows"] == line["acknowledged"] + line["rejected"] + line["unknown"] + line["skipped"]


def test_the_events_of_a_hook_are_one_delivery_with_a_line_each(regal, regal_ledger):
    hook = RegalHook()
    hook.identify(**ANNE, email="Anne@Example.com")
    hook.track("Lesson Booked", user_id="anne", properties={"subject": "maths"})
    hook.page(user_id="anne", name="Pricing")
    RegalHook().screen(user_id="ben", name="Home")

    first, second = deliveries(regal_ledger)
    assert (first["read_rows"], first["acknowledged"], first["state"]) == (3, 3, "finished")
    assert (second["read_rows"], second["acknowledged"], second["state"]) == (1, 1, "finished")
    lines = outcomes(regal_ledger)
    assert [(line["delivery"], line["position"], line["call"], line["event"]) for line in lines] == [
        (first["id"], 1, "identify", None),
        (first["id"], 2, "track", "Lesson Booked"),
        (first["id"], 3, "page", "pageview"),
        (second["id"], 1, "screen", "screen"),
    ]
    assert {line["status"] for line in lines} == {"acknowledged"}
    assert (lines[0]["user_id"], lines[0]["phone"], lines[0]["email"]) == ("anne", PHONE, "anne@example.com")
    assert dead_letters(regal_ledger) == []


def test_within_a_task_it_is_known_whose_events_these_are(regal, regal_ledger):
    with set_current_context(context(run_id="monday", try_number=2)):
        RegalHook().identify(**ANNE)
        RegalHook().identify(**ANNE)
    for line in deliveries(regal_ledger):
        assert (line["dag_id"], line["task_id"], line["run_id"], line["try_number"]) == ("d", "t", "monday", 2)
    assert regal.stats()["requests"] == 2, "the hook sends what it is told, however often a task is tried"


def test_a_message_id_is_sent_once_whoever_sends_it(regal, regal_ledger):
    booked = {"user_id": "anne", "message_id": "m1"}
    assert RegalHook().track("Lesson Booked", **booked).status == "acknowledged"
    again = RegalHook().track("Lesson Booked", **booked)
    assert (again.status, again.http_status, again.tries) == ("skipped", None, 0)
    report = RegalHook().deliver([booked], call="track", event="Lesson Booked")
    assert report.skips == {"duplicate": 1}
    RegalHook().deliver([{"user_id": "ben", "message_id": "m2"}], call="track", event="Lesson Booked")
    assert RegalHook().track("Lesson Booked", user_id="ben", message_id="m2").status == "skipped"
    assert regal.stats()["requests"] == 2
    assert all(adds_up(line) for line in deliveries(regal_ledger))


def test_of_a_repeated_message_the_opt_out_is_sent_and_no_letter_is_left(regal, regal_ledger):
    RegalHook().track("Lesson Booked", **ANNE, message_id="m1")
    assert RegalHook().track("Lesson Booked", **ANNE, message_id="m1", opt_in=[no(1)]).call == "identify"
    assert status(regal) == "Unsubscribed"
    assert [line["status"] for line in outcomes(regal_ledger)] == ["acknowledged"]
    assert all(adds_up(line) for line in deliveries(regal_ledger))


class TestSomebodyWhoIsSuppressed:
    @pytest.fixture
    def suppressed(self, regal, regal_ledger):
        with LedgerView(regal_ledger, account="regal_default").account() as account:
            suppress(account, [PHONE])

    @pytest.mark.parametrize("call", ["identify", "track", "page", "screen"])
    def test_gets_no_event(self, suppressed, regal, regal_ledger, call):
        more = {"event": "Lesson Booked", "message_id": "m1"} if call == "track" else {}
        receipt = getattr(RegalHook(), call)(**ANNE, **more)
        assert (receipt.call, receipt.status, receipt.http_status) == (call, "skipped", None)
        assert regal.stats()["requests"] == 0
        (line,) = deliveries(regal_ledger)
        assert (line["read_rows"], line["skipped"], json.loads(line["counts"])["skips"]) == (1, 1, {"suppressed": 1})
        assert (outcomes(regal_ledger), table(regal_ledger, "regal_messages")) == ([], [])

    def test_is_opted_out_all_the_same(self, suppressed, regal, regal_ledger):
        receipt = RegalHook().track("Lesson Booked", **ANNE, opt_in=[no(1)])
        assert (receipt.call, receipt.status) == ("identify", "acknowledged")
        assert status(regal) == "Unsubscribed"
        (line,) = deliveries(regal_ledger)
        assert (line["skipped"], line["acknowledged"]) == (1, 0)
        assert outcomes(regal_ledger) == []

    def test_is_opted_out_by_an_event_that_is_wrong_elsewhere(self, suppressed, regal):
        with pytest.raises(InvalidEventError):
            RegalHook().identify(**ANNE, opt_in=[no(1)], traits={"x": b"y"})
        assert status(regal) == "Unsubscribed"

    def test_is_opted_in_by_nothing(self, suppressed, regal, regal_ledger):
        assert RegalHook().identify(**ANNE, opt_in=[yes(1)]).status == "skipped"
        assert consents(regal_ledger) == {}


def test_of_somebody_who_was_forgotten_nothing_is_recorded(regal, regal_ledger):
    RegalHook().identify(**ANNE, opt_in=[no(2)])
    with LedgerView(regal_ledger, account="regal_default").account() as account:
        person = Forgetting(account, ["user:anne"])
        person.suppress()
        person.erase()
    before = regal.stats()["requests"]
    for opt_in in ([no(2)], [no()], [yes(1)], []):
        assert RegalHook().identify(**ANNE, opt_in=opt_in).status == "skipped"
    assert regal.stats()["requests"] == before
    assert (consents(regal_ledger), [line["phone"] for line in outcomes(regal_ledger)]) == ({}, [None])
    assert RegalHook().identify(**ANNE, opt_in=[no(1)]).status == "acknowledged", "an opt-out that is news"


def test_named_events_to_who_opted_out_of_everything_are_skipped_where_that_is_asked_for(regal):
    hook = RegalHook()
    hook.identify(**ANNE, opt_in=[no(1)])
    for send in (lambda **more: hook.track("Lesson Booked", **more), hook.page, hook.screen):
        assert send(user_id="anne").status == "acknowledged"
        assert send(user_id="anne", suppress_named_events=True).status == "skipped"
        assert send(user_id="ben", suppress_named_events=True).status == "acknowledged"
    assert hook.track("Lesson Booked", **ANNE, opt_in=[yes(2)], suppress_named_events=True).status == "skipped"
    assert hook.track("Lesson Booked", **ANNE, opt_in=[yes(0)], suppress_named_events=True).call == "track"
    with pytest.raises(ValueError, match="suppress_named_events must be True or False"):
        hook.track("Lesson Booked", user_id="ben", suppress_named_events="True")


def test_an_opt_out_in_a_named_event_is_sent_and_holds_the_event(regal, regal_ledger):
    receipt = RegalHook().track("Lesson Booked", **ANNE, opt_in=[no(1)], suppress_named_events=True)
    assert (receipt.call, status(regal)) == ("identify", "Unsubscribed")
    assert [event["body"].get("name") for event in regal.events()] == [None]
    assert all(adds_up(line) for line in deliveries(regal_ledger))


def test_an_older_yes_does_not_follow_a_no_and_the_rest_of_its_event_goes(regal, regal_ledger):
    RegalHook().identify(**ANNE, opt_in=[no(1)])
    receipt = RegalHook().identify(**ANNE, traits={"plan": "gold"}, opt_in=[yes(2)])
    assert receipt.status == "acknowledged"
    assert len(receipt.opt_ins_withheld) == 1
    assert "a newer decision of this person is on record" in receipt.opt_ins_withheld[0]
    assert status(regal) == "Unsubscribed"
    assert regal.contact(phone=PHONE)["traits"] == {"plan": "gold"}
    RegalHook().identify(**ANNE, opt_in=[yes(0)])
    assert status(regal) == "Subscribed"
    log = table(regal_ledger, "regal_consent_log")
    assert [(line["subscribed"], line["status"]) for line in log] == [
        (0, "acknowledged"), (1, "withheld"), (1, "acknowledged"),
    ]  # fmt: skip


def test_it_hears_what_a_sync_sent_and_is_heard_by_it(regal, regal_ledger):
    def sync(opt_in, run_id, **options):
        here = context(run_id=run_id)
        rows = [{"phone": PHONE, **opt_in}]
        RegalOptInSyncOperator(task_id="t", rows=rows, **options).execute(here)
        return here["ti"].report

    sync(no(3), "r1", initial="send")
    assert RegalHook().identify(**ANNE, opt_in=[yes(4)]).opt_ins_withheld
    RegalHook().identify(**ANNE, opt_in=[no(1)])
    assert sync(yes(2), "r2")["skips"] == {"older": 1}
    assert status(regal) == "Unsubscribed"


def test_an_opt_out_bars_from_when_it_is_read_even_if_it_never_arrives(regal, regal_ledger):
    regal.set_faults([{"do": {"status": 503, "retry_after": 90}}])
    with pytest.raises(RetryLaterError):
        RegalHook(outage_patience_s=0).identify(**ANNE, opt_in=[no(1)])
    regal.set_faults([])
    report = RegalHook().deliver(
        [{**ANNE, "sms_opt_in": 1, "sms_opt_in_at": ago(2), "sms_opt_in_ip": "203.0.113.9"}], call="identify"
    )
    assert report.opt_ins_withheld == 1
    assert status(regal) == "Unsubscribed", "nothing of the event is under way, so the delivery sends what it owed"
    assert consents(regal_ledger)[PHONE, "sms"]["opt_out_at"] is not None


def test_an_opt_out_without_a_time_counts_as_given_now(regal):
    RegalHook().identify(**ANNE, opt_in=[no()])
    assert RegalHook().identify(**ANNE, opt_in=[yes(0)]).opt_ins_withheld
    assert status(regal) == "Unsubscribed"


def test_evidence_of_what_was_sent_is_kept(regal, regal_ledger):
    RegalHook().identify(**ANNE, opt_in=[yes(2, text="Yes, text me.", source="signup_form")])
    (line,) = table(regal_ledger, "regal_consent_log JOIN regal_consent_texts USING (text_hash)")
    kept = (line["identifier"], line["channel"], line["subscribed"], line["ip"], line["text"], line["form"])
    assert kept == (PHONE, "sms", 1, "203.0.113.9", "Yes, text me.", "signup_form")
    assert line["given_at"][:19] == ago(2)[:19]


def test_withheld_by_the_policy_is_in_the_log_of_consents_too(regal, regal_ledger):
    paper = {name: value for name, value in yes(2).items() if name != "ip"}
    RegalHook().identify(**ANNE, opt_in=[paper])
    RegalHook(consent=ConsentPolicy(require_ip=False)).identify(**ANNE, opt_in=[paper])
    log = table(regal_ledger, "regal_consent_log")
    assert [line["status"] for line in log] == ["withheld", "acknowledged"]
    assert "no ip" in log[0]["reason"]


def test_what_regal_refuses_is_a_dead_letter(regal, regal_ledger):
    regal.set_faults([{"do": {"status": 422}}])
    with pytest.raises(RefusedEventError):
        RegalHook().track("Lesson Booked", user_id="anne", properties={"n": 1})
    (letter,) = dead_letters(regal_ledger)
    assert (letter["status"], letter["reason"], letter["attempts"]) == ("rejected", "HTTP 422", 1)
    assert letter["payload"]["properties"] == {"n": 1}
    (line,) = deliveries(regal_ledger)
    assert line["rejected"] == 1
    assert adds_up(line)


def test_what_may_have_arrived_is_unknown_and_its_message_id_is_not_sent_again(regal, regal_ledger):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"drop": True}}])
    with pytest.raises(CheckRegalError):
        RegalHook().track("Lesson Booked", user_id="anne", message_id="m1")
    (letter,) = dead_letters(regal_ledger)
    assert letter["status"] == "unknown"
    assert RegalHook().track("Lesson Booked", user_id="anne", message_id="m1").status == "skipped"
    assert regal.stats()["requests"] == 1
    assert [line["unknown"] for line in deliveries(regal_ledger)] == [1, 0]


def test_what_was_surely_not_applied_leaves_no_line_and_may_be_sent_again(regal, regal_ledger):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"status": 503, "retry_after": 90}}])
    hook = RegalHook(outage_patience_s=0)
    booked = {"user_id": "anne", "message_id": "m1"}
    with pytest.raises(RetryLaterError):
        hook.track("Lesson Booked", **booked)
    assert outcomes(regal_ledger) == []
    assert all(adds_up(line) for line in deliveries(regal_ledger))
    assert hook.track("Lesson Booked", **booked).status == "acknowledged"
    assert [line["status"] for line in outcomes(regal_ledger)] == ["acknowledged"]
    assert all(adds_up(line) for line in deliveries(regal_ledger))


PROGRAM = """
import sys
from airflow_provider_regal.hooks.regal import RegalHook
hook = RegalHook()
getattr(hook, sys.argv[1])(**({"event": "Lesson Booked"} if sys.argv[1] == "track" else {}), user_id="anne")
"""


@pytest.mark.parametrize("call", ["track", "identify"])
@pytest.mark.slow
def test_an_event_whose_process_died_while_sending_is_unknown(call, regal, regal_ledger):
    regal.set_faults([{"do": {"hang": True}}])
    kill_while_sending(regal, PROGRAM, call)
    (letter,) = dead_letters(regal_ledger)
    assert (letter["call"], letter["status"], letter["reason"]) == (call, "unknown", "worker died")
    (line,) = deliveries(regal_ledger)
    assert line["unknown"] == 1
    assert adds_up(line)


SENDS = """
import json, sys
from airflow_provider_regal.hooks.regal import RegalHook
RegalHook(outage_patience_s=float(sys.argv[2])).identify(**json.loads(sys.argv[1]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("patience_s", "does", "busy_s", "free_s"),
    [(100, {"status": 500, "store": False}, 200, 400), (0, {"hang": True}, 200, 300)],
    ids=["is sent again", "waits for its turn only"],
)
def test_a_newer_no_waits_as_long_as_a_yes_may_be_sent(patience_s, does, busy_s, free_s, regal, regal_ledger):
    """Its process may be alive, and wait for its turn, or send the yes again until its patience ends."""
    regal.set_faults([{"do": does}])
    kill_while_sending(regal, SENDS, json.dumps({**ANNE, "opt_in": [yes(2)]}), str(patience_s))
    (delivery,) = deliveries(regal_ledger)
    with closing(open_database(regal_ledger)) as database:
        for seconds, verdict in ((busy_s, Verdict.BUSY), (free_s, Verdict.GO)):
            then = datetime.now(UTC) + timedelta(seconds=seconds)
            account = Account(database, account=delivery["account"], now=lambda then=then: then)
            assert account.verdicts([NEWER_NO]) == [verdict]


@pytest.fixture
def others_use_the_rate(regal, regal_ledger, monkeypatch):
    """Another sender holds all of the account's rate; returns a hook that has sent one event, and the account."""
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(rate_limit=1))
    hook = RegalHook(outage_patience_s=0)
    hook.identify(**ANNE)
    (delivery,) = deliveries(regal_ledger)
    with closing(open_database(regal_ledger)) as database:
        account = Account(database, account=delivery["account"])
        another = Shares(account, rate_limit=1, sender="a delivery", hold_s=100)
        while not database.write(lambda connection: another.renew(connection, 1, lambda granted: granted)).granted:
            time.sleep(0.1)
        yield hook, account
    assert regal.stats()["requests"] == 1
    assert [line["status"] for line in outcomes(regal_ledger)] == ["acknowledged"]
    assert all(adds_up(line) for line in deliveries(regal_ledger))


def test_an_event_without_a_turn_is_not_sent_after_its_claims_ran_out(others_use_the_rate, monkeypatch):
    _, account = others_use_the_rate
    monkeypatch.setattr("airflow_provider_regal.hooks._single._LEAST_SLOT_PATIENCE_S", 1.0)
    with pytest.raises(RetryLaterError, match="Other senders used the account's rate limit for 1 s"):
        RegalHook(outage_patience_s=0).identify(**ANNE, opt_in=[yes(2)])
    assert account.verdicts([NEWER_NO]) == [Verdict.GO]


def test_an_event_that_was_cut_off_before_its_turn_was_not_sent(others_use_the_rate):
    hook, account = others_use_the_rate
    cut_off(lambda: hook.identify(**ANNE, opt_in=[yes(2)]))
    assert account.verdicts([NEWER_NO]) == [Verdict.GO]


def test_a_dry_run_asks_and_keeps_nothing(regal, regal_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(dry_run=True))
    RegalHook().identify(**ANNE, opt_in=[no()])
    assert not regal_ledger.exists()


def test_a_ledger_of_its_own_can_be_named(regal, regal_ledger, tmp_path, monkeypatch):
    other = tmp_path / "other.db"
    monkeypatch.setenv("AIRFLOW_CONN_OTHER_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(other)}))
    hook = RegalHook(ledger_conn_id="other_ledger")
    hook.identify(**ANNE)
    hook.deliver([ANNE], call="identify")
    assert len(deliveries(other)) == 2
    assert not regal_ledger.exists()


def test_a_refused_key_does_not_take_back_that_the_event_may_have_arrived(regal, regal_ledger):
    regal.set_faults(
        [
            {"on": {"requests": [1]}, "do": {"status": 500, "store": True}},
            {"on": {"requests": [2]}, "do": {"status": 401}},
        ]
    )
    with pytest.raises(FixConnectionError):
        RegalHook().identify(**ANNE, opt_in=[yes(2)])
    assert status(regal) == "Subscribed"
    assert [(letter["status"], letter["attempts"]) for letter in dead_letters(regal_ledger)] == [("unknown", 2)]
    assert consents(regal_ledger)[PHONE, "sms"]["state"] == "unknown"
    assert all(adds_up(line) for line in deliveries(regal_ledger))


class TaskTimeoutError(BaseException):
    """As Airflow's: not an Exception."""


def cut_off(send):
    """Send, with a task timeout of a second."""

    def too_long(*_):
        raise TaskTimeoutError

    before = signal.signal(signal.SIGALRM, too_long)
    signal.setitimer(signal.ITIMER_REAL, 1.0)
    try:
        with pytest.raises(TaskTimeoutError):
            send()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def test_an_event_that_was_cut_off_is_unknown(regal, regal_ledger):
    regal.set_faults([{"do": {"hang": True}}])
    hook = RegalHook()
    cut_off(lambda: hook.track("Lesson Booked", user_id="anne"))
    assert [letter["reason"] for letter in dead_letters(regal_ledger)] == ["interrupted"]
    assert all(adds_up(line) for line in deliveries(regal_ledger))


def test_the_opt_out_of_an_event_that_is_refused_is_sent_alone(regal, regal_ledger):
    regal.set_faults([{"on": {"requests": [1]}, "do": {"status": 400}}])
    with pytest.raises(RefusedEventError):
        RegalHook().identify(**ANNE, traits={"plan": "gold"}, opt_in=[no(1)])
    (sent,) = regal.events(stored=True)
    assert sent["body"]["traits"]["phones"][PHONE]["smsOptIn"]["subscribed"] is False
    assert "userId" not in sent["body"]
    (line,) = outcomes(regal_ledger)
    assert (line["status"], line["reason"], line["attempts"]) == ("rejected", "HTTP 400", 2)
    assert line["message"].endswith("; its opt-out, sent alone: acknowledged")
    assert adds_up(deliveries(regal_ledger)[0])


def test_where_that_is_refused_as_well_the_next_delivery_of_contacts_sends_it(regal, regal_ledger):
    regal.set_faults([{"on": {"from": 1}, "do": {"status": 400}}])
    with pytest.raises(RefusedEventError):
        RegalHook().identify(**ANNE, traits={"plan": "gold"}, opt_in=[no(1)])
    regal.set_faults([])
    report = RegalHook().deliver([{"user_id": "ben"}], call="identify")
    assert (report.acknowledged, report.opt_outs_owed) == (1, 0)
    assert status(regal) == "Unsubscribed"
