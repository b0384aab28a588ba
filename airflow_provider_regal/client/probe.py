"""Check whether Regal's host answers. Uses GET without the key: a POST would write data."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import NamedTuple

from airflow_provider_regal.client.environment import network_for
from airflow_provider_regal.client.no_answer import NO_ANSWER, describe_failure
from airflow_provider_regal.client.session import plain_session
from airflow_provider_regal.errors import FixConnectionError

_PROBE_TIMEOUT_S = 10.0


class Probed(NamedTuple):
    """The result of a probe.

    :param said: a sentence for the user.
    :param skew_s: how far the server's clock is ahead of ours, in whole seconds; None if the answer has no date.
    """

    answered: bool
    said: str
    skew_s: float | None = None


def probe(origin: str) -> tuple[bool, str]:
    """Request the front page of Regal's host.

    :returns: whether it answered, and a sentence for the user.
    """
    return ask(origin)[:2]


def ask(origin: str) -> Probed:
    """Request the front page of Regal's host, and read the server's time."""
    started = time.monotonic()
    try:
        network, session = network_for(origin), plain_session(origin)
    except FixConnectionError as error:
        return Probed(False, str(error))
    through = f" through the proxy of {network.proxy.variable}" if network.proxy else ""
    with session:
        try:
            response = session.get(origin, timeout=_PROBE_TIMEOUT_S, allow_redirects=False, stream=True)
        except NO_ANSWER as error:
            return Probed(False, f"{origin}: {describe_failure(error)}{through and f' ({through.strip()})'}.")
        response.close()
    milliseconds = (time.monotonic() - started) * 1000
    proved = "name, TLS certificate and network are fine" if origin.startswith("https:") else "it can be reached"
    said = (
        f"{origin} answered in {milliseconds:.0f} ms (HTTP {response.status_code}){through}: {proved}. "
        "The API key was not tested: only a real event can prove it, and this test sends none."
    )
    return Probed(True, said, _skew_s(response.headers.get("Date")))


def _skew_s(date: str | None) -> float | None:
    try:
        there = parsedate_to_datetime(date or "")
    except ValueError:
        return None
    return (there - datetime.now(UTC)).total_seconds() if there.tzinfo else None
