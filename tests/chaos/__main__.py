"""Run storms: ``python -m tests.chaos [--seed 1] [--runs 20] [--jobs 4]``; ``make chaos`` does the same.

Prints the seed, so that a storm can be repeated: ``make chaos SEED=17 RUNS=1``. For a storm that breaks a promise,
prints its script and what broke.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter

from tests.chaos.breaking import BREAKS
from tests.chaos.results import keep
from tests.chaos.running import run_storms
from tests.chaos.storm import LEDGERS, draw, long_outages


def main() -> int:
    """Read the command line; return the exit code, 1 if a promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--seed", type=int, default=None, help="of the first storm; drawn and printed if not given")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=4, help="storms at a time")
    parser.add_argument("--ledgers", default=",".join(LEDGERS), help="sqlite,postgresql or one of them")
    parser.add_argument("--long-outages", action="store_true", help="instead: Regal down for ten real minutes")
    parser.add_argument("--break", dest="broken", choices=sorted(BREAKS), help="break the package first, in this way")
    parser.add_argument("--keep", action="store_true", help="write the results to benchmarks/results/chaos.json")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1_000_000) if given.seed is None else given.seed
    if given.long_outages:
        storms = long_outages()
    else:
        storms = [draw(one, ledgers=tuple(given.ledgers.split(","))) for one in range(seed, seed + given.runs)]
        print(f"Repeat these {given.runs} storms with: make chaos SEED={seed} RUNS={given.runs}", flush=True)
    began = time.monotonic()
    results = []
    for result in run_storms(storms, jobs=given.jobs, broken=given.broken):
        results.append(result)
        if given.keep:  # the results so far
            keep(results, "chaos_outages" if given.long_outages else "chaos")
    failed = [result["seed"] for result in results if result["broken"]]
    kinds = Counter(kind for result in results for kind in result["kinds"])
    print(f"{len(results)} storms in {time.monotonic() - began:.0f} s, {len(failed)} broken: {failed}")
    print(", ".join(f"{kind} {count}" for kind, count in kinds.most_common()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
