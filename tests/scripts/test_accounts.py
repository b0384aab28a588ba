"""The demo's audit reports figures that do not add up."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from scripts import accounts, warehouse

NOW = datetime(2026, 3, 2, 15, 30, tzinfo=UTC)
STATS = {"duplicates": 0, "contract_findings": {}, "worst_window_1s_all": 280, "rate_limit": 300}


class Regal:
    """What the audit asks of the local Regal, so that figures can be wrong."""

    def __init__(self, arrived):
        self.arrived = arrived

    def ask(self, what):
        assert what == "events?stored=true"
        return [{"body": {"properties": {"event_id": number}}} for number in self.arrived] + [{"body": {}}]


@pytest.fixture
def audited(tmp_path, monkeypatch):
    path = warehouse.make_warehouse(tmp_path / "w.db", NOW)
    monkeypatch.setattr(accounts, "WAREHOUSE", path)

    def audit(arrived=range(2_300), killed_after=1_200, tries=2, stats=STATS, **events):
        of = accounts.Accounts(Regal(list(arrived)), "dag", NOW, killed_after)
        count = of.in_the_warehouse()
        reports = {
            "contacts": {"status": "finished", "read": count["contacts"], "acknowledged": count["contacts"]},
            "events": {"status": "finished", "read": count["events"], "acknowledged": 2_299, "unknown": 3}
            | {"rejected": count["events"] - 2_302}
            | events,
        }
        rest = dict.fromkeys(("acknowledged", "rejected", "unknown", "skipped"), 0)
        monkeypatch.setattr(accounts.Accounts, "report", lambda self, task: rest | reports[task])
        monkeypatch.setattr(accounts.Accounts, "tries", lambda self, task: tries)
        return of.audit(stats)

    return audit


def test_figures_that_add_up_pass(audited):
    assert audited() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"status": "stopped"}, "not finished"),
        ({"read": 7}, "7 read"),
        ({"unknown": 2}, "settled"),
        ({"arrived": range(2_200)}, "2200 arrived"),
        ({"arrived": range(2_310)}, "2310 arrived"),
        ({"arrived": [*range(2_300), 5]}, "1 events arrived twice"),
        ({"stats": STATS | {"duplicates": 4}}, "4 events arrived twice"),
        ({"stats": STATS | {"contract_findings": {"phones_array": {}}}}, "phones_array"),
        ({"stats": STATS | {"worst_window_1s_all": 301}}, "301 requests in a second"),
        ({"killed_after": None}, "killed"),
        ({"tries": 1}, "killed"),
    ],
)
def test_figures_that_do_not_are_named(audited, wrong, said):
    (complaint,) = audited(**wrong)
    assert said in complaint
