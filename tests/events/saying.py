"""Short helpers for the tests of events."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import ConsentPolicy, Event, Identify, Payload, Reading, to_payload
from tests.events.contract import as_sent

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
PHONE, OTHER, MAIL = "+12125550100", "+14155550199", "ines@example.com"
GIVEN = "2026-03-02T14:05:09Z"
IP = "203.0.113.9"
NO_IP_NEEDED = ConsentPolicy(require_ip=False)


def payload(
    kind: type[Event] = Identify,
    /,
    written: dict[Any, Any] | None = None,
    *,
    policy: ConsentPolicy | None = None,
    reading: Reading | None = None,
    **fields: Any,
) -> Payload:
    made = to_payload(kind.read({**(written or {}), **fields}, reading), now=NOW, policy=policy)
    as_sent(made)
    return made


def body(kind: type[Event] = Identify, /, **fields: Any) -> dict[str, Any]:
    return payload(kind, **fields).body


def traits(kind: type[Event] = Identify, /, **fields: Any) -> dict[str, Any]:
    return body(kind, **fields).get("traits", {})


def trait(value: Any, **reading: Any) -> Any:
    """Return what a trait becomes; ``...`` if it is omitted."""
    return traits(user_id="1", traits={"x": value}, reading=Reading(**reading)).get("x", ...)


def faults(kind: type[Event] = Identify, /, written: Any = None, **fields: Any) -> dict[str, str]:
    """The faults of an invalid event: place -> reason."""
    with pytest.raises(InvalidEventError) as caught:
        kind.read(written if written is not None else fields)
    return {fault.field: fault.reason for fault in caught.value.faults}


def opt_in(subscribed: Any = True, channel: str = "sms", **evidence: Any) -> dict[str, Any]:
    """Return an opt-in with all its evidence; None removes a part of it."""
    whole = {"channel": channel, "subscribed": subscribed, "timestamp": GIVEN, "ip": IP, **evidence}
    return {key: value for key, value in whole.items() if value is not None}


def sent(*opt_ins: Any, policy: ConsentPolicy | None = None) -> dict[str, Any]:
    """Return what is sent for one phone: channel key -> opt-in."""
    info = payload(user_id="1", phones={PHONE: {}}, opt_in=list(opt_ins), policy=policy).body["traits"]["phones"][PHONE]
    return {key.removesuffix("OptIn"): value for key, value in info.items()}


def reasons(*opt_ins: Any, policy: ConsentPolicy | None = None) -> list[str]:
    made = payload(user_id="1", phones={PHONE: {}}, opt_in=list(opt_ins), policy=policy)
    return [withheld.reason for withheld in made.withheld]
