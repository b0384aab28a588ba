"""Run benchmarks: ``python -m benchmarks [--full] [part ...]``; without parts, all of them and then the report.

Without ``--full`` each part is shortened so that all of them take about 40 minutes: with the same kinds of runs, but
fewer or shorter ones. ``--full`` takes about two and a half hours.
"""

from __future__ import annotations

import argparse
import importlib.util
import shlex
import subprocess
import sys
import time
from typing import Final

from benchmarks.running import PROJECT

# Part -> module, its arguments for a short run, and for a full one.
PARTS: Final = {
    "whole_path": ("whole_path", "--rounds 6 --share 0.3", "--rounds 6"),
    "where_it_goes": ("where_it_goes", "--rounds 2 --share 0.5", "--rounds 3"),
    "pacing": ("pacing", "--runs 2", "--runs 10"),
    "pacing_margins": (
        "pacing",
        "--keep pacing_margins --runs 1 --margins 0.96,0.97,0.98,0.99,1.0 --latencies 20-20,300-300,100-300",
        "--keep pacing_margins --runs 5 --margins 0.96,0.97,0.98,0.99,1.0 --latencies 20-20,300-300,100-300",
    ),
    "pacing_cpu": (
        "pacing",
        "--keep pacing_cpu --runs 2 --limits 300 --latencies 20-20,100-100 --seconds 15",
        "--keep pacing_cpu --runs 5 --limits 300 --latencies 20-20,100-100,300-300 --seconds 30",
    ),
    "sharing": ("sharing", "--seconds 12 --senders 1,4,16 --latencies 20", "--seconds 30"),
    "sharing_simulated": ("sharing_simulated", "", ""),
    "at_scale": ("at_scale", "--share 0.3", ""),
    "memory": ("memory", "--rows 100000", ""),
    "unchanged_contacts": ("unchanged_contacts", "--rows 100000 --rounds 2", "--rounds 3"),
    "sync_unchanged": ("sync_unchanged", "200000 3", "1000000 6"),
    "contract": ("contract", "20000 3", "20000 5"),
    "pages": ("pages", "--deliveries 1000 --outcomes 500000 --rounds 5", "--rounds 12"),
    "dag_parse": ("dag_parse", "", ""),
    "start_up": ("start_up", "", ""),
    "report": ("report", "", ""),
}


def main() -> None:
    """Run the parts, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("parts", nargs="*", metavar="part", help=", ".join(PARTS))
    parser.add_argument("--full", action="store_true")
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"there is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    for part in given.parts or PARTS:
        module, short, full = PARTS[part]
        if importlib.util.find_spec(f"benchmarks.{module}") is None:
            print(f"== {part}: not there", flush=True)
            continue
        begun = time.monotonic()
        print(f"== {part}", flush=True)
        command = [sys.executable, "-m", f"benchmarks.{module}", *shlex.split(full if given.full else short)]
        subprocess.run(command, cwd=PROJECT, check=True)
        print(f"== {part} took {time.monotonic() - begun:.0f} s", flush=True)


if __name__ == "__main__":
    main()
