"""Decide the answer to one request: key, size, rate, scripted fault, shape of the body - in this order.

A pure decision: nothing is stored or sent here.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import Any

from airflow_provider_regal.sandbox.answers import Answer, refused
from airflow_provider_regal.sandbox.bodies import read_object
from airflow_provider_regal.sandbox.processing.findings import Finding
from airflow_provider_regal.sandbox.settings import SandboxSettings


@dataclass(frozen=True)
class Arrival:
    """One request, completely read.

    :param authorization: the header as sent.
    :param content_type: media type without parameters.
    :param body: the bytes; ``None`` if they exceeded the size limit.
    """

    authorization: str | None
    content_type: str
    body: bytes | None


@dataclass
class Verdict:
    """The gate's decision: a refusal, or ``None`` to accept the request; and the body, if it is an object."""

    refusal: Answer | None
    document: dict[str, Any] | None
    findings: list[Finding]

    @property
    def name(self) -> str | None:
        """The event name in the body."""
        name = (self.document or {}).get("name")
        return name if isinstance(name, str) and name else None


def check_key_and_size(arrival: Arrival, settings: SandboxSettings) -> Verdict:
    """Check what comes first: the key, and the size of the body."""
    key = arrival.authorization
    document = None if arrival.body is None else read_object(arrival.body)
    if key is None or not _same(key, settings.api_key):
        return Verdict(refused(settings.wrong_key_status), document, [_key_finding(key, settings.api_key)])
    if arrival.body is None:
        text = f"the body is above the limit of {settings.max_body_bytes:,} bytes"
        return Verdict(refused(413), None, [Finding("too_large", text)])
    findings = []
    if arrival.content_type != "application/json":
        findings.append(Finding("not_sent_as_json", f"sent as {arrival.content_type}, not application/json"))
    return Verdict(None, document, findings)


def check_shape(verdict: Verdict, body: bytes) -> Verdict:
    """Check what comes last: the body must be one JSON object."""
    if verdict.document is not None:
        return verdict
    text = "the body is not a JSON object" if body else "the body is empty"
    return Verdict(refused(400), None, [*verdict.findings, Finding("not_an_object", text)])


def _key_finding(key: str | None, expected: str) -> Finding:
    if key is None:
        return Finding("no_key", "no Authorization header")
    # Never quote the key: it may be a real one, sent here by mistake.
    prefix, _, rest = key.strip().partition(" ")
    if rest and _same(rest.strip(), expected):
        return Finding("bearer_key", f"the key was sent with the prefix {prefix}; Regal wants it bare")
    return Finding("wrong_key", "the key in Authorization is not this sandbox's")


def _same(left: str, right: str) -> bool:
    return hmac.compare_digest(left.encode(errors="replace"), right.encode())
