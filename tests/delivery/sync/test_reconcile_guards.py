"""What a sync refuses to send, how it treats people who vanished, and its dry run."""

from __future__ import annotations

from typing import ClassVar

import pytest

from airflow_provider_regal.errors import FixSourceError, RetryLaterError
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.delivery.consents import IP, NOW, adds_up, at, kinds, no, phone, told, yes
from tests.delivery.sync.syncing import run_sync


def many(count, make=yes, *args):
    return [make(number, *args) for number in range(count)]


class TestTooManyFlips:
    def test_more_than_the_share_is_refused_but_for_the_opt_outs_that_were_stated(self, sync, regal_sandbox, ledger):
        sync(many(100))
        regal_sandbox.reset()
        turned = many(51, no, 6) + [yes(number, 6) for number in range(100, 110)]
        with pytest.raises(FixSourceError, match=r"51 of 100 known .* \(51 to no\).* opt-outs were sent \(51\)"):
            sync(turned, of_run="turned")
        assert sorted(told(regal_sandbox)) == sorted((f"u{number}", "sms", False) for number in range(51))
        assert {row[0] for row in list(ledger.consents().values())[:51]} == {0}
        assert phone(100) not in {key for key, _ in ledger.consents()}, "no opt-in was sent"
        assert ledger.delivery("turned").state == "failed"

    def test_those_who_would_flip_are_listed_by_row_and_the_people_in_the_outcomes(self, sync, ledger, caplog):
        sync(many(20, no, 5) + many(40)[20:])
        rows = many(20, yes, 6)
        with pytest.raises(FixSourceError, match=r"21 of 40 .* \(1 to no, 20 to yes\).*airflow regal outcomes 2"):
            sync([*rows, no(30, 6)], of_run="flips", sync={"max_change_ratio": 0.4})
        assert "Flips from no to yes; not sent: rows 1, 2, 3, 4," in caplog.text
        assert "Flips from yes to no; these are sent: rows 21 of the source" in caplog.text
        assert phone(1) not in caplog.text
        listed = ledger.outcomes("flips", status="rejected")
        assert {line.phone for line in listed} == {phone(number) for number in (*range(20), 30)}
        assert {line.field for line in listed} == {"max_change_ratio"}
        assert {line.place for line in listed} == {f"row {number}" for number in range(1, 22)}

    def test_the_opt_outs_a_guard_lets_through_bar_and_the_next_run_goes_on(self, sync, regal_sandbox):
        sync(many(100))
        turned = many(51, no, 6)
        with pytest.raises(FixSourceError):
            sync(turned)
        assert sync(many(51, yes, 5) + many(100)[51:]).skips == {"older": 51, "unchanged": 49}
        assert sync(turned + many(100)[51:]).skips == {"unchanged": 100}

    def test_the_share_is_of_all_that_is_known_however_it_was_compared(self, sync):
        sync(many(100))
        rewritten = [*many(51, no, 6), *(yes(number, text="new") for number in range(51, 100))]
        with pytest.raises(FixSourceError, match="51 of 100"):
            sync(rewritten)

    def test_so_it_is_with_a_full_resync(self, sync):
        sync(many(100))
        rewritten = [*many(51, no, 6), *(yes(number, text="new") for number in range(51, 100))]
        with pytest.raises(FixSourceError, match="51 of 100"):
            sync(rewritten, sync={"full_resync": True})

    def test_known_is_all_that_the_account_knows_not_what_this_source_says(self, sync):
        """A table of the day's changes is all flips."""
        sync(many(100), task="dag.everybody")
        assert sync(many(40, no, 6), task="dag.changes").acknowledged == 40
        with pytest.raises(FixSourceError, match="60 of 100"):
            sync(many(60, yes, 7)[:40] + many(60, no, 7)[40:], task="dag.changes")

    def test_none_is_no_limit_and_a_handful_is_always_allowed(self, sync):
        sync(many(20))
        assert sync(many(10, no, 6) + many(20)[10:]).acknowledged == 10
        assert sync(many(20, yes, 7), sync={"max_change_ratio": None}).acknowledged == 20
        assert sync(many(20, no, 8), sync={"max_change_ratio": 1.0}).acknowledged == 20

    def test_new_consents_are_no_flips(self, sync):
        sync(many(5))
        assert sync(many(100), sync={"max_change_ratio": 0.0}).acknowledged == 95


class TestTheVanished:
    def test_they_are_reported(self, sync, regal_sandbox):
        sync([yes(1), yes(2), no(3)])
        assert kinds(sync([yes(1)])) == {"unchanged": 1, "removed": 1}
        assert regal_sandbox.stats()["requests"] == 3

    def test_they_are_opted_out_where_that_is_wanted(self, sync, regal_sandbox, ledger):
        sync([yes(1), yes(2), no(3)])
        report = sync([yes(1)], sync={"on_removed": "opt_out"})
        assert adds_up(report)
        assert told(regal_sandbox)[-1] == (None, "sms", False)
        assert regal_sandbox.contact(phone=phone(2))["phones"][phone(2)]["sms"]["status"] == "Unsubscribed"
        assert ledger.consents()[phone(2), "sms"][0] == 0
        assert kinds(sync([yes(1)], sync={"on_removed": "opt_out"})) == {"unchanged": 1}

    GONE: ClassVar = {"on_removed": "opt_out"}

    def status(self, regal, number=2):
        return regal.contact(phone=phone(number))["phones"][phone(number)]["sms"]["status"]

    def test_somebody_who_comes_back_on_the_old_evidence_is_opted_in_again(self, sync, regal_sandbox, ledger):
        """They were missing by mistake: no one has said no."""
        sync([yes(1), yes(2)])
        sync([yes(1)], sync=self.GONE)
        report = sync([yes(1), yes(2)], sync=self.GONE)
        assert kinds(report) == {"unchanged": 1, "sent": 1, "opt_ins": 1}
        assert self.status(regal_sandbox) == "Subscribed"
        assert ledger.consents()[phone(2), "sms"][0] == 1
        assert kinds(sync([yes(1), yes(2)], sync=self.GONE)) == {"unchanged": 2}

    def test_not_by_another_source_with_the_same_old_evidence(self, sync, deliver, regal_sandbox):
        sync([yes(1), yes(2)])
        sync([yes(1)], sync=self.GONE)
        assert sync([yes(2)], task="dag.another").skips == {"older": 1}
        contact = {"user_id": "u2", "phone": phone(2), "sms_opt_in": True, "sms_opt_in_at": at(5), "sms_opt_in_ip": IP}
        assert deliver([contact], call="identify", of_run="c", now=NOW, task="dag.contacts").opt_ins_withheld == 1
        assert self.status(regal_sandbox) == "Unsubscribed"

    def test_not_where_an_opt_out_was_stated_since(self, sync, regal_sandbox):
        sync([yes(1), yes(2)])
        sync([yes(1)], sync=self.GONE)
        sync([no(2, 8)], task="dag.unsubscribes")
        assert sync([yes(1), yes(2)], sync=self.GONE).skips == {"unchanged": 1, "older": 1}
        assert self.status(regal_sandbox) == "Unsubscribed"

    @pytest.mark.parametrize("stored", [True, False])
    def test_where_nobody_knows_whether_regal_has_the_opt_out_they_are_opted_in_again(
        self, sync, regal_sandbox, stored
    ):
        sync([yes(1), yes(2)])
        regal_sandbox.set_faults([{"on": {"from": 3}, "do": {"status": 500, "store": stored}}])
        sync([yes(1)], sync=self.GONE, guarantee="at_most_once")
        regal_sandbox.set_faults([])
        assert sync([yes(1), yes(2)], sync=self.GONE).acknowledged == 1
        assert self.status(regal_sandbox) == "Subscribed"
        assert kinds(sync([yes(1), yes(2)], sync=self.GONE)) == {"unchanged": 2}

    def test_where_the_opt_in_of_those_who_are_back_is_lost_the_next_run_sends_it(self, sync, regal_sandbox):
        sync([yes(1), yes(2)])
        sync([yes(1)], sync=self.GONE)
        regal_sandbox.set_faults([{"on": {"from": 4}, "do": {"status": 500, "store": False}}])
        sync([yes(1), yes(2)], sync=self.GONE, guarantee="at_most_once")
        regal_sandbox.set_faults([])
        assert sync([yes(1), yes(2)], sync=self.GONE).acknowledged == 1
        assert self.status(regal_sandbox) == "Subscribed"

    def test_what_was_inferred_is_not_owed_and_logged_as_what_it_is(self, sync, regal_sandbox, ledger):
        sync([yes(1), yes(2)])
        regal_sandbox.set_faults([{"on": {"from": 3}, "do": {"status": 500, "store": False}}])
        assert sync([yes(1)], sync=self.GONE, guarantee="at_most_once").opt_outs_owed == 0
        regal_sandbox.set_faults([])
        sync([yes(1)], sync=self.GONE)
        lines = [line for line in ledger.consent_log() if not line.subscribed]
        assert [(line.given_at, line.status) for line in lines] == [(None, "unknown"), (None, "acknowledged")]
        assert lines[1].reason == "no longer in the source of the sync"

    def test_too_many_of_them_are_refused(self, sync, regal_sandbox, ledger):
        sync(many(40))
        with pytest.raises(FixSourceError, match=r"30 of 40 .*\(30 no longer in the source\)"):
            sync([*many(10), no(50)], sync=self.GONE, of_run="gone")
        assert told(regal_sandbox)[40:] == [("u50", "sms", False)], "an opt-out that was stated is"
        listed = ledger.outcomes("gone", status="rejected")
        assert {line.phone for line in listed} == {phone(number) for number in range(10, 40)}
        assert {line.place for line in listed} == {"not in the source"}

    def test_somebody_whose_row_is_wrong_has_not_vanished(self, sync, regal_sandbox):
        sync([yes(1), yes(2)])
        wrong = yes(2, 6, ip=None)
        report = sync([yes(1), wrong], sync={"on_removed": "opt_out"}, max_rejected=1)
        assert kinds(report) == {"unchanged": 1, "no_evidence": 1}
        assert regal_sandbox.stats()["requests"] == 2

    def test_consents_of_another_sync_are_not_taken_for_vanished(self, sync, ledger):
        there = Claim(OPT_IN, phone(9), "sms", True, to_ledger_time(NOW))
        with ledger.account(source="dag.other task") as other:
            other.database.write(lambda connection: other.settle(connection, acknowledged=[there]))
        assert "removed" not in kinds(sync([yes(1)], sync={"on_removed": "opt_out"}))

    def test_their_identifiers_must_be_in_the_ledger(self, deliver_with_secret):
        deliver_with_secret([yes(1)], initial="send")
        with pytest.raises(FixSourceError, match="with \\[regal\\] ledger_key the ledger holds only hashes"):
            deliver_with_secret([yes(1)], on_removed="opt_out")


def test_of_too_few_consents_the_opt_outs_are_sent(sync, regal_sandbox, ledger):
    with pytest.raises(FixSourceError, match=r"has 2 consents, fewer than min_rows=3.*opt-outs were sent \(1\)"):
        sync([no(1), yes(2)], min_rows=3)
    assert told(regal_sandbox) == [("u1", "sms", False)]
    assert sync([no(1), no(2), yes(3, subscribed=None)], min_rows=3).skips == {"unchanged": 1, "no_decision": 1}


def test_without_an_opt_out_nothing_is(sync, regal_sandbox, ledger):
    with pytest.raises(FixSourceError, match=r"fewer than min_rows=3.*Nothing was sent\.$"):
        sync([yes(1), yes(2)], min_rows=3)
    assert regal_sandbox.stats()["requests"] == 0
    assert ledger.consents() == {}


def test_a_retry_of_what_a_guard_stopped_fails_likewise(sync, regal_sandbox):
    sync(many(100))
    regal_sandbox.set_faults([{"on": {"from": 111}, "do": {"status": 503, "retry_after": 900, "store": False}}])
    with pytest.raises(RetryLaterError):
        sync(many(51, no, 6), of_run="r", outage_patience=0.1)
    regal_sandbox.set_faults([])
    with pytest.raises(FixSourceError, match=r"51 of 100 .* Only opt-outs were sent \(51\)"):
        sync(many(51, no, 6), of_run="r", number=2)
    assert len(told(regal_sandbox)) == 151


@pytest.mark.parametrize("plain", [True, False], ids=["contacts", "sync"])
def test_the_opt_outs_of_a_source_that_breaks_off_were_read(sync, deliver, ledger, plain):
    def breaks_off():
        yield {"phone": phone(1), "sms_opt_in": False, "sms_opt_in_at": at(6)} if plain else no(1, 6)
        raise ConnectionError("the warehouse is away")

    with pytest.raises(ConnectionError):
        deliver(breaks_off, call="identify", now=NOW) if plain else sync(breaks_off)
    assert ledger.consents()[phone(1), "sms"][2] is not None


class TestADryRun:
    @pytest.fixture
    def dry(self, sync, caplog):
        def run(rows, initial=None, **options):
            with caplog.at_level("INFO", "airflow_provider_regal"):
                report = sync(rows, initial=initial, dry_run=True, **options)
            return report, caplog.text

        return run

    def test_it_shows_the_plan_and_commits_nothing_at_all(self, dry, sync, ledger, regal_sandbox):
        sync([yes(1), yes(2)])
        before = ledger.consents()
        report, log = dry([no(1, 6), yes(2), yes(3), no(4, 7)])
        assert kinds(report) == {"sent": 3, "unchanged": 1, "opt_outs": 2, "opt_ins": 1}
        assert report.skips == {"dry_run": 3, "unchanged": 1}
        assert ledger.consents() == before
        assert regal_sandbox.stats()["requests"] == 2
        assert "2 opt-outs first, then 1 opt-in" in log
        assert phone(1) not in log
        assert sync([yes(4, 6)]).acknowledged == 1, "the opt-out was not even barred"

    def test_a_baseline_is_not_made(self, dry, ledger):
        report, _ = dry([yes(1), no(2)], initial="baseline")
        assert report.skipped == 2
        assert ledger.consents() == {}

    def test_it_refuses_what_the_sync_would_refuse(self, dry):
        with pytest.raises(FixSourceError, match="initial="):
            dry([yes(1)])


@pytest.fixture
def deliver_with_secret(tmp_path, regal_sandbox):
    runs = iter(range(100))

    def run(rows, **options):
        return run_sync(
            rows, regal_sandbox, f"secret-{next(runs)}", tmp_path / "secret.db", secret=b"pepper", **options
        )

    return run
