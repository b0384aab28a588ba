"""Read the local Regal's journal: the person and the consent in each request."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from tests.consent_model.generator import EVENT
from tests.consent_model.model import Received, Request

BOOKED = "Lesson Booked"
NOT_TAKEN = (400, 401, 403, 404, 413, 422, 429, 503)


def request_of(event: dict[str, Any]) -> Request:
    """Return the person and the consent in one request."""
    body, decisions = event["body"] or {}, tuple(decisions_in(event))
    traits = body.get("traits", {})
    people = [*traits.get("phones", {}), *traits.get("emails", {})]
    people += [f"user:{body['userId']}"] if "userId" in body else []
    only = "name" not in body and traits.keys() <= {"phones", "emails"} and bool(decisions)
    opts_out_only = only and not any(one.subscribed for one in decisions)
    return Request(event["number"], frozenset(people), body.get("name") == BOOKED, opts_out_only, decisions)


def decisions_in(event: dict[str, Any]) -> Iterator[Received]:
    """Return the consent in one request."""
    body, answer = event["body"], event["answer"]
    if body is None:
        return
    told = {
        "number": event["number"], "user": body.get("userId"), "stored": event["stored"], "told": answer == 200,
        "refused": answer in NOT_TAKEN,
    }  # fmt: skip
    traits = body.get("traits", {})
    if body.get("name") == EVENT:
        told |= {"channel": body["properties"]["channel"], "ip": body["properties"].get("ip"), "event": True}
        at = _time(body["originalTimestamp"])
        for phone in traits.get("phones", {None: {}}):
            yield Received(point=phone, subscribed=True, at=at, **told)
        return
    for member in ("phones", "emails"):
        for point, info in traits.get(member, {}).items():
            for channel in ("sms", "voice", "email"):
                if (opt_in := info.get(f"{channel}OptIn")) is not None:
                    at, yes = _time(opt_in.get("timestamp")), opt_in["subscribed"]
                    yield Received(point=point, channel=channel, subscribed=yes, at=at, ip=opt_in.get("ip"), **told)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text.replace(" +", "+"))
