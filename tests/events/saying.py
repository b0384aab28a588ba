"""Short ways to say things in the tests of events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from tests.events.contract import as_sent

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import ConsentPolicy, Event, Identify, Payload, Reading, to_payload

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PHONE, OTHER, MAIL = "+12125550100", "+14155550199", "ines@example.com"
GIVEN = "2026-03-02T14:05:09Z"
IP = "203.0.113.9"
NO_IP_NEEDED = ConsentPolicy(require_ip=False)


def payload(
    event: type[Event] = Identify,
    written: dict[Any, Any] | None = None,
    *,
    policy: ConsentPolicy | None = None,
    reading: Reading | None = None,
    **fields: Any,
) -> Payload:
    made = to_payload(event.read({**(written or {}), **fields}, reading), now=NOW, policy=policy)
    as_sent(made)
    return made


def body(event: type[Event] = Identify, written: dict[Any, Any] | None = None, **fields: Any) -> dict[str, Any]:
    return payload(event, written, **fields).body


def traits(event: type[Event] = Identify, **fields: Any) -> dict[str, Any]:
    return body(event, **fields).get("traits", {})


def trait(value: Any, **reading: Any) -> Any:
    """What a trait becomes; ``...`` if it is left out."""
    return traits(user_id="1", traits={"x": value}, reading=Reading(**reading)).get("x", ...)


def faults(event: type[Event] = Identify, written: Any = None, **fields: Any) -> dict[str, str]:
    """The faults of an invalid event: place -> reason."""
    with pytest.raises(InvalidEventError) as caught:
        event.read(written if written is not None else fields)
    return {fault.field: fault.reason for fault in caught.value.faults}


def opt_in(subscribed: Any = True, channel: str = "sms", **evidence: Any) -> dict[str, Any]:
    """An opt-in with all its evidence; None takes a part of it away."""
    whole = {"channel": channel, "subscribed": subscribed, "timestamp": GIVEN, "ip": IP, **evidence}
    return {key: value for key, value in whole.items() if value is not None}
