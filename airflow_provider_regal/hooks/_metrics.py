"""Report counters and timings to Airflow's metrics.

A delivery reports once a minute while it runs, and when it ends. The thread that waits for the delivery reads its
counts, so metrics cost nothing per row. A hook's single event is reported when its outcome is known. There are no
gauges: those of different task processes would overwrite each other.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Protocol

from airflow_provider_regal._compat import airflow_stats
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.ledger.outcomes import codes_of

if TYPE_CHECKING:
    from airflow_provider_regal.delivery.report import DeliveryReport
    from airflow_provider_regal.ledger.deliveries import Counts, Held

_log = logging.getLogger(__name__)
#: All counters, with the tag of each in addition to account and call. docs/metrics.md describes them.
COUNTERS: Final = {
    "deliveries": "outcome",
    "read": None,
    "acknowledged": None,
    "rejected": "reason",
    "unknown": "reason",
    "skipped": "reason",
    "opt_ins_withheld": None,
    "opt_outs_owed": None,
    "requests": None,
    "repeats": None,
    "answers_429": None,
    "outages": None,
}
TIMINGS: Final = ("duration", "latency_median", "latency_p99", "rate")
_PREFIX: Final = "regal"
#: Slightly less than a minute: a delivery is checked every ten seconds.
EVERY_S: Final = 50.0
_OWN_COUNTS: Final = ("read", "acknowledged", "requests", "repeats", "answers_429")
_NOT_RECORDED: Final = "not_recorded"
_LONGEST_TAG: Final = 48


class Stats(Protocol):
    """The methods of Airflow's Stats that are used here."""

    def incr(self, stat: str, count: int = 1, *, tags: dict[str, str]) -> None:
        """Add to a counter."""

    def timing(self, stat: str, dt: Any, *, tags: dict[str, str]) -> None:
        """Add to a timing."""


class Running(Protocol):
    """What is read from a delivery while it runs."""

    @property
    def outages(self) -> int:
        """Return the number of Regal outages in this try."""

    def latencies(self) -> Sequence[float]:
        """Return the latencies of the last answers, in seconds."""


class _Reporter:
    """Reports to Airflow's metrics. Failures are logged at DEBUG, since they must not stop a delivery.

    :param stats: Airflow's, looked up on first use.
    """

    def __init__(self, stats: Stats | None) -> None:
        self._stats = stats

    def _count(self, tags: dict[str, str], name: str, count: int, value: str | None = None) -> None:
        if count > 0:
            tag = COUNTERS[name]
            told = tags if tag is None or value is None else {**tags, tag: value}
            self._airflow().incr(f"{_PREFIX}.{name}", count, tags=told)

    def _time(self, tags: dict[str, str], name: str, value: Any) -> None:
        self._airflow().timing(f"{_PREFIX}.{name}", value, tags=tags)

    def _airflow(self) -> Stats:
        if self._stats is None:
            self._stats = airflow_stats()
        return self._stats

    def _safely(self, work: Callable[[], object]) -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever Airflow, or what it is configured with, raises
            _log.debug("Airflow's metrics got nothing (%s)", type(error).__name__)


class EventMetrics(_Reporter):
    """Reports a hook's single events, each when its outcome is known.

    :param account: of the ledger.
    """

    def __init__(self, account: str, *, stats: Stats | None = None) -> None:
        super().__init__(stats)
        self._account = _tag(account)

    def tell(self, call: str, before: Counts, now: Counts, *, reason: str, latency_s: float | None) -> None:
        """Report one event.

        :param before: the counts of the hook's delivery before the event.
        :param now: its counts including the event.
        :param reason: why it was rejected or is unknown, if it was.
        :param latency_s: seconds until Regal's last answer; None without an answer.
        """
        self._safely(lambda: self._tell({"account": self._account, "call": call}, before, now, reason, latency_s))

    def _tell(self, tags: dict[str, str], before: Counts, now: Counts, reason: str, latency_s: float | None) -> None:
        for name in _OWN_COUNTS:
            self._count(tags, name, getattr(now, name) - getattr(before, name))
        for name in ("rejected", "unknown"):
            self._count(tags, name, getattr(now, name) - getattr(before, name), _tag(reason))
        for why, events in (now.skips - before.skips).items():
            self._count(tags, "skipped", events, _tag(why))
        self._count(tags, "opt_ins_withheld", now.withheld.total() - before.withheld.total())
        if latency_s is not None:
            for name in ("latency_median", "latency_p99"):  # from a single answer
                self._time(tags, name, timedelta(seconds=latency_s))


class Metrics(_Reporter):
    """Reports the progress of one try of a delivery.

    :param account: of the ledger.
    :param call: identify, track, page or screen.
    :param clock: monotonic seconds.
    """

    def __init__(
        self,
        *,
        account: str,
        call: str,
        stats: Stats | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(stats)
        self._tags = {"account": _tag(account), "call": call}
        self._clock = clock
        self._held: Held | None = None
        self._began = self._emitted_at = clock()
        self._reported: Counter[tuple[str, str | None]] = Counter()  # counter and reason -> reported so far

    def begin(self, held: Held) -> None:
        """Treat the counts of earlier tries as reported."""
        self._held = held
        self._safely(self._take_as_reported)

    def tick(self, running: Running) -> None:
        """Report, if it is time."""
        if self._clock() - self._emitted_at >= EVERY_S:
            self._safely(lambda: self._emit(running))

    def end(self, running: Running, report: DeliveryReport) -> None:
        """Report the rest, and what is known only at the end of a delivery."""
        self._safely(lambda: self._end(running, report))

    def _take_as_reported(self) -> None:
        assert self._held is not None  # noqa: S101 - called when it has begun
        self._reported = self._counted(self._held)
        self._reported.update({(name, _NOT_RECORDED): rows for name, rows in self._not_reported(self._held).items()})

    def _end(self, running: Running, report: DeliveryReport) -> None:
        if self._held is not None:
            self._emit(running)
            for name, rows in self._not_reported(self._held).items():
                self._count(self._tags, name, rows, _NOT_RECORDED)
            self._count(self._tags, "opt_outs_owed", report.opt_outs_owed)
            self._time(self._tags, "duration", timedelta(seconds=self._clock() - self._began))
        self._count(self._tags, "deliveries", 1, report.status)

    def _emit(self, running: Running) -> None:
        assert self._held is not None  # noqa: S101 - a delivery that runs has begun
        now = self._clock()
        counted = self._counted(self._held)
        counted["outages", None] = running.outages
        for (name, reason), count in counted.items():
            self._count(self._tags, name, count - self._reported[name, reason], reason)
        sent = counted["requests", None] - self._reported["requests", None]
        if sent > 0:
            self._time(self._tags, "rate", round(sent / max(now - self._emitted_at, 0.001), 1))
        if latencies := sorted(running.latencies()):
            self._time(self._tags, "latency_median", timedelta(seconds=latencies[len(latencies) // 2]))
            self._time(self._tags, "latency_p99", timedelta(seconds=latencies[int(len(latencies) * 0.99)]))
        self._reported |= counted  # the maximum: a row that is retried is not reported twice
        self._emitted_at = now

    def _counted(self, held: Held) -> Counter[tuple[str, str | None]]:
        counts = held.counts
        counted: Counter[tuple[str, str | None]] = Counter({(one, None): getattr(counts, one) for one in _OWN_COUNTS})
        counted["opt_ins_withheld", None] = counts.withheld.total()
        counted.update({("skipped", _tag(why)): rows for why, rows in counts.skips.copy().items()})
        if counts.rejected or counts.unknown:
            try:
                for (status, reason), rows in held.read(lambda connection: codes_of(connection, held.id)).items():
                    counted[status, _tag(reason)] += rows
            except RegalError as error:  # the ledger may be the cause
                _log.debug("Reasons are not reported to Airflow's metrics (%s)", type(error).__name__)
        return counted

    def _not_reported(self, held: Held) -> dict[str, int]:
        """Return how many rejected and unknown rows were not reported: they are not in the ledger's outcomes."""
        return {
            name: max(
                0, getattr(held.counts, name) - sum(rows for (one, _), rows in self._reported.items() if one == name)
            )
            for name in ("rejected", "unknown")
        }


def _tag(text: str) -> str:
    """Convert a tag value to characters that every backend accepts."""
    return re.sub(r"[^a-z0-9.-]+", "_", text.lower()).strip("_")[:_LONGEST_TAG] or "none"
