"""A sync of opt-ins sends the differences from the ledger, and accounts for every consent of its source."""

from __future__ import annotations

from datetime import datetime

import pytest

from airflow_provider_regal.errors import FixConnectionError, FixSourceError, TooManyFailedRowsError
from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.delivery.consents import IP, NOW, adds_up, at, kinds, no, phone, told, yes
from tests.ledger.view import LedgerView


def test_only_what_changed_is_sent(sync, regal_sandbox):
    first = sync([yes(1), yes(2), no(3)])
    assert kinds(first) == {"sent": 3, "opt_outs": 1, "opt_ins": 2}
    assert (first.acknowledged, first.read) == (3, 3)
    regal_sandbox.reset()

    second = sync([yes(1), no(2, 6), no(3), yes(4)])
    assert kinds(second) == {"sent": 2, "unchanged": 2, "opt_outs": 1, "opt_ins": 1}
    assert (second.read, second.acknowledged, second.skipped) == (4, 2, 2)
    assert second.skips == {"unchanged": 2}
    assert told(regal_sandbox) == [("u2", "sms", False), ("u4", "sms", True)]
    assert regal_sandbox.stats()["contract_findings"] == {}


def test_a_third_run_sends_nothing(sync, regal_sandbox):
    for _ in range(2):
        sync([yes(1), no(2), no(3, None), yes(4, channel="voice")])
    assert regal_sandbox.stats()["requests"] == 4


def test_a_row_that_says_the_same_in_other_words_is_unchanged_too_and_known_by_its_hash_from_then_on(sync, ledger):
    sync([yes(1, text="old wording")])
    before = ledger.consents()[phone(1), "sms"][-1]
    report = sync([yes(1, text="new wording")])
    assert kinds(report) == {"unchanged": 1}
    assert adds_up(report)
    assert ledger.consents()[phone(1), "sms"][-1] not in (before, None)


def test_of_several_rows_the_newest_holds_and_of_equal_times_the_opt_out(sync, regal_sandbox):
    rows = [yes(1, 7), no(1, 6), yes(1, 5), yes(2, 5), no(2, 5), yes(2, 5)]
    report = sync(rows)
    assert kinds(report) == {"sent": 2, "older": 4, "opt_outs": 1, "opt_ins": 1}
    assert adds_up(report)
    assert told(regal_sandbox) == [("u2", "sms", False), ("u1", "sms", True)]
    again = sync(rows)
    assert kinds(again) == {"unchanged": 2, "older": 4}
    assert (again.opt_ins_withheld, again.requests) == (0, 0)


def test_what_is_older_than_known_is_withheld(sync, regal_sandbox):
    sync([no(1, 5), yes(2, 5)])
    regal_sandbox.reset()
    report = sync([yes(1, 4), yes(1, 5), no(2, 4)], of_run="late")
    assert kinds(report) == {"older": 3}
    assert report.skips == {"older": 3}
    assert adds_up(report)
    assert regal_sandbox.stats()["requests"] == 0
    assert report.opt_ins_withheld == 1, "the other is an opt-out"


def test_what_another_run_has_sent_meanwhile_is_left_out(sync, regal_sandbox, ledger):
    regal_sandbox.set_faults([{"do": {"status": 401}}])
    with pytest.raises(FixConnectionError):
        sync([yes(1), yes(1, channel="voice"), yes(2)], of_run="first", max_connections=1)
    regal_sandbox.set_faults([])
    sync([yes(1), yes(2)], of_run="second")
    report = sync([yes(1), yes(1, channel="voice"), yes(2)], of_run="first", number=2)
    assert (report.acknowledged, report.skips, report.opt_ins_withheld) == (2, {"unchanged": 1}, 0)
    assert told(regal_sandbox)[2:] == [("u1", "voice", True)]
    assert adds_up(report)
    assert [line.status for line in ledger.consent_log()] == ["acknowledged"] * 3


def test_another_run_may_send_the_same_while_the_source_is_read(sync):
    people = [yes(1), no(2), yes(3), yes(4)]
    sync(people, task="dag.ours")

    def source():
        yield from people[:2]
        theirs = sync([no(1, 9), yes(2, 9), yes(3), no(5)], task="dag.theirs")
        assert (theirs.acknowledged, theirs.skips) == (3, {"unchanged": 1})
        yield from [*people[2:], yes(5)]

    report = sync(source, task="dag.ours", sync={"on_removed": "opt_out"})
    assert adds_up(report)
    assert (report.read, report.acknowledged, report.skipped) == (5, 0, 5)


def test_what_is_withheld_since_it_is_older_is_a_line_of_the_consent_log(sync, ledger):
    sync([no(1, 5)])
    sync([yes(1, 5)], of_run="late")
    (line,) = ledger.consent_log("late")
    assert (line.identifier, line.subscribed, line.status, line.given_at) == (
        phone(1), 1, "withheld", to_ledger_time(datetime.fromisoformat(at(5))),
    )  # fmt: skip
    assert "newer decision" in line.reason


def test_what_says_nothing_and_what_is_wrong_has_an_outcome_too(sync, regal_sandbox):
    rows = [yes(1, subscribed=None), yes(2, ip=None), yes(3, phone="555"), no(4, phone="555"), yes(5)]
    with pytest.raises(
        TooManyFailedRowsError, match="1 rejected with an opt-out or a decision that can't be read"
    ) as error:
        sync(rows, max_rejected=3)
    report = error.value.report
    assert report.opt_outs_rejected == 1
    assert kinds(report) == {"sent": 1, "no_decision": 1, "no_evidence": 1, "unreadable": 2, "opt_ins": 1}
    assert report.skips == {"no_decision": 1}
    assert (report.read, report.rejected, report.skipped, report.acknowledged) == (5, 3, 1, 1)
    assert told(regal_sandbox) == [("u5", "sms", True)]


def test_what_is_rejected_fails_the_task_and_the_dead_letters_name_the_column(sync, ledger):
    with pytest.raises(TooManyFailedRowsError, match="ip: no ip"):
        sync([yes(1, ip=None), yes(2)], of_run="r")
    assert [line.field for line in ledger.outcomes("r", status="rejected")] == ["ip"]
    assert [letter.payload["phone"] for letter in ledger.dead_letters("r")] == [phone(1)]


def test_rows_of_the_wide_form_weigh_as_many_consents_as_they_say(sync, regal_sandbox):
    wide = {"user_id": "u1", "phone": phone(1), "email": "a@example.com", "sms_opt_in": False, "email_opt_in": True}
    wide |= {"email_opt_in_at": at(5), "email_opt_in_ip": "203.0.113.7", "voice_opt_in": None}
    report = sync([wide])
    assert (report.read, report.acknowledged) == (2, 2)
    assert told(regal_sandbox) == [("u1", "sms", False), ("u1", "email", True)]
    again = sync([wide])
    assert (again.read, again.skipped, kinds(again)) == (2, 2, {"unchanged": 2})


def test_what_a_contact_says_goes_in_one_event_for_each_phase(sync, regal_sandbox):
    rows = [yes(1), yes(1, channel="voice"), yes(1, channel="email", email="a@example.com")]
    rows += [no(2), no(2, channel="voice"), yes(2, phone="+12125559999")]
    report = sync(rows)
    assert report.requests == 3
    assert (report.read, report.acknowledged) == (6, 6)
    assert told(regal_sandbox)[:2] == [("u2", "sms", False), ("u2", "voice", False)]


def test_a_contact_with_very_many_phones_goes_in_several_events(sync):
    report = sync([yes(number, user_id="the office") for number in range(120)])
    assert (report.acknowledged, report.requests) == (120, 3)


def test_a_person_without_user_id_is_not_taken_for_one_whose_user_id_reads_like_the_phone(sync, regal_sandbox):
    sync([yes(1, user_id=None), yes(1, user_id=phone(1), channel="voice")])
    assert sorted(told(regal_sandbox), key=str) == [(phone(1), "voice", True), (None, "sms", True)]


@pytest.mark.parametrize("connections", [1, 64])
def test_all_opt_outs_are_settled_before_the_first_opt_in_is_sent(sync, regal_sandbox, connections):
    regal_sandbox.set_faults(
        [{"on": {"requests": [3]}, "do": {"delay_ms": 400}}, {"on": {"requests": [7, 41]}, "do": {"status": 503}}]
    )
    rows = [yes(number) for number in range(40)] + [no(number) for number in range(100, 140)]
    sync(rows, max_connections=connections)
    said = [subscribed for _, _, subscribed in told(regal_sandbox)]
    assert said == [False] * 40 + [True] * 40
    times = {event["body"]["userId"]: event["received_at"] for event in regal_sandbox.events(stored=True)}
    assert min(times[f"u{n}"] for n in range(40)) > max(times[f"u{n}"] for n in range(100, 140))
    slow = next(event for event in regal_sandbox.events() if event["number"] == 3)
    first_opt_in = next(event for event in regal_sandbox.events() if event["body"]["userId"] == "u0")
    assert first_opt_in["number"] > 40
    assert first_opt_in["received_at"] >= slow["received_at"]


def test_the_plan_is_kept_for_the_report_of_a_later_try(sync, deliver):
    report = sync([yes(1), no(2)], of_run="r")
    assert sync([], of_run="r", number=2).status == "nothing_to_do"
    assert report.as_dict()["plan"]["opt_ins"] == 1


def test_an_opt_out_without_a_time_is_sent_once_and_again_only_against_a_newer_yes(sync, regal_sandbox, ledger):
    sync([yes(1, 5)])
    assert kinds(sync([no(1, None)])) == {"sent": 1, "opt_outs": 1}
    assert kinds(sync([no(1, None, text="other words")])) == {"unchanged": 1}
    assert ledger.consents()[phone(1), "sms"][:2] == (0, to_ledger_time(NOW))
    assert regal_sandbox.stats()["requests"] == 2


def test_an_opt_out_without_a_time_is_sent_against_a_yes_that_regal_may_have(sync, regal_sandbox, ledger):
    sync([no(1, 5)])
    in_doubt = Claim(OPT_IN, phone(1), "sms", True, to_ledger_time(NOW).replace("T02", "T01"))
    with ledger.account() as account:
        account.database.write(lambda connection: account.settle(connection, unknown=[in_doubt]))
    assert kinds(sync([no(1, None)])) == {"sent": 1, "opt_outs": 1}
    assert told(regal_sandbox)[-1] == ("u1", "sms", False)


def test_a_limit_reads_no_further_and_takes_nobody_for_removed(sync):
    sync([yes(number) for number in range(5)])
    report = sync([no(number, 6) for number in range(5)], limit=2, sync={"on_removed": "opt_out"})
    assert kinds(report) == {"sent": 2, "opt_outs": 2}


class TestTheFirstRun:
    def test_it_has_to_be_told_what_to_do(self, sync, regal_sandbox, ledger):
        with pytest.raises(FixSourceError, match=r"initial='send'.*initial='baseline'"):
            sync([yes(1), no(2)], initial=None)
        assert regal_sandbox.stats()["requests"] == 0
        assert ledger.consents() == {}, "not even a barrier"
        sync([yes(1)], initial="send")
        assert sync([yes(1)], initial=None).skipped == 1

    def test_a_baseline_records_without_sending(self, sync, regal_sandbox, ledger):
        report = sync([yes(1), no(2), yes(3, ip=None), yes(1, 4)], initial="baseline", max_rejected=1)
        assert (report.read, report.skipped, report.rejected) == (4, 3, 1)
        assert regal_sandbox.stats()["requests"] == 0
        assert {key: rest[0] for key, rest in ledger.consents().items()} == {
            (phone(1), "sms"): 1,
            (phone(2), "sms"): 0,
        }
        assert kinds(sync([yes(1), no(2)], initial="baseline")) == {"unchanged": 2}
        lines = [(line.identifier, line.subscribed, line.status, line.ip) for line in ledger.consent_log()]
        assert lines == [(phone(2), False, "recorded", IP), (phone(1), True, "recorded", IP)]
        assert {line.reason for line in ledger.consent_log()} == {"initial='baseline': Regal had it before"}

    def test_only_an_empty_ledger_is_given_a_baseline(self, sync, regal_sandbox):
        sync([yes(1)])
        assert sync([yes(1), yes(2)], initial="baseline").acknowledged == 1

    def test_a_baseline_that_breaks_is_not_there_and_the_next_try_makes_it(self, sync, deliver, ledger):
        def broken():
            yield from (yes(number) for number in range(600))
            raise ConnectionError

        with pytest.raises(ConnectionError):
            sync(broken, initial="baseline", of_run="r")
        assert ledger.consents() == {}
        report = sync([yes(number) for number in range(600)], initial="baseline", of_run="r", number=2)
        assert (report.skipped, len(ledger.consents())) == (600, 600)


class TestFullResync:
    def test_everything_is_sent_again_in_order(self, sync, regal_sandbox):
        rows = [yes(1), no(2), yes(3)]
        sync(rows)
        regal_sandbox.reset()
        report = sync(rows, sync={"full_resync": True})
        assert (report.acknowledged, kinds(report)) == (3, {"sent": 3, "opt_outs": 1, "opt_ins": 2})
        assert [subscribed for _, _, subscribed in told(regal_sandbox)] == [False, True, True]

    def test_what_is_stale_stays_withheld(self, sync, regal_sandbox):
        sync([no(1, 5)])
        assert sync([yes(1, 5)], sync={"full_resync": True}).skips == {"older": 1}


def test_an_opt_out_that_closes_all_channels_leaves_a_newer_yes_of_another_channel_as_it_is(sync, regal_sandbox):
    sync([yes(1, 9, channel="voice")])

    sync([yes(1, 9, channel="voice"), no(1, 5)], opt_out_scope="person")

    channels = regal_sandbox.contact(phone=phone(1))["phones"][phone(1)]
    assert (channels["sms"]["status"], channels["voice"]["status"]) == ("Unsubscribed", "Subscribed")


@pytest.mark.parametrize(
    "row",
    [
        {"phone": "", "sms_opt_in": "no"},
        {"phone": "n/a", "sms_opt_in": "unsubscribed"},
        {"phone": "555", "voice_opt_in": False},
        {"user_id": "u9", "sms_opt_in": False},
        {"user_id": "u9", "email": None, "email_opt_in": "no"},
        {"phone": None, "channel": "sms", "subscribed": False},
        {"phone": phone(9), "channel": "email", "subscribed": "0"},
        {"phone": phone(9), "subscribed": "no"},
        {"email": "", "email_opt_in": "perhaps"},
    ],
)
def test_an_opt_out_that_belongs_to_no_one_fails_the_task_in_every_run(sync, row):
    for run in ("first", "second"):
        with pytest.raises(TooManyFailedRowsError) as failed:
            sync([yes(1), row], of_run=run, max_rejected=1.0)
        report = failed.value.report
        assert (report.rejected, report.opt_outs_rejected, report.plan["unreadable"]) == (1, 1, 1)
        assert adds_up(report)


def test_an_opt_out_of_a_person_whose_phone_is_on_record_needs_none(sync, regal_sandbox):
    sync([yes(1)])
    regal_sandbox.reset()
    assert sync([{"user_id": "u1", "sms_opt_in": False}]).opt_outs_rejected == 0
    assert told(regal_sandbox) == [("u1", "sms", False)]


RENAMED = {
    "customer_id": "user_id", "mobile": "phone", "mail": "email", "agreed": ["sms_opt_in_at", "email_opt_in_at"],
    "address": ["sms_opt_in_ip", "email_opt_in_ip"],
}  # fmt: skip


def renamed(number, **more):
    """A row of the wide form whose columns have names of their own."""
    told = {"customer_id": f"C{number:03d}", "mobile": f"(212) 555-{number:04d}", "mail": f"U{number}@Example.com"}
    return {**told, "sms_opt_in": True, "agreed": at(5), "address": IP, **more}


def test_a_rejected_row_of_renamed_columns_names_its_person(sync, ledger):
    rows = [renamed(1, agreed=None), renamed(2, mobile="555-ABCD"), renamed(3, sms_opt_in="perhaps"), renamed(4)]
    with pytest.raises(TooManyFailedRowsError):
        sync(rows, sync={"columns": RENAMED}, of_run="r")
    assert [(line.user_id, line.phone, line.email) for line in ledger.outcomes("r", status="rejected")] == [
        ("C001", phone(1), "u1@example.com"), ("C002", None, "u2@example.com"), ("C003", phone(3), "u3@example.com"),
    ]  # fmt: skip
    assert ledger.outcomes("r", status="rejected")[0].field == "agreed"
    assert [letter.payload["mobile"] for letter in ledger.dead_letters("r")][1] == "555-ABCD", "the row as it was read"


def test_and_by_the_hash_of_it_under_a_ledger_key(sync, ledger_path):
    with pytest.raises(TooManyFailedRowsError):
        sync([renamed(1, agreed=None)], sync={"columns": RENAMED}, of_run="r", secret=b"a secret")
    (line,) = LedgerView(ledger_path, secret=b"a secret").outcomes("r")
    stored = Identifiers(b"a secret").stored
    assert (line.user_id, line.phone, line.email) == (stored("C001"), stored(phone(1)), stored("u1@example.com"))


def test_one_column_is_the_evidence_of_two_channels(sync, regal_sandbox):
    report = sync([renamed(1, email_opt_in=True)], sync={"columns": RENAMED})
    assert (report.acknowledged, told(regal_sandbox)) == (2, [("C001", "sms", True), ("C001", "email", True)])
    assert kinds(sync([renamed(1, email_opt_in=True)], sync={"columns": RENAMED})) == {"unchanged": 2}


def test_the_positions_of_a_sync_are_its_own_and_the_place_is_the_row_of_the_source(sync, ledger):
    rows = [yes(1), yes(2), yes(3, ip=None), no(4), yes(5, ip=None)]
    with pytest.raises(TooManyFailedRowsError):
        sync(rows, of_run="r")
    assert [(line.position, line.place, line.status) for line in ledger.outcomes("r")] == [
        (1, "row 3", "rejected"), (2, "row 5", "rejected"), (3, "row 4", "acknowledged"),
        (4, "row 1", "acknowledged"), (5, "row 2", "acknowledged"),
    ]  # fmt: skip
