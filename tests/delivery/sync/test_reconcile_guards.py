"""What a sync refuses to send, what it does about those who vanished, and a dry run of it."""

from __future__ import annotations

import pytest

from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.preview import preview
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.delivery.consents import NOW, adds_up, kinds, no, phone, told, yes
from tests.delivery.sync.syncing import run_sync


def many(count, make=yes, *args):
    return [make(number, *args) for number in range(count)]


class TestTooManyFlips:
    def test_more_than_the_share_is_refused_before_anything_is_committed(self, sync, regal_sandbox, ledger):
        sync(many(100))
        regal_sandbox.reset()
        before = ledger.consents()
        broken = many(51, no, 6) + many(100)[51:]
        with pytest.raises(FixSourceError, match="51 of 100 known consents would flip, more than max_change_ratio"):
            sync(broken)
        assert ledger.consents() == before
        assert regal_sandbox.stats()["requests"] == 0
        assert sync(broken[1:], of_run="fewer").acknowledged == 50

    def test_the_share_is_of_all_that_is_known_however_it_was_compared(self, sync):
        sync(many(100))
        rewritten = [*many(51, no, 6), *(yes(number, text="new") for number in range(51, 100))]
        with pytest.raises(FixSourceError, match="51 of 100"):
            sync(rewritten)
        with pytest.raises(FixSourceError, match="51 of 100"):
            sync(rewritten, sync={"full_resync": True})

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

    def test_somebody_who_comes_back_on_the_old_evidence_stays_opted_out(self, sync, regal_sandbox):
        sync([yes(1), yes(2)])
        sync([yes(1)], sync={"on_removed": "opt_out"})
        assert sync([yes(1), yes(2)]).skips == {"unchanged": 1, "older": 1}

    def test_too_many_of_them_are_refused(self, sync):
        sync(many(40))
        with pytest.raises(FixSourceError, match="30 of 40 known consents would flip"):
            sync(many(10), sync={"on_removed": "opt_out"})

    def test_somebody_whose_row_is_wrong_has_not_vanished(self, sync, regal_sandbox):
        sync([yes(1), yes(2)])
        wrong = yes(2, 6, ip=None)
        report = sync([yes(1), wrong], sync={"on_removed": "opt_out"}, max_rejected=1)
        assert kinds(report) == {"unchanged": 1, "rejected": 1}
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


def test_too_few_consents_are_refused_before_anything_is_committed(sync, regal_sandbox, ledger):
    with pytest.raises(FixSourceError, match="has 2 consents, fewer than min_rows=3"):
        sync([no(1), no(2)], min_rows=3)
    assert ledger.consents() == {}
    assert sync([no(1), no(2), yes(3, subscribed=None)], min_rows=3).acknowledged == 2


class TestADryRun:
    @pytest.fixture
    def dry(self, ledger):
        def run(rows, **options):
            lines = []
            with ledger.account() as account:
                report = preview(
                    lambda held: rows,
                    DeliverySettings.of(call="identify", sync=SyncSettings(**options)),
                    target=Target("regal_test", "http://127.0.0.1:9", "sandbox-key"),
                    account=account,
                    stop=Stop(),
                    log=lambda text, *told: lines.append(text % told),
                )
            return report, "\n".join(lines)

        return run

    def test_it_shows_the_plan_and_commits_nothing_at_all(self, dry, sync, ledger, regal_sandbox):
        sync([yes(1), yes(2)])
        before = ledger.consents()
        report, log = dry([no(1, 6), yes(2), yes(3), no(4, 7)])
        assert kinds(report) == {"new": 2, "changed": 1, "unchanged": 1, "opt_outs": 2, "opt_ins": 1}
        assert report.skips == {"dry_run": 3, "unchanged": 1}
        assert ledger.consents() == before
        assert regal_sandbox.stats()["requests"] == 2
        assert "opt_outs" in log
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
