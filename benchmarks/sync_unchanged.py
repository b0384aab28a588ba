"""The cost of an unchanged consent in a sync: a ledger with many rows, and a source with the same rows.

``python -m benchmarks.sync_unchanged [rows] [rounds]`` stores each round, and prints it with the medians, in
microseconds of CPU per row. A round reads the whole source and compares it with the ledger, up to the rows that would
be sent; creating the source's rows is measured separately and subtracted. In a last round, one in a hundred rows has
changed. Each round also shows the machine's current speed, as the time that ``repr`` of such a row takes: on a busy
machine everything costs more.
"""

from __future__ import annotations

import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.reading.keys import hash_of_row
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.delivery.sync.reconcile import Reconciliation
from airflow_provider_regal.delivery.sync.store import SyncStore
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.database import Database, sqlite_engine
from airflow_provider_regal.ledger.deliveries import Counts
from airflow_provider_regal.ledger.text import to_ledger_time
from benchmarks.running import write_results

START = datetime(2026, 1, 1, tzinfo=UTC)
ACCOUNT, SOURCE, EVENT_SOURCE = "acme", "dag.task", "airflow"
SETTINGS = DeliverySettings.of(call="identify", sync=SyncSettings(initial="send"))
_COLUMNS = ", ".join(
    (
        "account",
        "identifier",
        "channel",
        "row_hash",
        "subscribed",
        "evidence_at",
        "state",
        "acknowledged_at",
        "source",
        "delivery",
        "changed_at",
    )
)


def consents(count: int, *, changed: bool = False) -> Iterator[dict[str, Any]]:
    """Return consents as a database returns them; in a changed source, one in a hundred has a newer decision."""
    for number in range(count):
        newer = changed and number % 100 == 0
        yield {
            "user_id": number,
            "phone": f"+1212{2_000_000 + number:07d}",
            "channel": "sms",
            "subscribed": not newer or number % 200 == 0,
            "timestamp": START + timedelta(seconds=number, days=newer),
            "ip": "203.0.113.77",
            "text": "Yes, text me about my application. Message and data rates may apply.",
            "source": "signup_form",
        }


def open_ledger(path: Path) -> Account:
    """Open the ledger like a sync."""
    return Account(Database(sqlite_engine(path)), account=ACCOUNT, source=SOURCE)


def fill(path: Path, count: int) -> None:
    """Write what a sync of the unchanged source would have left in the ledger."""
    open_ledger(path).database.close()
    seed = Preparer(SETTINGS, event_source=EVENT_SOURCE).fingerprint
    now = to_ledger_time(START)

    def entries() -> Iterator[tuple[Any, ...]]:
        for row in consents(count):
            at, row_hash = to_ledger_time(row["timestamp"]), f"{hash_of_row(row, frozenset(), seed)}1"
            yield ACCOUNT, row["phone"], "sms", row_hash, 1, at, "acknowledged", now, SOURCE, "first", now

    with sqlite3.connect(path) as connection:
        marks = ", ".join("?" * len(_COLUMNS.split(", ")))
        connection.executemany(f"INSERT INTO regal_consents ({_COLUMNS}) VALUES ({marks})", entries())
    connection.close()


class Watch:
    """Adds up the CPU seconds of functions while they run."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = {}

    def around(self, name: str, what: Callable[..., Any]) -> Callable[..., Any]:
        """Return a wrapper that measures a function."""

        def watched(*args: Any, **kwargs: Any) -> Any:
            begun = time.process_time()
            try:
                return what(*args, **kwargs)
            finally:
                self.spent[name] = self.spent.get(name, 0.0) + time.process_time() - begun

        return watched


def speed() -> float:
    """Return the microseconds of CPU that ``repr`` of a row currently takes: 2.3 on an idle machine of 2024."""
    row = next(consents(1))
    begun = time.process_time()
    for _ in range(50_000):
        repr(row)
    return 20 * (time.process_time() - begun)


def one_round(path: Path, count: int, *, changed: bool = False, watch: Watch | None = None) -> tuple[float, int]:
    """Compare once; return CPU seconds without the creation of rows, and how many rows would be sent."""
    begun = time.process_time()
    for _ in consents(count, changed=changed):
        pass
    making = time.process_time() - begun
    ledger = open_ledger(path)
    begun = time.process_time()
    reconciliation = Reconciliation(
        settings=SETTINGS,
        sync=SETTINGS.sync,  # type: ignore[arg-type]
        preparer=Preparer(SETTINGS, event_source=EVENT_SOURCE),
        account=ledger,
        counts=Counts(),
        clock=Clock(),
        dry_run=True,
    )
    if watch is not None:
        store = reconciliation._store
        for name in ("know_file", "unchanged", "want", "compare"):
            setattr(store, name, watch.around(name, getattr(SyncStore, name).__get__(store)))
    sent = sum("$claims" in row for row in reconciliation.rows(consents(count, changed=changed)))
    spent = time.process_time() - begun - making
    reconciliation.close()
    ledger.database.close()
    return spent, sent


def main(count: int = 1_000_000, rounds: int = 6) -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "ledger.db"
        fill(path, count)
        found, kept = list[float](), list[dict[str, Any]]()
        for number in range(1, rounds + 1):
            before = speed()
            spent, _ = one_round(path, count)
            found.append(1e6 * spent / count)
            after = speed()
            kept.append({f"{count:,} consents": {"comparison_us": found[-1], "repr_of_a_row_us": (before + after) / 2}})
            print(f"round {number}: {found[-1]:.2f} us a row (repr {before:.1f} to {after:.1f} us)")
        watch = Watch()
        spent, _ = one_round(path, count, watch=watch)
        parts = {name: 1e6 * cpu / count for name, cpu in watch.spent.items()}
        parts["hash and the rest"] = 1e6 * spent / count - sum(parts.values())
        for part, cost in parts.items():
            print(f"  {part:<20}{cost:>6.2f} us a row")
        spent, sent = one_round(path, count, changed=True)
        print(f"with 1 % changed: {1e6 * spent / count:.2f} us a row, {sent:,} events to send")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(write_results("sync_unchanged", kept))
        print(f"median {statistics.median(found):.2f}, least {min(found):.2f} us CPU a row; peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
