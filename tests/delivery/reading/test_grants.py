"""What may be done with a row after the ledger was asked: as one table, and for all possible verdicts."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest

from airflow_provider_regal.delivery.reading.grants import OLDER, grant
from airflow_provider_regal.delivery.reading.prepared import Claimed, Ready
from airflow_provider_regal.events import Consent, Payload
from airflow_provider_regal.ledger.rules import OPT_IN, TRACK, Claim
from airflow_provider_regal.ledger.states import Skip
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.ledger.accounts import BLOCKED, BUSY, DUPLICATE, GO, STALE

WHEN = datetime(2026, 11, 23, tzinfo=UTC)
PHONE = "+12125550100"
KEYS = {"sms": "smsOptIn", "voice": "voiceOptIn"}


def row(*decisions, call="identify", message=False, only_consent=False):
    """:param decisions: channel and whether it subscribes."""
    consents = [Consent(PHONE, channel, subscribed, WHEN, "phones[0]") for channel, subscribed in decisions]
    info = {KEYS[one.channel]: {"subscribed": one.subscribed} for one in consents}
    body = {"userId": "u", "traits": {"phones": {PHONE: info}}}
    ready = Ready(
        0, Payload(call, body, consents=tuple(consents)), "at_most_once", ("user:u", PHONE), only_consent=only_consent
    )
    at = to_ledger_time(WHEN)
    ready.claims = tuple(
        Claimed(Claim(OPT_IN, PHONE, one.channel, one.subscribed, at, once=True), one) for one in consents
    )
    if message:
        ready.claims = (*ready.claims, Claimed(Claim(TRACK, "m", once=True)))
    ready.key = "u"
    return ready


YES, NO = ("sms", True), ("sms", False)
VOICE = ("voice", True)


@pytest.mark.parametrize(
    ("ready", "verdicts", "expected"),
    [
        (row(), [], "goes"),
        (row(YES), [GO], "goes"),
        (row(YES, VOICE), [GO, STALE], "goes without voice: older"),
        (row(YES, VOICE), [STALE, STALE], "goes without sms, voice: older"),
        (row(YES, only_consent=True), [STALE], "skipped: older"),
        (row(YES, VOICE, only_consent=True), [GO, STALE], "goes without voice: older"),
        (row(YES), [BUSY], "busy"),
        (row(YES, VOICE), [GO, BUSY], "busy"),
        (row(YES), [BLOCKED], "skipped: duplicate"),
        (row(NO, VOICE), [GO, BLOCKED], "goes without voice: in doubt"),
        (row(("voice", False), YES), [GO, BLOCKED], "goes without sms: in doubt"),
        (row(NO, VOICE, call="track"), [GO, BLOCKED], "goes, only the opt-outs"),
        (row(NO, VOICE, call="track", message=True), [GO, GO, DUPLICATE], "goes, only the opt-outs"),
        (row(NO, call="track", message=True), [STALE, DUPLICATE], "skipped: duplicate"),
        (row(NO, call="track", message=True), [BUSY, DUPLICATE], "busy"),
        (row(call="track", message=True), [GO], "goes"),
        (row(call="track", message=True), [DUPLICATE], "skipped: duplicate"),
        (row(call="track", message=True), [BLOCKED], "skipped: duplicate"),
        (row(YES, call="track", message=True), [BUSY, DUPLICATE], "skipped: duplicate"),
        (row(YES, call="track", message=True), [STALE, GO], "goes without sms: older"),
    ],
    ids=lambda told: str(told) if isinstance(told, str) else "",
)
def test_the_table(ready, verdicts, expected):
    one = grant(ready, verdicts)
    told = "goes" if one.go else "busy" if one.busy else f"skipped: {one.skip}"
    if one.instead_of is not None:
        told += ", only the opt-outs"
    if one.go and one.withheld:
        channels = ", ".join(consent.channel for consent in one.withheld)
        (why,) = {reason.partition(":")[0] for reason in one.withheld.values()}
        told += f" without {channels}: {why}"
    assert told == expected


def test_whatever_the_ledger_answers_nothing_goes_that_it_did_not_let():
    kinds = [
        (decisions, call, message, only)
        for decisions in ([], [YES], [NO], [YES, VOICE], [NO, VOICE])
        for call, message, only in (("identify", False, False), ("identify", False, True), ("track", True, False))
        if decisions or not only
    ]
    seen = set()
    for decisions, call, message, only in kinds:
        ready = row(*decisions, call=call, message=message, only_consent=only)
        for verdicts in itertools.product([GO, DUPLICATE, STALE, BLOCKED, BUSY], repeat=len(ready.claims)):
            ready = row(*decisions, call=call, message=message, only_consent=only)
            asked, one = ready.claims, grant(ready, verdicts)
            let = [claimed for claimed, verdict in zip(asked, verdicts, strict=True) if verdict is GO]
            assert [one.go, one.busy, one.skip is not None].count(True) == 1
            seen.add((one.go, one.busy, one.skip))
            if one.instead_of is not None:
                outs = [claimed for claimed in let if claimed.claim.subscribed is False]
                assert list(one.claims) == outs
                assert list(one.given_back) == [claimed.claim for claimed in let if claimed not in outs]
                let = outs
            elif one.go:
                assert list(one.claims) == let
                assert not one.given_back
            else:
                assert list(one.given_back) == [claimed.claim for claimed in let], "what is not sent is given back"
            one.apply()
            if one.go:
                sent = {consent.channel for consent in ready.payload.consents}
                assert sent == {claimed.consent.channel for claimed in let if claimed.consent is not None}
                info = ready.payload.body["traits"]["phones"][PHONE]
                assert {KEYS[channel] for channel in sent} == set(info)
                assert list(ready.claims) == let
            elif one.busy:
                assert ready.claims == asked, "all of it is asked for again"
    assert seen == {
        (True, False, None),
        (False, True, None),
        (False, False, Skip.OLDER),
        (False, False, Skip.DUPLICATE),
    }


def test_what_is_withheld_is_told_with_the_reason():
    ready = row(YES, VOICE)
    grant(ready, [GO, STALE]).apply()
    (withheld,) = ready.payload.withheld
    assert (withheld.consent.channel, withheld.reason, withheld.consent.where) == ("voice", OLDER, "phones[0]")
    assert b"voiceOptIn" not in ready.body
    assert ready.key == "u"


def test_a_contact_that_is_in_doubt_is_not_taken_for_unchanged_the_next_time():
    ready = row(NO, VOICE)
    grant(ready, [GO, BLOCKED]).apply()
    assert ready.key is None
