"""Shared by commands that deliver: the number of the try, stopping, and progress."""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.cli.opening import CommandError
from airflow_provider_regal.ledger.admin.history import is_live
from airflow_provider_regal.ledger.deliveries import FAILED, FINISHED, REPLACED, Deliveries, Place, Try

if TYPE_CHECKING:
    from airflow_provider_regal.delivery.stopping import Stop
    from airflow_provider_regal.ledger.account import Account

#: Seconds between progress lines: on a terminal, each overwrites the previous one.
ON_TERMINAL_S: Final = 0.5
IN_LOG_S: Final = 10.0
# A running delivery commits every second.
_SIGN_OF_LIFE_S: Final = 4.0
_BAR: Final = 24
_REPORTS: Final = ("%s\n%s",)


def which_try(account: Account, place: Place) -> Try:
    """Resume the same command if it was stopped or killed; otherwise begin a new delivery.

    :raises CommandError: it is running now.
    """
    deliveries = Deliveries(account)
    record = deliveries.latest(place)
    if record is None or record.state in (FINISHED, FAILED, REPLACED):
        return Try()
    if is_live(record, account.now()):
        print(f"Delivery {record.id} was running moments ago: checking whether it still is", file=sys.stderr)
        time.sleep(_SIGN_OF_LIFE_S)
        again = deliveries.latest(place)
        if again is not None and again.held_at != record.held_at and again.holder is not None:
            raise CommandError(f"The same command is running now: delivery {record.id}. Wait until it has ended.")
        if again is not None and again.state in (FINISHED, FAILED):
            return Try()
    return Try(number=record.try_number + 1)


@contextmanager
def stopped_by(stop: Stop, *signals: signal.Signals) -> Iterator[None]:
    """Stop the delivery on a signal, keeping unsettled rows; a second signal interrupts it."""
    before = {one: signal.getsignal(one) for one in signals}

    def request(number: int, _: object) -> None:
        stop.request()
        signal.signal(number, before[signal.Signals(number)])

    for one in signals:
        signal.signal(one, request)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


@contextmanager
def progress_on_stderr() -> Iterator[None]:
    """Print the package's log lines unchanged, except the report, which is printed separately."""
    ours, handler = logging.getLogger("airflow_provider_regal"), _Progress(sys.stderr)
    handler.addFilter(lambda record: record.msg not in _REPORTS)
    level, propagates = ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        handler.end_line()
        ours.removeHandler(handler)
        ours.setLevel(level)
        ours.propagate = propagates


class _Progress(logging.StreamHandler[Any]):
    """Writes lines; on a terminal, a progress line overwrites the previous one."""

    _open = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write a line."""
        line = record.getMessage()
        if not self.stream.isatty() or not is_progress(line):
            self.end_line()
            super().emit(record)
            return
        self.stream.write(f"\r\x1b[K{with_bar(line)}")
        self.stream.flush()
        self._open = True

    def end_line(self) -> None:
        """End the current progress line, so that it stays."""
        if self._open:
            self.stream.write("\n")
            self._open = False


def is_progress(line: str) -> bool:
    """Return whether a line is a progress line: ``12,000/50,000 24 % · ...``."""
    return " % · " in line and line[:1].isdigit()


def with_bar(line: str) -> str:
    """Return a progress line with a bar."""
    done, _, total = line.partition(" ")[0].replace(",", "").partition("/")
    full = _BAR * int(done) // max(int(total), 1)
    return f"[{'#' * full}{'.' * (_BAR - full)}] {line}"
