"""Format the progress of a delivery as one line, and decide which lines are logged. Pure."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from airflow_provider_regal.ledger.deliveries import Counts
from airflow_provider_regal.ledger.text import from_ledger_time

_AT_FIRST_S: Final = 60.0
_LATER_EVERY_S: Final = 60.0
# Lines at shorter intervals overwrite each other on a terminal.
_OF_A_LOG_S: Final = 10.0


class Progress:
    """Formats progress lines of one try.

    Unknown rows have an outcome but were not delivered, so the ETA ignores them.

    :param counts: of the delivery; other threads change them.
    :param began: monotonic seconds.
    :param every_s: seconds between two lines.
    :param patience_s: seconds an outage may last.
    """

    def __init__(self, counts: Counts, *, began: float, every_s: float, patience_s: float) -> None:
        self._counts = counts
        self._began = self._logged = began
        self._every_s = every_s
        self._patience_s = patience_s
        self._before = _decided(counts)

    def line(self, now: float) -> str:
        """Format the current progress.

        ``12,000/50,000 24 % · 298/s · 3 rejected · ETA 2m07s``, or ``12,000/50,000 24 % · OUTAGE since 02:58 UTC (HTTP
        503), gives up at 03:03 UTC · 3 rejected``.
        """
        counts = self._counts
        done, total = counts.settled, counts.read
        share = f"{100 * done // total} %" if total else "-"
        parts = [f"{done:,}/{total:,} {share}"]
        failed = [f"{counts.rejected:,} rejected"] + ([f"{counts.unknown:,} unknown"] if counts.unknown else [])
        if (since := counts.outage_since) is not None:
            began = from_ledger_time(since)
            ends = began + timedelta(seconds=self._patience_s)
            parts.append(f"OUTAGE since {began:%H:%M} UTC ({counts.outage_reason}), gives up at {ends:%H:%M} UTC")
            return " · ".join([*parts, *failed])
        speed = (_decided(counts) - self._before) / max(now - self._began, 0.001)
        left_s = int((total - done) / speed) if speed else None
        eta = "-" if left_s is None else f"{left_s // 60}m{left_s % 60:02d}s"
        return " · ".join([*parts, f"{speed:.0f}/s", *failed, f"ETA {eta}"])

    def is_due(self, now: float) -> bool:
        """Return whether a line is also logged: after the first minute, once a minute."""
        often = self._every_s < _OF_A_LOG_S or now - self._began <= _AT_FIRST_S
        if not often and now - self._logged < _LATER_EVERY_S - self._every_s / 2:
            return False
        self._logged = now
        return True


def _decided(counts: Counts) -> int:
    return counts.settled - counts.unknown
