"""A StatsD server on a socket, and Airflow's own client configured to send to it, as in a task process."""

from __future__ import annotations

import re
import socket
from collections import Counter
from collections.abc import Iterator

import pytest

LINE = re.compile(r"airflow\.regal\.(\w+)((?:,[^:]*)?):(-?[\d.]+)\|(c|ms)")


class StatsD:
    """What arrived at the socket."""

    def __init__(self, listening: socket.socket) -> None:
        self._socket = listening
        self.lines: list[str] = []

    def read(self) -> list[tuple[str, dict[str, str], float, str]]:
        """Return name, tags, value and kind of each metric of ours."""
        while True:
            try:
                self.lines += self._socket.recv(65_535).decode().splitlines()
            except (BlockingIOError, TimeoutError):
                break
        found = [LINE.fullmatch(line) for line in self.lines if line.startswith("airflow.regal.")]
        assert None not in found, self.lines
        return [(one[1], dict(tag.split("=") for tag in one[2].split(",")[1:]), float(one[3]), one[4]) for one in found]

    def counters(self, *tags: str) -> Counter[tuple[str, ...]]:
        """Add up the counters, by name and these tags."""
        counted: Counter[tuple[str, ...]] = Counter()
        for name, told, value, kind in self.read():
            if kind == "c":
                counted[name, *(told[tag] for tag in tags if tag in told)] += int(value)
        return counted


def set_up() -> None:
    """Do what Airflow does when a task process starts; afterwards this process sends what is configured."""
    try:
        from airflow.sdk.configuration import conf
        from airflow.sdk.observability import stats
        from airflow.sdk.observability.metrics import stats_utils
    except ImportError:  # Airflow 2.11
        from airflow.configuration import conf
        from airflow.metrics.base_stats_logger import NoStatsLogger
        from airflow.metrics.statsd_logger import get_statsd_logger
        from airflow.stats import Stats

        Stats.instance = get_statsd_logger(type(Stats)) if conf.getboolean("metrics", "statsd_on") else NoStatsLogger()
        return
    stats.initialize(factory=stats_utils.get_stats_factory(), export_legacy_names=False)


@pytest.fixture
def statsd(monkeypatch: pytest.MonkeyPatch) -> Iterator[StatsD]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.settimeout(0.2)
        with monkeypatch.context() as patched:
            for name, value in {
                "ON": "True",
                "HOST": "127.0.0.1",
                "PORT": str(listening.getsockname()[1]),
                "PREFIX": "airflow",
                "INFLUXDB_ENABLED": "True",
            }.items():
                patched.setenv(f"AIRFLOW__METRICS__STATSD_{name}", value)
            set_up()
            yield StatsD(listening)
        set_up()
