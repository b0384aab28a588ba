"""The demo's audit of the opt-in sync: expectations are computed independently, and discrepancies are named."""

from __future__ import annotations

import pytest

from scripts.opt_ins import Newest, OptIns, Run

PHONE, OTHER = "+15015550100", "+15015550101"


def row(phone=PHONE, subscribed=1, said_at="2026-01-01T10:00:00Z", ip="203.0.113.1", channel="sms", email="A@b.com"):
    return {
        "phone": phone, "email": email, "channel": channel, "subscribed": subscribed, "said_at": said_at, "ip": ip,
    }  # fmt: skip


LATER = "2026-01-02 10:00:00"


@pytest.mark.parametrize(
    ("rows", "newest"),
    [
        ([row(), row("(501) 555-0100", "false", LATER, None)], {(PHONE, "sms"): True}),
        ([row(said_at=LATER), row(subscribed=0)], {(PHONE, "sms"): False}),
        ([row(), row(subscribed=0)], {(PHONE, "sms"): True}),
        ([row(said_at="2026-01-02T11:30:00+02:00"), row(subscribed=0, said_at="2026-01-02T09:31:00Z")],
         {(PHONE, "sms"): True}),
        ([row(said_at="2026-09-09T10:00:00Z"), row(subscribed=0, said_at=None)], {(PHONE, "sms"): True}),
        ([row(), row(channel="VOICE"), row(channel="Email")],
         {(PHONE, "sms"): False, (PHONE, "voice"): False, ("a@b.com", "email"): False}),
    ],
)  # fmt: skip
def test_the_newest_word_of_each_phone_or_email_and_channel_counts_and_a_no_wins(rows, newest):
    found = Newest.of(rows)
    assert {key: no for key, (_, no) in found.consents.items()} == newest
    assert (found.rows, found.unfit) == (len(rows), 0)


@pytest.mark.parametrize("unfit", [row(ip=None), row(said_at=None), row("+15551234567"), row(None), row("n/a", 0)])
def test_a_yes_without_evidence_and_a_word_of_nobody_do_not_count(unfit):
    assert Newest.of([unfit]).unfit == 1
    assert not Newest.of([unfit]).consents


class Regal:
    """What the audit asks of the local Regal, so that it can hold the wrong thing."""

    def __init__(self, held):
        self.held = held

    def ask(self, what):
        assert what == "contacts"
        return [
            {"user_id": f"lead-{phone}", "emails": {}, "phones": {phone: {"sms": {"status": status, "history": [1]}}}}
            for phone, status in self.held.items()
        ]


def request(phone, yes):
    return {"body": {"traits": {"phones": {phone: {"smsOptIn": {"subscribed": yes}}}}}}


def run(rows, requests, **report):
    counts = {"status": "finished", "read": len(rows), "acknowledged": len(requests), "rejected": 0, "unknown": 0}
    counts["skipped"] = len(rows) - len(requests)
    return Run(Newest.of(rows), counts | report, requests)


TABLE = [row(), row(OTHER, 0)]
FIRST = [request(OTHER, False), request(PHONE, True)]
STALE = row(OTHER, said_at="2025-01-01T10:00:00Z")
CHANGED = [*TABLE, row(PHONE, 0, LATER)]
HELD = {PHONE: "Unsubscribed", OTHER: "Unsubscribed"}


def audit(first=FIRST, then=None, held=HELD, **report):
    runs = [run(TABLE, first), run([CHANGED[0], CHANGED[2], STALE], then or [request(PHONE, False)], **report)]
    return OptIns(Regal(held), "dag", runs, stale=OTHER, opted_out=PHONE).audit()


def test_figures_that_add_up_pass():
    assert audit() == []


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"status": "stopped"}, "run 2: stopped, not finished"),
        ({"read": 7}, "run 2: 3 rows in the warehouse, 7 read"),
        ({"skipped": 9}, "settled"),
        ({"first": FIRST[::-1]}, "run 1: an opt-in arrived before an opt-out"),
        ({"first": FIRST[:1]}, "run 1: 1 opt-outs and 1 opt-ins are news, 1 and 0 arrived"),
        ({"rejected": 1, "skipped": 1}, "0 rows have no evidence or no address, 1 were rejected"),
        ({"then": [request(PHONE, False), request(OTHER, True)]}, "run 2: 1 opt-outs and 0 opt-ins are news"),
        ({"held": {**HELD, "+15015550199": "Subscribed"}}, "Regal holds 1 of 2 consents that differ"),
    ],
)
def test_figures_that_do_not_are_named(wrong, said):
    (complaint,) = audit(**wrong)
    assert said in complaint


def test_an_old_yes_that_undid_a_no_and_a_no_that_did_not_arrive_are_named():
    assert "opt-ins: an old subscription undid an opt-out" in audit(held={**HELD, OTHER: "Subscribed"})
    assert "opt-ins: an opt-out did not arrive" in audit(held={**HELD, PHONE: "Subscribed"})
