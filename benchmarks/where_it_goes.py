"""Where each microsecond of a row goes: ``python -m benchmarks.where_it_goes [--rounds 3] [--share 1.0]``.

py-spy samples the stacks of a delivery's running threads 500 times per second. The delivery's CPU time is assigned to
the stages according to their number of samples.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import contacts
from benchmarks.running import server, write_results
from benchmarks.senders.work import WARM_UP
from benchmarks.stages import STAGES
from benchmarks.whole_path import CANDIDATES, Setting, one_run


def runs(rounds: int, *, share: float) -> Iterator[dict[str, Any]]:
    """Yield one result after the other."""
    with ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        contacts.make_table(folder / "contacts.db", WARM_UP + max(CANDIDATES["regal"]))
        for tls in (False, True):
            running = open_things.enter_context(server(tls=tls))
            for number in range(rounds):
                place = folder / f"{tls}-{number}"
                ran = one_run(
                    "regal_sampled",
                    running,
                    Setting(tls, 0),
                    database=folder / "contacts.db",
                    folder=place,
                    share=share,
                )
                yield {"round": number, "tls": tls, **ran}


def microseconds(result: dict[str, Any]) -> dict[str, float]:
    """Return the microseconds per row in each stage."""
    seen = result["stages"]
    each = 1e6 * result["cpu_s"] / result["rows"] / sum(seen.values())
    return {stage: each * seen.get(stage, 0) for stage in STAGES}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows a run usually has")
    parser.add_argument("--keep", default="where_it_goes", help="name of the file of results")
    given = parser.parse_args(arguments)
    found = []
    for result in runs(given.rounds, share=given.share):
        print(result["tls"], {stage: round(spent, 1) for stage, spent in microseconds(result).items()}, flush=True)
        found.append(result)
    print(write_results(given.keep, found))


if __name__ == "__main__":
    main()
