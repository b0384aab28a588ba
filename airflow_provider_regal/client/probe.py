"""Whether something answers where Regal should be. Asks with GET and without the key: a POST would write data."""

from __future__ import annotations

import time

from airflow_provider_regal.client.failures import NO_ANSWER, describe_failure
from airflow_provider_regal.client.session import plain_session

_PROBE_TIMEOUT_S = 10.0


def probe(origin: str) -> tuple[bool, str]:
    """Ask for the front page of Regal's host.

    :returns: whether it answered, and a sentence for the user.
    """
    started = time.monotonic()
    with plain_session(origin) as session:
        try:
            response = session.get(origin, timeout=_PROBE_TIMEOUT_S, allow_redirects=False, stream=True)
        except NO_ANSWER as error:
            return False, f"{origin}: {describe_failure(error)}."
        response.close()
    milliseconds = (time.monotonic() - started) * 1000
    proved = "name, TLS certificate and network are fine" if origin.startswith("https:") else "it can be reached"
    return True, (
        f"{origin} answered in {milliseconds:.0f} ms (HTTP {response.status_code}): {proved}. "
        "The API key was not tested: only a real event can prove it, and this test sends none."
    )
