"""A ledger that can't be written for a while, like a database that is down, locked or full."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from airflow_provider_regal.testing import Sandbox
from tests.ledger.view import LedgerView

EVERY_COMMIT = "regal_deliveries"
RESERVATIONS_OF_MESSAGES = "regal_messages"


def _requests(regal: Sandbox) -> int:
    return regal._ask(lambda account: account.stats()["requests"])


@contextmanager
def _meanwhile(work: Callable[[threading.Event], None]) -> Iterator[None]:
    ended = threading.Event()
    thread = threading.Thread(target=work, args=(ended,))
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def cannot_be_written(
    ledger: LedgerView, regal: Sandbox, *, after: int, for_s: float = 600.0, table: str = EVERY_COMMIT
):
    """Remove a table once Regal has received this many requests; restore it after a while, and at the end."""

    def work(ended: threading.Event) -> None:
        while _requests(regal) < after and not ended.wait(0.002):
            pass
        ledger.change(f"ALTER TABLE {table} RENAME TO away")
        ended.wait(for_s)
        ledger.change(f"ALTER TABLE away RENAME TO {table}")

    return _meanwhile(work)


def is_locked(ledger: LedgerView, regal: Sandbox, *, after: int, for_s: float):
    """Hold the write lock for a while once Regal has received this many requests."""

    def work(ended: threading.Event) -> None:
        while _requests(regal) < after and not ended.wait(0.002):
            pass
        with ledger.account() as account:
            account.database.write(lambda connection: time.sleep(for_s))

    return _meanwhile(work)
