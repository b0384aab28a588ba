"""Rows about people who must not be contacted: only their opt-outs are sent, on every path into a delivery."""

from __future__ import annotations

import threading
import time
from contextlib import suppress as ignoring
from datetime import datetime

import pytest

from airflow_provider_regal.errors import RegalError, TooManyFailedRowsError
from airflow_provider_regal.events import Track
from airflow_provider_regal.ledger.admin.forgetting import Forgetting
from airflow_provider_regal.ledger.people.suppressions import leave_hashes, suppress, unsuppress
from airflow_provider_regal.ledger.states import RowState
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.sources.marks import EVENT_MARK, ROW_MARK, SKIP_MARK, Marked
from tests.databases import EVERY, on
from tests.delivery.consents import IP, NOW, adds_up, at, kinds, no, phone, told, yes
from tests.ledger.view import LedgerView

OUTAGE = [{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900, "store": False}}]
REFUSED = [{"on": {"from": 1}, "do": {"status": 400}}]


@pytest.fixture
def run(deliver):
    runs = iter(range(1_000))

    def run(rows, *, call="track", of_run=None, **options):
        return deliver(rows, call=call, of_run=of_run or f"run-{next(runs)}", now=NOW, **options)

    return run


@pytest.fixture
def suppressed(ledger):
    """Suppress people."""

    def add(*people, view=ledger):
        with view.account(now=NOW) as account:
            suppress(account, people)

    return add


@pytest.fixture
def forgotten(ledger):
    """Leave hashes of people, with the times of their opt-outs of sms."""

    def add(**people):
        with ledger.account(now=NOW) as account:
            told = {key: {"sms": at} if at else {} for key, at in people.items()}
            account.database.write(lambda connection: leave_hashes(connection, account, told, by=None))

    return add


def contact(number, **more):
    return {"user_id": f"u{number}", "phone": phone(number), "email": f"a{number}@example.com", **more}


def opted_out(number, minute=5, **more):
    when = {} if minute is None else {"sms_opt_in_at": at(minute)}
    return contact(number, sms_opt_in=False, **when, **more)


def people(regal):
    return [event["body"].get("userId") for event in regal.events(stored=True)]


class TestWhoIsSuppressed:
    @pytest.mark.parametrize("call", ["identify", "track", "page", "screen"])
    @pytest.mark.parametrize("who", ["user:u1", phone(1), "a1@example.com"])
    def test_is_skipped_whichever_identifier_is_on_the_list(self, run, suppressed, regal_sandbox, call, who):
        suppressed(who)
        report = run([contact(1), contact(2)], call=call)
        assert people(regal_sandbox) == ["u2"]
        assert (report.skips, report.acknowledged, report.as_dict()["skips"]) == (
            {"suppressed": 1}, 1, {"suppressed": 1},
        )  # fmt: skip
        assert adds_up(report)
        assert "suppressed" in report.as_table()

    def test_is_found_among_all_phones_and_emails_of_a_row(self, run, suppressed, regal_sandbox):
        suppressed(phone(9), "b@example.com")
        rows = [
            Track(user_id="u1", event="Booked", phones={phone(1): {}, phone(9): {}}),
            Track(user_id="u2", event="Booked", emails={"a@example.com": {}, "b@example.com": {}}),
            Track(user_id="u3", event="Booked", phones={phone(1): {}}),
        ]
        assert run(rows).skips == {"suppressed": 2}
        assert people(regal_sandbox) == ["u3"]

    def test_is_known_by_the_phone_on_record_of_the_user_id(self, run, suppressed, regal_sandbox):
        run([contact(1)], call="identify")
        suppressed(phone(1))
        assert run([{"user_id": "u1"}]).skips == {"suppressed": 1}

    def test_only_the_opt_outs_are_sent(self, run, suppressed, regal_sandbox, ledger):
        suppressed("user:u1")
        report = run([opted_out(1, plan="gold", voice_opt_in=True, voice_opt_in_at=at(5), voice_opt_in_ip=IP)])
        (body,) = [event["body"] for event in regal_sandbox.events(stored=True)]
        assert body["traits"] == {
            "phones": {phone(1): {"smsOptIn": {"subscribed": False, "timestamp": "2026-11-23 02:05:00 +00:00"}}}
        }
        assert "name" not in body
        assert (report.skips, report.acknowledged) == ({"suppressed": 1}, 0)
        assert ledger.consents()[phone(1), "sms"][:1] == (0,)
        assert ledger.outcomes("run-0") == []

    def test_what_is_wrong_in_the_row_does_not_matter_but_a_lost_opt_out_does(self, run, suppressed, ledger):
        suppressed("user:u1", "user:u2")
        report = run([{"user_id": "u1", "phone": "12"}, opted_out(2, plan=b"x")])
        assert (report.skips, report.rejected) == ({"suppressed": 2}, 0)
        with pytest.raises(TooManyFailedRowsError, match="a decision that can't be read"):
            run([contact(1, sms_opt_in="perhaps")], of_run="lost", max_rejected=1)
        assert [line.status for line in ledger.outcomes("lost")] == ["rejected"]

    def test_a_message_stays_free_and_a_contact_new_for_the_time_after(self, run, suppressed, ledger, regal_sandbox):
        suppressed("user:u1")
        run([contact(1, message_id="m")])
        run([contact(1)], call="identify", only_changed=True)
        with ledger.account() as account:
            unsuppress(account, ["user:u1"])
        assert run([contact(1, message_id="m")]).acknowledged == 1
        assert run([contact(1)], call="identify", only_changed=True).acknowledged == 1

    def test_a_dead_letter_is_not_redelivered(self, run, redeliver, suppressed, regal_sandbox):
        regal_sandbox.set_faults(REFUSED)
        with ignoring(TooManyFailedRowsError):
            run([contact(1), contact(2)], of_run="run")
        regal_sandbox.set_faults([])
        suppressed("user:u1")
        report = redeliver()
        assert (report.skips, report.acknowledged) == ({"suppressed": 1}, 1)
        assert people(regal_sandbox) == ["u2"]

    def test_a_message_that_its_source_leaves_out_stays_so_with_its_opt_outs(self, run, suppressed, regal_sandbox):
        suppressed("user:u1")
        written = {"user_id": "u1", "phones": {phone(1): {"smsOptIn": False}}}
        report = run([Marked({SKIP_MARK: "not_included", EVENT_MARK: "identify", ROW_MARK: written})])
        assert report.skips == {"not_included": 1}
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_owed_opt_outs_are_sent_and_count_as_such(self, run, suppressed, regal_sandbox):
        regal_sandbox.set_faults(OUTAGE)
        with ignoring(RegalError):
            run([opted_out(1)], call="identify", outage_patience=0.1)
        regal_sandbox.set_faults([])
        suppressed(phone(1))
        report = run([contact(2)], call="identify")
        assert (report.owed_sent, report.opt_outs_owed, report.skips) == (1, 0, {})

    def test_a_dry_run_says_so(self, run, suppressed):
        suppressed("user:u1")
        report = run([contact(1), opted_out(1), contact(2)], call="identify", dry_run=True)
        assert report.skips == {"suppressed": 2, "dry_run": 1}

    def test_a_row_that_may_have_been_sent_before_is_unknown(self, run, suppressed, ledger, regal_sandbox):
        regal_sandbox.set_faults(OUTAGE)
        with ignoring(RegalError):
            run([contact(1)], of_run="r", outage_patience=0.1)
        regal_sandbox.set_faults([])
        ledger.change("UPDATE regal_row_chunks SET states = :states", states=b"\1")
        suppressed("user:u1")
        report = run([contact(1)], of_run="r", number=2)
        assert (report.unknown, report.skipped) == (1, 0)


class TestASync:
    def test_sends_the_opt_outs_and_leaves_the_opt_ins_out(self, sync, suppressed, regal_sandbox):
        suppressed("user:u1", phone(2), "a3@example.com")
        rows = [yes(1), yes(1, channel="voice"), no(2), yes(3, email="a3@example.com"), yes(4)]
        report = sync(rows)
        assert told(regal_sandbox) == [("u2", "sms", False), ("u4", "sms", True)]
        assert (report.skips, report.acknowledged, report.read) == ({"suppressed": 3}, 2, 5)
        assert kinds(report) == {"sent": 2, "suppressed": 3, "opt_outs": 1, "opt_ins": 1}
        assert "suppressed" in report.plan_as_table()
        assert sync(rows).skips == {"suppressed": 3, "unchanged": 2}

    def test_takes_nobody_who_is_suppressed_for_gone(self, sync, suppressed, regal_sandbox):
        sync([yes(1), yes(2)])
        suppressed("user:u1")
        report = sync([yes(1, 6), yes(2)], sync={"on_removed": "opt_out"})
        assert (report.plan["removed"], report.skips) == (0, {"suppressed": 1, "unchanged": 1})

    def test_leaves_an_event_that_means_an_opt_in_out(self, sync, suppressed, regal_sandbox):
        suppressed("user:u1")
        report = sync([yes(1), yes(2)], sync={"as_event": "Consent Given"}, max_event_age=None)
        assert (report.skips, told(regal_sandbox)) == ({"suppressed": 1}, [("u2", "sms", "Consent Given")])

    def test_records_what_regal_has_whoever_is_suppressed(self, sync, suppressed, ledger, regal_sandbox):
        suppressed("user:u1")
        report = sync([yes(1), no(2)], sync={"known_to_regal": True}, initial=None)
        assert ledger.consents()[phone(1), "sms"][0] == 1
        assert "suppressed" not in report.skips

    def test_leaves_out_what_was_suppressed_while_it_ran(self, sync, suppressed, regal_sandbox):
        def rows():
            yield from [yes(1), yes(2)]
            suppressed("user:u1")

        report = sync(rows)
        assert (report.skips, told(regal_sandbox)) == ({"suppressed": 1}, [("u2", "sms", True)])


class TestWhoWasForgotten:
    def test_is_skipped_and_nothing_of_the_row_is_recorded(self, run, forgotten, ledger, regal_sandbox):
        forgotten(**{"user:u1": None, phone(3): None})
        rows = [
            contact(1, message_id="m"), contact(1, phone="12"), contact(3, plan=b"x"), contact(2, phone=phone(3)),
            contact(4),
        ]  # fmt: skip
        regal_sandbox.set_faults(OUTAGE)
        with ignoring(RegalError):
            run(rows, of_run="r", outage_patience=0.1)
        assert [number for number, _ in ledger.rows("r")] == [5], "not even in the snapshot"
        regal_sandbox.set_faults([])
        report = run(rows, of_run="r", number=2)
        assert (report.skips, report.acknowledged, report.read) == ({"suppressed": 4}, 1, 5)
        assert people(regal_sandbox) == ["u4"]
        assert [line.position for line in ledger.outcomes("r")] == [5]
        assert ledger.messages() == {}

    def test_an_opt_out_that_was_known_is_neither_sent_nor_recorded(self, run, forgotten, ledger, regal_sandbox):
        forgotten(**{"user:u1": None, phone(1): to_ledger_time(NOW)})
        report = run([opted_out(1, 5), opted_out(1, None), opted_out(1, 5, plan=b"x")], call="identify")
        assert (report.skips, regal_sandbox.stats()["requests"]) == ({"suppressed": 3}, 0)
        assert ledger.consents() == {}
        assert ledger.outcomes("run-0") == []

    def test_one_that_is_news_is_sent_alone(self, run, forgotten, ledger, regal_sandbox):
        forgotten(**{"user:u1": None, phone(1): at_ledger(5)})
        report = run([opted_out(1, 6, plan="gold")], call="identify")
        assert told(regal_sandbox) == [(None, "sms", False)]
        assert report.skips == {"suppressed": 1}
        assert ledger.consents()[phone(1), "sms"][0] == 0

    def test_so_it_is_with_a_sync(self, sync, forgotten, ledger, regal_sandbox):
        forgotten(**{phone(1): at_ledger(5), phone(2): at_ledger(5), phone(3): None})
        rows = [no(1, 5), no(1, None), yes(1, 9), no(2, 6), yes(3, 9), yes(3, channel="perhaps")]
        report = sync(rows)
        assert told(regal_sandbox) == [("u2", "sms", False)]
        assert report.skips == {"suppressed": 5}
        assert {key for key, _ in ledger.consents()} == {phone(2)}
        assert sync([yes(3, 9)], sync={"known_to_regal": True}, initial=None).skips == {"suppressed": 1}


class TestRowsErasedFromASnapshot:
    """A person is forgotten between two tries of a delivery."""

    @pytest.fixture
    def forget(self, ledger):
        def forget(*given):
            with ledger.account() as account:
                person = Forgetting(account, given)
                person.suppress()
                person.erase()

        return forget

    @pytest.fixture
    def stopped(self, run, regal_sandbox):
        def stopped(rows, faults=OUTAGE, **options):
            regal_sandbox.set_faults(faults)
            with ignoring(RegalError):
                run(rows, of_run="r", outage_patience=0.1, **options)
            regal_sandbox.set_faults([])

        return stopped

    def test_are_skipped_by_the_next_try(self, run, stopped, forget, regal_sandbox, ledger):
        stopped([contact(1), contact(2), contact(1, n=2)])
        forget("user:u1")
        report = run([], of_run="r", number=2)
        assert (report.skips, report.acknowledged, report.read) == ({"suppressed": 2}, 1, 3)
        assert people(regal_sandbox) == ["u2"]
        assert [line.position for line in ledger.outcomes("r")] == [2]

    def test_stand_for_as_many_consents_as_they_did(self, sync, forget, regal_sandbox):
        regal_sandbox.set_faults(OUTAGE)
        with ignoring(RegalError):
            sync([yes(1), yes(1, channel="voice"), yes(2)], of_run="s", outage_patience=0.1)
        regal_sandbox.set_faults([])
        forget("user:u1", phone(1))
        report = sync([], of_run="s", number=2)
        assert (report.skips, report.acknowledged, report.read) == ({"suppressed": 2}, 1, 3)

    def test_are_unknown_without_their_payload_where_they_may_have_been_sent(self, run, stopped, forget, ledger):
        stopped([contact(1), contact(2)])
        ledger.change("UPDATE regal_row_chunks SET states = :states", states=bytes([RowState.RESERVED, RowState.OPEN]))
        forget("user:u1")
        report = run([], of_run="r", number=2)
        assert (report.unknown, report.acknowledged) == (1, 1)
        (line, _) = ledger.outcomes("r")
        assert (line.reason, line.user_id, line.payload) == ("worker died", None, None)

    def test_are_skipped_when_a_failed_delivery_tries_its_rejected_rows_again(self, run, stopped, forget, ledger):
        stopped([contact(1), contact(2)], REFUSED)
        forget("user:u1")
        assert [line.user_id for line in ledger.outcomes("r")] == [None, "u2"]
        report = run([], of_run="r", number=2, epoch=1)
        assert (report.skips, report.acknowledged, report.read) == ({"suppressed": 1}, 1, 2)
        assert adds_up(report)


def at_ledger(minute):
    return to_ledger_time(datetime.fromisoformat(at(minute)))


class TestNamedEventsToWhoOptedOut:
    """Of all channels on record of the person's phones, emails and user id."""

    @pytest.fixture
    def track(self, run, regal_sandbox):
        def track(*rows, **options):
            before = len(people(regal_sandbox))
            report = run(list(rows), suppress_named_events=True, **options)
            assert adds_up(report)
            return report.skips, sorted(people(regal_sandbox)[before:], key=str)

        return track

    def test_are_skipped(self, run, track):
        run([opted_out(1), contact(2), opted_out(3)], call="identify")
        assert track(contact(1), contact(2), {"user_id": "u3"}) == ({"suppressed": 2}, ["u2"])

    @pytest.mark.parametrize("call", ["page", "screen"])
    def test_so_are_pages_and_screens(self, run, track, call):
        run([opted_out(1)], call="identify")
        assert track(contact(1), call=call) == ({"suppressed": 1}, [])

    def test_are_sent_without_the_option(self, run, regal_sandbox):
        run([opted_out(1)], call="identify")
        assert run([contact(1)]).acknowledged == 1

    def test_are_sent_to_who_agreed_on_any_channel(self, run, track, sync):
        sync([no(1), yes(1, channel="voice"), no(2), yes(2, 6, phone="+12125550777")])
        run([{"user_id": "u2", "phone": "+12125550777"}], call="identify")
        assert track(contact(1), contact(2, phone="+12125550777"), contact(3)) == ({}, ["u1", "u2", "u3"])

    def test_the_newest_decision_counts_whether_regal_has_it_or_not(self, run, track, sync, regal_sandbox):
        sync([yes(1, 5), no(2, 5)])
        regal_sandbox.set_faults(OUTAGE)
        with ignoring(RegalError):
            run([opted_out(1, 6)], call="identify", outage_patience=0.1)
        regal_sandbox.set_faults([])
        sync([yes(2, 6)])
        assert track(contact(1), contact(2)) == ({"suppressed": 1}, ["u2"])

    def test_an_opt_out_in_the_event_itself_is_sent_and_holds_the_event(self, track, regal_sandbox):
        assert track(opted_out(1)) == ({"suppressed": 1}, [None])
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_an_event_that_opts_in_is_sent(self, run, track):
        run([opted_out(1, 5)], call="identify")
        opts_in = contact(1, sms_opt_in=True, sms_opt_in_at=at(6), sms_opt_in_ip=IP)
        assert track(opts_in) == ({}, ["u1"])

    @pytest.mark.parametrize("minute", [4, 5])
    def test_an_opt_in_that_is_not_newer_than_the_opt_out_does_not_count(self, run, track, minute):
        run([opted_out(1, 5)], call="identify")
        opts_in = contact(1, sms_opt_in=True, sms_opt_in_at=at(minute), sms_opt_in_ip=IP)
        assert track(opts_in) == ({"suppressed": 1}, [])

    def test_an_opt_in_that_another_row_withholds_does_not_count(self, run, track):
        run([opted_out(1, 5)], call="identify")
        opts_in = contact(1, sms_opt_in=True, sms_opt_in_at=at(6), sms_opt_in_ip=IP)
        with pytest.raises(TooManyFailedRowsError) as failed:
            track(opts_in, contact(1, sms_opt_in="perhaps", sms_opt_in_at=at(7)))
        assert (failed.value.report.skips, failed.value.report.rejected) == ({"suppressed": 1}, 1)

    def test_dead_letters_are_held_back_too(self, run, redeliver, regal_sandbox):
        regal_sandbox.set_faults(REFUSED)
        with ignoring(TooManyFailedRowsError):
            run([contact(1)], of_run="run")
        regal_sandbox.set_faults([])
        run([opted_out(1)], call="identify")
        assert redeliver(suppress_named_events=True).skips == {"suppressed": 1}

    @on(EVERY)
    @pytest.mark.parametrize("secret", [None, b"pepper"])
    def test_on_every_database(self, run, database_url, secret):
        run([opted_out(1), contact(2)], call="identify", path=database_url, secret=secret)
        report = run([{"user_id": "u1"}, contact(1), contact(2)], suppress_named_events=True, path=database_url,
                     secret=secret)  # fmt: skip
        assert report.skips == {"suppressed": 2}


@on(EVERY)
@pytest.mark.parametrize("secret", [None, b"pepper"])
def test_on_every_database(run, suppressed, database_url, secret, regal_sandbox):
    suppressed("user:u1", phone(2), view=LedgerView(database_url, secret=secret))
    report = run([contact(1), opted_out(2), contact(3)], call="identify", path=database_url, secret=secret)
    assert (report.skips, report.acknowledged) == ({"suppressed": 2}, 1)
    assert told(regal_sandbox) == [(None, "sms", False)]


@pytest.mark.slow
def test_who_is_suppressed_while_a_delivery_runs_is_skipped_from_then_on(run, suppressed, regal_sandbox):
    report = []
    running = threading.Thread(
        target=lambda: report.append(run([contact(number) for number in range(400)], rate=100)), daemon=True
    )
    running.start()
    while regal_sandbox.stats()["requests"] < 5:
        time.sleep(0.01)
    suppressed("user:u399")
    running.join(timeout=30)
    assert report[0].skips == {"suppressed": 1}
    assert "u399" not in people(regal_sandbox)
