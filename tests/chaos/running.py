"""Run storms, several at a time, and record the result of each."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from tests.chaos import sender
from tests.chaos.storm import Storm

MOST_AGAIN = 3


def settle_in(home: str) -> None:
    """Prepare a process that runs storms, and the tries that it starts, with a separate Airflow environment."""
    os.environ["AIRFLOW_HOME"] = home
    os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
    sys.setswitchinterval(0.001)  # the front's clock must not wait for the local Regal
    processes = get_context("forkserver")
    processes.set_forkserver_preload(sender.IMPORTED)
    nothing = processes.Process(target=int)  # after this process has ended, everything a try needs has been imported
    nothing.start()
    nothing.join()


def one_storm(storm: Storm, broken: str | None) -> dict[str, Any]:
    """Run one storm and judge it; repeat it if the machine was too busy to judge the rate."""
    from tests.chaos.happening import Happening
    from tests.chaos.judge import judge

    again = -1
    while True:
        again += 1
        with tempfile.TemporaryDirectory(prefix="storm-") as folder:
            found = Happening(storm, Path(folder), broken=broken).happen()
            verdict = judge(found)
            if verdict.broken and (keep := os.environ.get("CHAOS_KEEP")):
                _keep(Path(folder), Path(keep) / f"storm-{storm.seed}")
        if not verdict.late or again == MOST_AGAIN:
            break
    happened = [str(spell.trouble) for spell in found.spells]
    return {
        **storm.as_dict(),
        **{name: value for name, value in asdict(verdict).items() if name != "counts"},
        **verdict.counts,
        "happened": happened,
        "kinds": sorted({spell.trouble.kind for spell in found.spells}),
        "again": again,
        "load": round(found.load, 1),
        "seconds": round(found.seconds, 1),
        "script": storm.script(),
        "tries_told": [f"{one.ended} {one.error[:160]}" for one in found.tries],
    }


def _keep(folder: Path, where: Path) -> None:
    shutil.copytree(folder, where, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.pem", "hashed"))


def run_storms(storms: Sequence[Storm], *, jobs: int, broken: str | None = None) -> Iterator[dict[str, Any]]:
    """Run storms, several at a time, each in its own process; print a line for each, and return it."""
    with (
        tempfile.TemporaryDirectory(prefix="chaos-airflow-") as home,
        ProcessPoolExecutor(jobs, get_context("spawn"), settle_in, (home,)) as pool,
    ):
        futures = [pool.submit(one_storm, storm, broken) for storm in storms]
        for future in as_completed(futures):
            result = future.result()
            print(line_of(result), flush=True)
            if result["broken"]:
                print(_failure(result), flush=True)
            yield result


def line_of(result: dict[str, Any]) -> str:
    """Describe a storm in one line."""
    fate = "BROKEN" if result["broken"] else "held"
    kinds = " ".join(result["kinds"]) or "calm"
    return (
        f"storm {result['seed']}: {fate} · {result['guarantee']} {result['source']} {result['ledger']} · {kinds} · "
        f"{result['tries']} tries, {result['kills']} kills, {result['repeats']} repeats, {result['unknown']} unknown, "
        f"{result['worst_window']}/{result['rate']} in a second · {result['seconds']} s"
    )


def _failure(result: dict[str, Any]) -> str:
    broken = "\n".join(f"  ! {what}" for what in result["broken"][:10])
    more = len(result["broken"]) - 10
    told = [f"  try {number}: {told}" for number, told in enumerate(result["tries_told"], 1)]
    tries = "\n".join(told if len(told) < 12 else [*told[:5], "  ...", *told[-5:]])
    repeat = f"  Repeat it with: make chaos SEED={result['seed']} RUNS=1"
    return "\n".join([broken, *([f"  ! and {more} more"] if more > 0 else []), result["script"], tries, repeat])
