"""What Regal refused is sent again in its original form, whatever it was."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_provider_regal.errors import TooManyFailedRowsError
from airflow_provider_regal.events import Identify, Page, Screen, Track

NOW = datetime.now(UTC).replace(microsecond=0)
REFUSE = {"on": {"from": 1}, "do": {"status": 400}}


def bodies(regal, *, stored=True):
    return [event["body"] for event in regal.events(stored=stored)]


EVENTS = [
    Identify(
        user_id="u1",
        phones=[
            {"number": "+12125550100", "label": "work", "is_primary": True, "opt_ins": [
                {"channel": "sms", "subscribed": True, "timestamp": "2026-01-02T03:04:05Z", "ip": "203.0.113.9",
                 "text": "yes", "source": "form"},
                {"channel": "voice", "subscribed": False}]},
            {"number": "+12125550101"},
        ],
        emails=[{"address": "a@example.com", "label": "home"}],
        traits={"firstName": "Ines", "plan": "gold", "address": {"zipcode": "10001", "state": "NY"}, "since": NOW},
    ),
    Track(event="Lesson Booked", user_id="u2", phone="+12125550102", properties={"name": "x", "event": "y", "n": [1]},
          traits={"plan": "gold"}, timestamp=NOW, message_id="m1", event_source="shop"),
    Page(name="Home", category="shop", user_id="u3", properties={"url": "https://x.example/"}, timestamp=NOW),
    Screen(name="Start", user_id="u4", properties={"title": "t"}),
]  # fmt: skip


def refused_and_sent_again(deliver, redeliver, regal, events, names=("first", "again")):
    regal.set_faults([REFUSE])
    with suppress(TooManyFailedRowsError):
        deliver(events, of_run=names[0], event=None, max_event_age=None)
    regal.set_faults([])
    tried = Counter(map(repr, bodies(regal, stored=False)))
    redeliver(names[0], of_run=names[1], max_event_age=None)
    return tried, Counter(map(repr, bodies(regal)))


def test_what_regal_refused_goes_out_as_it_was(deliver, redeliver, regal_sandbox):
    tried, sent = refused_and_sent_again(deliver, redeliver, regal_sandbox, EVENTS)
    alone = "{'traits': {'phones': {'+12125550100': {'voiceOptIn': {'subscribed': False}}}}, 'eventSource': 'airflow'}"
    assert tried == sent + Counter([alone]), "its opt-out was tried without the rest of the event as well"
    assert len(sent) == 4
    assert regal_sandbox.stats()["contract_findings"] == {}


TEXT = st.text(min_size=1, max_size=8)
VALUES = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NAMES = TEXT | st.sampled_from(["name", "event", "category", "properties", "$call", "$row", "$", "messageId", "userId"])
SAID = st.builds(
    lambda kind, properties: kind(user_id="u1", properties=properties, **({"event": "E"} if kind is Track else {})),
    st.sampled_from([Track, Page, Screen]),
    st.dictionaries(NAMES, VALUES, max_size=4),
)


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(event=SAID)
@pytest.mark.slow
def test_whatever_regal_refused_goes_out_as_it_was(deliver, redeliver, ledger, regal_sandbox, event):
    regal_sandbox.reset()
    ledger.change("DELETE FROM regal_types")  # each example has its own types
    run = f"r{test_whatever_regal_refused_goes_out_as_it_was.number}"
    test_whatever_regal_refused_goes_out_as_it_was.number += 1
    tried, sent = refused_and_sent_again(deliver, redeliver, regal_sandbox, [event], (run, f"{run}-again"))
    assert tried == sent


test_whatever_regal_refused_goes_out_as_it_was.number = 0
