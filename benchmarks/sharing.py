"""Whether all senders of an account together respect one rate limit, and use it, by the server's clock.

``python -m benchmarks.sharing [--seconds 30] [--senders 1,2,4,8,16] [--limits 100,300,1000] [--latencies 20,300]
[--ledger postgresql://...]``

Each sender is its own process; if there are several, half of them join and leave at random. Computed from the server's
arrivals:

- ``worst``: the most in any second, wherever it begins. It must never exceed the limit.
- ``share``: arrivals per second while all that stay have rows, as a share of the limit: from two seconds after the last
  of them has begun until the first of them stops.
- ``jain``: how equally those that stay were served in that time, from 1/n to 1.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from benchmarks.pacing import MOST_STALL_MS, in_bins, worst_window
from benchmarks.running import PROJECT, Server, server, write_results
from benchmarks.sharing_worker import Sender
from benchmarks.sink import KEY

SENDERS: Final = (1, 2, 4, 8, 16)
LIMITS: Final = (100, 300, 1_000)
LATENCIES: Final = (20, 300)
WANTED: Final = 0.93
BIN_S: Final = 0.2
_SETTLED_S: Final = 2.0


@dataclass(frozen=True)
class Cell:
    """The settings of a run.

    :param singles: number of processes that send events one by one, in addition to the deliveries.
    """

    senders: int
    limit: int
    latency_ms: int
    ledger: str
    singles: int = 0


def jain(served: Sequence[float]) -> float:
    """Return the fairness index: 1 if all were served equally, 1/n if one had everything."""
    return sum(served) ** 2 / len(served) / sum(one * one for one in served)


class Ledger:
    """An empty ledger in SQLite or PostgreSQL."""

    def __init__(self, kind: str, folder: Path) -> None:
        self.where = str(folder / f"{uuid4().hex}.db")
        if kind != "sqlite":
            from sqlalchemy import create_engine
            from sqlalchemy.engine import make_url

            name = f"regal_benchmark_{uuid4().hex[:8]}"
            engine = create_engine(kind, isolation_level="AUTOCOMMIT")
            with engine.connect() as connection:
                connection.exec_driver_sql(f"CREATE DATABASE {name}")
            engine.dispose()
            self.where = make_url(kind).set(database=name).render_as_string(hide_password=False)


def plan_of(cell: Cell, seconds: float, chance: random.Random) -> list[tuple[float, float, bool]]:
    """Return when each sender starts, how long it sends, and whether it sends single events."""
    stay = max(1, cell.senders // 2)
    told = [(0.0, seconds, False)] * stay
    for _ in range(cell.senders - stay):
        start = chance.uniform(0, seconds / 2)
        told.append((start, chance.uniform(seconds / 6, seconds / 2), False))
    return told + [(0.1, seconds, True)] * cell.singles


def one_run(running: Server, cell: Cell, *, seconds: float, seed: int, folder: Path) -> dict[str, Any]:
    """Run the senders, and compute the results from what arrived."""
    chance = random.Random(seed)  # noqa: S311 - reproducible
    kind = cell.ledger if cell.ledger == "sqlite" else os.environ["BENCHMARK_POSTGRES"]
    ledger = Ledger(kind, folder).where
    running.reset(latency_ms=cell.latency_ms)
    started = list[tuple[float, float, subprocess.Popen[str]]]()
    waiting = sorted(plan_of(cell, seconds, chance))
    began = time.monotonic()
    while waiting:
        start, lasts, single = waiting.pop(0)
        time.sleep(max(0.0, began + start - time.monotonic()))
        name, rows = f"s{len(started)}", int(cell.limit * (lasts + 1))
        sender = Sender(running.url, KEY, ledger, name, cell.limit, rows=rows, seconds=lasts, singles=single)
        process = subprocess.Popen(sender.command(), cwd=PROJECT, stdout=subprocess.PIPE, text=True)
        started.append((start, lasts, process))
    stay, stops = [], []
    for number, (start, lasts, process) in enumerate(started):
        told = json.loads(process.communicate()[0].splitlines()[-1])
        if not start:
            stay.append(number)
            stops.append(told["began"] + lasts)
    arrivals, senders = running.arrivals(), running.senders()
    begun = {number: at for at, number in zip(reversed(arrivals), reversed(senders), strict=True)}
    first, last = max(begun[number] for number in stay) + _SETTLED_S, min(stops)
    steady = [number for at, number in zip(arrivals, senders, strict=True) if first <= at < last]
    return {
        **asdict(cell),
        "seed": seed,
        "arrivals": len(arrivals),
        "worst": worst_window(arrivals),
        "share": round(len(steady) / (last - first) / cell.limit, 4),
        "jain": round(jain([steady.count(number) for number in stay]), 4),
        "seconds": round(last - first, 1),
        "server_stall_ms": running.stats()["stall_ms"],
        "load": round(os.getloadavg()[0], 2),
        "bins": in_bins(arrivals, BIN_S),
    }


def runs(cells: Sequence[Cell], *, seconds: float, count: int) -> Iterator[dict[str, Any]]:
    """Yield one result after the other."""
    with tempfile.TemporaryDirectory() as folder, server() as running:
        for cell in cells:
            for seed in range(count):
                found = one_run(running, cell, seconds=seconds, seed=seed, folder=Path(folder))
                if found["server_stall_ms"] > MOST_STALL_MS:
                    found = {**one_run(running, cell, seconds=seconds, seed=seed, folder=Path(folder)), "again": True}
                yield found


def main() -> None:
    """Read the command line, measure, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--senders", default=",".join(map(str, SENDERS)))
    parser.add_argument("--limits", default=",".join(map(str, LIMITS)))
    parser.add_argument("--latencies", default=",".join(map(str, LATENCIES)))
    parser.add_argument("--ledgers", default="postgresql,sqlite")
    parser.add_argument("--singles", type=int, default=0)
    parser.add_argument("--keep", default="sharing", help="name of the file of results")
    given = parser.parse_args()
    os.environ.setdefault("BENCHMARK_POSTGRES", "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres")

    def numbers(text: str) -> list[int]:
        return [int(one) for one in text.split(",")]

    cells = [
        Cell(senders, limit, latency, ledger, given.singles)
        for ledger in given.ledgers.split(",")
        for limit in numbers(given.limits)
        for latency in numbers(given.latencies)
        for senders in numbers(given.senders)
    ]
    found = []
    for result in runs(cells, seconds=given.seconds, count=given.runs):
        print({name: value for name, value in result.items() if name != "bins"}, flush=True)
        found.append(result)
    write_results(given.keep, found)


if __name__ == "__main__":
    main()
