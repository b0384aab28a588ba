"""The cost of a contact that is unchanged since it was last acknowledged: ``only_changed=True``, a ledger in SQLite.

``python -m benchmarks.unchanged_contacts [--rows 1000000] [--rounds 3]``

Each run is a delivery (``SqlToRegalOperator.execute``) in its own process; the ledger was written before. A round has a
delivery without changed rows, one with one row in a hundred changed, and one of ten thousand rows, for its memory. CPU
is that of the whole delivery: rows read from SQLite, written to the snapshot, hashed, looked up in the ledger, counted
as unchanged; reading the query alone is measured separately. Unlike in an opt-in sync (``sync_unchanged``), all rows go
through the first pass, as in any delivery.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from benchmarks import contacts
from benchmarks.running import run_on_a_core, server, write_results
from benchmarks.senders.work import WARM_UP, Work
from benchmarks.sink import KEY
from benchmarks.whole_path import check

FEW: Final = 10_000
ONE_IN: Final = 100


def runs(rounds: int, many: int) -> Iterator[dict[str, Any]]:
    """Yield one result after the other."""
    with ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        running = open_things.enter_context(server())
        contacts.make_table(folder / "contacts.db", WARM_UP + many)
        for number in range(rounds):
            for count, one_in in ((FEW, ONE_IN), (many, 0), (many, ONE_IN)):
                place = open_things.enter_context(tempfile.TemporaryDirectory())
                work = Work(
                    str(folder / "contacts.db"), WARM_UP, count, running.url, KEY, 32, place, changed_every=one_in
                )
                running.reset()
                ran = run_on_a_core(["benchmarks.senders", "regal_unchanged", work.as_json()])
                changed = len(range(0, WARM_UP + count, one_in)) if one_in else 0
                acknowledged = ran.pop("acknowledged_in_all")
                check("regal", sent=changed, acknowledged=acknowledged, counts=running.stats())
                load = round(os.getloadavg()[0], 2)
                yield {"round": number, "rows": count, "changed_every": one_in, **ran, "load": load}


def say(result: dict[str, Any]) -> str:
    """Print one result on a line."""
    each, reading = (1e6 * result[name] / result["rows"] for name in ("cpu_s", "reading_cpu_s"))
    return (
        f"{result['round']} {result['rows']:>9,} rows, {result['acknowledged']:>6,} changed: {each:.1f} us CPU a row,"
        f" {reading:.1f} of them to read the query; peak {result['peak_mb']} MB; load {result['load']}"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--keep", default="unchanged_contacts", help="name of the file of results")
    given = parser.parse_args(arguments)
    found = []
    for result in runs(given.rounds, given.rows):
        print(say(result), flush=True)
        found.append(result)
    print(write_results(given.keep, found))


if __name__ == "__main__":
    main()
