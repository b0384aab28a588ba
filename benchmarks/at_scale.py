"""The cost of many tasks, and the first limit they reach: ``python -m benchmarks.at_scale [part ...] [--share 1.0]``.

==============  =====================================================================================================
part            what is measured
==============  =====================================================================================================
``deliveries``  50 processes at once, each with one delivery of 1,000 events: wall time, total CPU, most at once
``singles``     1,000 events one by one, from 1 and from 16 processes at once
``commits``     commits per second of 1, 4, 16 and 50 processes that do nothing else, and how long one takes
``growth``      disk space of a million outcomes, by kind, and how long it takes to remove them
==============  =====================================================================================================

Each on PostgreSQL and on SQLite, with a server that answers at once. The rate limit is set so high that something else
is the bottleneck.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any, Final, cast

from benchmarks.at_scale_worker import Committer
from benchmarks.running import PROJECT, Server, server, write_results
from benchmarks.sharing import Ledger
from benchmarks.sharing_worker import ACCOUNT, Sender, open_ledger
from benchmarks.sink import KEY

Result = dict[str, Any]
LEDGERS: Final = ("postgresql", "sqlite")
DELIVERIES, ROWS, SINGLES, OUTCOMES = 50, 1_000, 1_000, 100_000
#: Far more than two cores can send.
NO_LIMIT: Final = 20_000
_POSTGRES: Final = "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres"
_COMMITTING_S: Final = 6.0
_MOST_COMMITS: Final = 2_000  # per second: more than any ledger here achieves


def in_processes(commands: Sequence[Sequence[str]], most: int) -> tuple[list[Result], float, float]:
    """Run a limited number of processes at a time; return what each printed, and the total wall and CPU seconds."""
    began, cpu = time.monotonic(), _cpu_of_children()
    waiting, running, told = list(commands), list[subprocess.Popen[str]](), list[Result]()
    while waiting or running:
        while waiting and len(running) < most:
            running.append(subprocess.Popen(waiting.pop(0), cwd=PROJECT, stdout=subprocess.PIPE, text=True))
        said = running.pop(0).communicate()[0]
        told.append(json.loads(said.splitlines()[-1]))
    return told, time.monotonic() - began, _cpu_of_children() - cpu


def together(commands: Sequence[Sequence[str]]) -> tuple[list[Result], float]:
    """Start processes together, once all are ready; return what each printed, and the total CPU seconds."""
    cpu = _cpu_of_children()
    running = [
        subprocess.Popen(one, cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for one in commands
    ]
    for one in running:
        cast("IO[str]", one.stdout).readline()
    for one in running:
        print("go", file=one.stdin, flush=True)
    told = [json.loads(one.communicate()[0].splitlines()[-1]) for one in running]
    return told, _cpu_of_children() - cpu


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def deliveries(running: Server, kind: str, folder: Path, share: float) -> Iterator[Result]:
    """Run many deliveries at once, and one alone, to measure the extra cost of each among others."""
    for at_once in (1, int(DELIVERIES * share)):
        ledger = _ledger(kind, folder)
        running.reset()
        senders = [
            Sender(running.url, KEY, ledger, f"s{number}", NO_LIMIT, rows=ROWS, seconds=600)
            for number in range(at_once)
        ]
        told, wall_s, cpu_s = in_processes([one.command() for one in senders], at_once)
        took = sorted(one["ended"] - one["began"] for one in told)
        yield {
            "part": "deliveries", "ledger": kind, "at_once": at_once, "events": sum(one["sent"] for one in told),
            "wall_s": wall_s, "cpu_s": cpu_s, "median_s": took[len(took) // 2], "longest_s": took[-1],
        }  # fmt: skip


def singles(running: Server, kind: str, folder: Path, share: float) -> Iterator[Result]:
    """Send many single events; each process sends some of them, one after the other."""
    for processes in (1, 16):
        ledger, count = _ledger(kind, folder), int(SINGLES * share)
        running.reset()
        senders = [
            Sender(running.url, KEY, ledger, f"s{number}", NO_LIMIT, rows=count // processes, seconds=600, singles=True)
            for number in range(processes)
        ]
        told, wall_s, cpu_s = in_processes([one.command() for one in senders], processes)
        yield {
            "part": "singles", "ledger": kind, "at_once": processes, "events": sum(one["sent"] for one in told),
            "wall_s": wall_s, "cpu_s": cpu_s, "sending_s": max(one["ended"] - one["began"] for one in told),
        }  # fmt: skip


def commits(running: Server, kind: str, folder: Path, share: float) -> Iterator[Result]:
    """Let processes commit as fast as they can."""
    for processes in (1, 4, 16, 50):
        ledger = _ledger(kind, folder)
        seconds = _COMMITTING_S * share
        committer = Committer(ledger, seconds=seconds, most=int(seconds * _MOST_COMMITS / processes))
        told, cpu_s = together([committer.command()] * processes)
        took = sorted(one for each in told for one in each["took_ms"])
        first, last = max(one["began"] for one in told), min(one["ended"] for one in told)
        yield {
            "part": "commits", "ledger": kind, "at_once": processes,
            "a_second": sum(first <= at < last for each in told for at in each["at"]) / (last - first),
            "median_ms": took[len(took) // 2], "p99_ms": took[int(len(took) * 0.99)], "cpu_s": cpu_s,
            "failed": sum(one["failed"] for one in told),
        }  # fmt: skip


def growth(running: Server, kind: str, folder: Path, share: float) -> Iterator[Result]:
    """Measure the disk space of outcomes, and their removal."""
    from airflow_provider_regal.ledger.admin.retention import KeptFor, prune

    rows = int(OUTCOMES * share)
    for what in ("events", "contacts", "rejected"):
        ledger = _ledger(kind, folder)
        running.reset()
        before = _size(ledger)
        began = time.monotonic()
        _deliver(running, ledger, what, rows)
        wall_s = time.monotonic() - began
        size = _size(ledger) - before
        with closing(open_ledger(ledger)) as database:
            began = time.monotonic()
            much_later = datetime.now(UTC) + timedelta(days=3_650)
            removed = prune(database, now=much_later, kept_for=KeptFor(history_days=1))
            prune_s = time.monotonic() - began
        yield {
            "part": "growth", "ledger": kind, "what": what, "rows": rows, "wall_s": wall_s,
            "mb_per_million": size / rows, "prune_s_per_million": 1e6 * prune_s / rows, "removed": str(removed),
        }  # fmt: skip


def _deliver(running: Server, ledger: str, what: str, rows: int) -> None:
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.delivery.delivery import Delivery
    from airflow_provider_regal.delivery.settings import DeliverySettings
    from airflow_provider_regal.ledger.account import Account
    from airflow_provider_regal.ledger.deliveries import Place

    def source() -> Iterator[Result]:
        for number in range(rows):
            row: Result = {"user_id": f"customer-{number}", "plan": "gold", "amount": number}
            if what == "contacts":
                row |= {"phone": f"+1212{2_000_000 + number:07d}", "email": f"customer-{number}@example.com"}
            if what == "rejected":
                row["phone"] = "call the office"
            yield row

    call: Result = {"call": "identify"} if what != "events" else {"call": "track", "event": "Lesson Booked"}
    with closing(open_ledger(ledger)) as database:
        Delivery(
            place=Place.outside_a_task(),
            rows=lambda held: source(),
            fingerprint="",
            settings=DeliverySettings.of(**call, max_connections=64, max_rejected=1.0),
            target=Target("benchmark", running.url, KEY, rate_limit=NO_LIMIT),
            account=Account(database, account=ACCOUNT),
        ).run()


def _ledger(kind: str, folder: Path) -> str:
    where = Ledger(kind if kind == "sqlite" else os.environ["BENCHMARK_POSTGRES"], folder).where
    open_ledger(where).close()
    return where


def _size(ledger: str) -> int:
    """Return the bytes of the ledger's tables and indexes."""
    with closing(open_ledger(ledger)) as database:
        if "://" in ledger:
            sql = "SELECT sum(pg_total_relation_size(oid)) FROM pg_class WHERE relkind = 'r' AND relname LIKE 'regal%%'"
        else:
            sql = "SELECT page_count * page_size FROM pragma_page_count(), pragma_page_size()"
        return int(database.read(lambda connection: connection.exec_driver_sql(sql).scalar_one()))


PARTS: Final[dict[str, Callable[[Server, str, Path, float], Iterator[Result]]]] = {
    "deliveries": deliveries,
    "singles": singles,
    "commits": commits,
    "growth": growth,
}


def main() -> None:
    """Read the command line, measure, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", default=list(PARTS), metavar="part", help=", ".join(PARTS))
    parser.add_argument("--share", type=float, default=1.0, help="of the rows and seconds")
    given = parser.parse_args()
    os.environ.setdefault("BENCHMARK_POSTGRES", _POSTGRES)
    found = []
    with tempfile.TemporaryDirectory() as folder, server() as running:
        for part in given.parts:
            for kind in LEDGERS:
                for result in PARTS[part](running, kind, Path(folder), given.share):
                    told = {**result, "load": round(os.getloadavg()[0], 2)}
                    print(told, flush=True)
                    found.append(told)
    write_results("at_scale", found)


if __name__ == "__main__":
    main()
