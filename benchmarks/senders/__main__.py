"""Run one sender and measure it; the last line it prints is JSON."""

from __future__ import annotations

import json
import logging
import os
import resource
import sys
import time
from importlib import import_module
from pathlib import Path

from benchmarks.senders.work import Work

#: Until then, the warm-up counts against the account's rate.
_PACED_AFTER_S = 1.5


def cpu_s() -> float:
    """Return the CPU seconds of this process and of its finished children, user and system."""
    spent = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in spent)


def peak_mb() -> float:
    """Return the maximum resident set of this process; ``getrusage`` includes the process it was forked from."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024, 1)


def main(name: str, given: str) -> None:
    """Warm up, then send and measure."""
    logging.disable(logging.INFO)
    work = Work(**json.loads(given))
    sender = import_module(f"benchmarks.senders.{name}")
    prepare, send = getattr(sender, "prepare", lambda work: None), sender.send
    prepare(work.warm_up())
    warmed = send(work.warm_up())
    if work.rate < Work.rate:
        time.sleep(_PACED_AFTER_S)
    prepare(work)
    before, begun = cpu_s(), time.monotonic()
    acknowledged = send(work)
    wall, cpu = time.monotonic() - begun, cpu_s() - before
    result = {
        "acknowledged": acknowledged,
        "acknowledged_in_all": warmed + acknowledged,
        "wall_s": round(wall, 4),
        "cpu_s": round(cpu, 4),
        "peak_mb": peak_mb(),
        "core": sorted(os.sched_getaffinity(0)),
        **getattr(sender, "also", lambda work: {})(work),
    }
    sys.stdout.write(f"\n{json.dumps(result)}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
