"""Commits as fast as it can: ``python -m benchmarks.at_scale_worker '{"ledger": ..., "seconds": ...}'``.

Each commit is what a delivery writes once a second: the states of its chunk, 100 outcomes, its counts and the hold.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from contextlib import closing
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from benchmarks.sharing_worker import ACCOUNT, open_ledger

ROWS = 100


@dataclass(frozen=True)
class Committer:
    """One of the processes; starts when it reads a line, so that all start at once.

    :param ledger: path of an SQLite file, or a URL of SQLAlchemy.
    :param most: number of commits for which it prepares rows.
    """

    ledger: str
    seconds: float
    most: int

    def command(self) -> list[str]:
        """Return its command line."""
        return [sys.executable, "-m", "benchmarks.at_scale_worker", json.dumps(asdict(self))]


def main() -> None:
    """Do what the command line requests."""
    warnings.simplefilter("ignore")
    given = Committer(**json.loads(sys.argv[1]))
    from airflow_provider_regal.errors import LedgerError
    from airflow_provider_regal.ledger.account import Account
    from airflow_provider_regal.ledger.deliveries import Changes, Deliveries, Place, Try
    from airflow_provider_regal.ledger.outcomes import OutcomeLine
    from airflow_provider_regal.ledger.rows import RowChunk
    from airflow_provider_regal.ledger.states import Outcome, RowState
    from airflow_provider_regal.ledger.text import to_ledger_time

    at, took_ms, failed = list[float](), list[float](), 0
    now = to_ledger_time(datetime.now(UTC))
    with closing(open_ledger(given.ledger)) as database:
        account = Account(database, account=ACCOUNT)
        held = Deliveries(account).begin(
            Place.outside_a_task(), Try(), call="track", source="", options="", hold_s=30, rate=100
        )
        chunks, rows = [], given.most * ROWS
        chunk = RowChunk()
        for number in range(rows):
            if chunk.is_full:
                chunks.append(chunk)
                chunk = RowChunk()
            chunk.add(number + 1, {"user_id": str(number)})
        held.keep_rows([*chunks, chunk])
        held.rows_complete({})
        print("ready", flush=True)
        sys.stdin.readline()
        began, position = time.monotonic(), 0
        while time.monotonic() - began < given.seconds and position + ROWS <= rows:
            lines = []
            for number in range(position, position + ROWS):
                held.states[number] = RowState.ACKNOWLEDGED
                held.counts.add(Outcome.ACKNOWLEDGED, 1)
                lines.append(
                    OutcomeLine(
                        number + 1, None, "track", "X", f"u{number}", None, None, "acknowledged", None, None, None, 1,
                        now, now, None,
                    )
                )  # fmt: skip
            position += ROWS
            one = time.monotonic()
            try:
                held.commit(Changes(outcomes=lines))
            except LedgerError:
                failed += 1
            at.append(time.monotonic())
            took_ms.append(round((at[-1] - one) * 1_000, 2))
        ended = time.monotonic()
    print(json.dumps({"began": began, "ended": ended, "at": at, "took_ms": took_ms, "failed": failed}))


if __name__ == "__main__":
    main()
