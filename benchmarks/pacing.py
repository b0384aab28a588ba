"""Whether the rate limit is respected, and how much of it is used, by the server's clock.

``python -m benchmarks.pacing [--runs 10] [--seconds 4] [--limits 100,300,1000] [--margins 0.96,0.97,0.98,0.99]``

Each run is a delivery (``SqlToRegalOperator.execute``) in its own process, with as many rows as the limit allows in the
time. The latency is constant, or alternates between two values every second. Computed from the server's arrivals:

- ``worst``: the most in any second, wherever it begins. It must never exceed the limit.
- ``share``: arrivals per second from ``RAMP_S`` after the first one to the last one, as a share of the limit: how much
  of the limit a delivery uses once it is running. A delivery starts with as many connections as 100 ms need and learns
  the latency from the answers.
- ``share_whole``: the same from the first arrival on, so including the ramp.
- ``burst``: the most in any 10 ms.

If the server itself stalls, as on a busy machine, arrivals that were spaced appear at once. The server detects this,
and the run is repeated: ``repeated`` is the number of repetitions.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import contacts
from benchmarks.running import Server, run_on_a_core, server, stolen_s, write_results
from benchmarks.senders.work import WARM_UP, Work
from benchmarks.sink import KEY
from benchmarks.whole_path import check

LIMITS: Final = (100, 300, 1_000)
LATENCIES: Final = ((20, 20), (100, 100), (300, 300), (20, 100), (100, 300), (300, 20))
RAMP_S: Final = 1.5
# How much of the limit has to be used once running.
WANTED: Final = {100: 0.95, 300: 0.95, 1_000: 0.94}
MOST_STALL_MS: Final = 20.0
_MOST_REPEATS: Final = 5
_DEFAULT_CONNECTIONS: Final = 256
_MOST_CONNECTIONS: Final = 512


@dataclass(frozen=True)
class Cell:
    """The common settings of a group of runs.

    :param jump_ms: the latency in every other second.
    :param margin: the share of the limit that the pacer aims at; None for its default.
    """

    limit: int
    latency_ms: int
    jump_ms: int
    margin: float | None = None


def worst_window(arrivals: Sequence[float], width_s: float = 1.0) -> int:
    """Count the most arrivals in any window of a given width, excluding its end."""
    worst = begin = 0
    for end, at in enumerate(arrivals):
        while at - arrivals[begin] >= width_s:
            begin += 1
        worst = max(worst, end - begin + 1)
    return worst


def share_of(arrivals: Sequence[float], limit: int, *, after_s: float) -> float:
    """Return the arrivals per second after an initial period, up to the last one, as a share of the limit."""
    begin = arrivals[0] + after_s
    counted = sum(at > begin for at in arrivals)
    return counted / (arrivals[-1] - begin) / limit


def in_bins(arrivals: Sequence[float], width_s: float = 0.01) -> list[int]:
    """Count arrivals in bins, for the picture."""
    counts = Counter(int((at - arrivals[0]) / width_s) for at in arrivals)
    return [counts[number] for number in range(max(counts) + 1)]


def judge(arrivals: Sequence[float], limit: int) -> dict[str, Any]:
    """Compute the results from the server's records."""
    return {
        "worst": worst_window(arrivals),
        "share": round(share_of(arrivals, limit, after_s=RAMP_S), 4),
        "share_whole": round(share_of(arrivals, limit, after_s=0.0), 4),
        "burst": worst_window(arrivals, 0.01),
    }


def one_run(running: Server, cell: Cell, *, database: Path, folder: Path, seconds: float) -> dict[str, Any]:
    """Run one delivery and compute its results."""
    count = int(cell.limit * seconds)
    connections = min(_MOST_CONNECTIONS, max(_DEFAULT_CONNECTIONS, cell.limit // 2))
    work = Work(str(database), WARM_UP, count, running.url, KEY, connections, str(folder), cell.limit, cell.margin)
    running.reset(latency_ms=cell.latency_ms, jump_ms=cell.jump_ms)
    stolen = stolen_s()
    ran = run_on_a_core(["benchmarks.senders", "regal", work.as_json()], urgent=True)
    counts, stolen = running.stats(), stolen_s() - stolen
    check("regal", sent=WARM_UP + count, acknowledged=ran.pop("acknowledged_in_all"), counts=counts)
    arrivals = running.arrivals()[WARM_UP:]
    cpu_share = round(ran["cpu_s"] / ran["wall_s"], 4)
    return {
        **asdict(cell),
        **judge(arrivals, cell.limit),
        "cpu_share": cpu_share,
        **ran,
        "load": round(os.getloadavg()[0], 2),
        "stolen_s": round(stolen, 2),
        "server_stall_ms": counts["stall_ms"],
        "bins": in_bins(arrivals),
    }


def runs(cells: Sequence[Cell], count: int, *, seconds: float) -> Iterator[dict[str, Any]]:
    """Yield one result after the other: every cell once, then every cell again."""
    with ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        running = open_things.enter_context(server())
        contacts.make_table(folder / "contacts.db", WARM_UP + int(max(cell.limit for cell in cells) * seconds))
        for number in range(count):
            for place, cell in enumerate(cells):
                for repeated in range(_MOST_REPEATS + 1):
                    result = one_run(
                        running,
                        cell,
                        database=folder / "contacts.db",
                        folder=folder / f"{number}-{place}-{repeated}",
                        seconds=seconds,
                    )
                    if result["server_stall_ms"] <= MOST_STALL_MS:
                        break
                if number:  # one picture of each cell is enough
                    del result["bins"]
                yield {"run": number, "repeated": repeated, **result}


def say(result: dict[str, Any]) -> str:
    """Print one result on a line."""
    latency = f"{result['latency_ms']}-{result['jump_ms']} ms"
    over = "  OVER THE LIMIT" if result["worst"] > result["limit"] else ""
    return (
        f"{result['run']} {result['limit']:>5}/s {latency:>11} margin {result['margin'] or 'own':<5}"
        f" worst second {result['worst']:>5}, share {result['share']:.1%} (with ramp {result['share_whole']:.1%}),"
        f" burst {result['burst']}, CPU {result['cpu_share']:.0%}, server stood still {result['server_stall_ms']} ms,"
        f" load {result['load']}, stolen {result['stolen_s']} s{over}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=4.0, help="about how long a run sends")
    parser.add_argument("--limits", default=",".join(map(str, LIMITS)))
    parser.add_argument("--latencies", help="such as 20-20,100-300; by default all")
    parser.add_argument("--margins", help="shares of the limit to aim at, with commas; by default the pacer's own")
    parser.add_argument("--keep", default="pacing", help="name of the file of results")
    given = parser.parse_args(arguments)
    latencies: Sequence[tuple[int, int]] = LATENCIES
    if given.latencies:
        pairs = (pair.split("-") for pair in given.latencies.split(","))
        latencies = [(int(low), int(high)) for low, high in pairs]
    margins = [float(margin) for margin in given.margins.split(",")] if given.margins else [None]
    cells = [
        Cell(int(limit), *pair, margin) for margin in margins for limit in given.limits.split(",") for pair in latencies
    ]
    found = []
    for result in runs(cells, given.runs, seconds=given.seconds):
        print(say(result), flush=True)
        found.append(result)
    print(write_results(given.keep, found, seconds=given.seconds, ramp_s=RAMP_S))


if __name__ == "__main__":
    main()
