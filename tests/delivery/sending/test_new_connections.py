"""New connections take time to open, others are ready: the limit applies to arrivals."""

from __future__ import annotations

import time

import pytest

from tests.client.certificates import Authority
from tests.client.raw_server import RawServer, http
from tests.client.test_pace import most_in_any_second

LIMIT, ROWS = 150, 400
#: Of a TLS handshake over some distance; an answer comes sooner.
HANDSHAKE_S, LATENCY_S = 0.4, 0.1


class FarServer(RawServer):
    """Opens TLS connections slowly, and answers faster.

    :ivar arrivals: when requests had come.
    """

    def __init__(self, tls):
        self.arrivals = []
        super().__init__(self.answer, tls=tls)

    def _run(self, script, talk):
        time.sleep(HANDSHAKE_S)
        super()._run(script, talk)

    def answer(self, talk):
        while talk.read() is not None:
            self.arrivals.append(time.monotonic())
            time.sleep(LATENCY_S)
            talk.say(http())


@pytest.mark.parametrize("guarantee", ["at_least_once", "at_most_once"])
def test_no_second_holds_more_than_the_limit(deliver, tmp_path, monkeypatch, guarantee):
    """Counted when they begin, the first seconds would hold 3 to 4 % more."""
    authority = Authority(tmp_path / "authority")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with FarServer(authority.server("localhost")) as server:
        rows = [{"user_id": f"user-{number}"} for number in range(ROWS)]
        url = f"https://localhost:{server.port}"
        report = deliver(rows, rate=LIMIT, url=url, guarantee=guarantee, max_connections=64, outage_patience=5)
    assert report.acknowledged == ROWS == len(server.arrivals)
    assert most_in_any_second(sorted(server.arrivals)) <= LIMIT * 1.01, "some, for a busy machine"
