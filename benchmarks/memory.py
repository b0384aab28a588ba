"""Memory and disk: a million rows actually sent, compared with ten thousand, from SQLite and from PostgreSQL.

``python -m benchmarks.memory [--rows 1000000] [--sources sqlite,postgres] [--postgres URI]``

Each run is a delivery in its own process, unpaced; its peak is the maximum resident set reported by the system
(``VmHWM``). The bare process has imported Airflow's ``BaseOperator`` and ``BaseHook`` and does nothing. The table in
PostgreSQL is created for the run and dropped afterwards.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from benchmarks import contacts
from benchmarks.running import run_on_a_core, server, write_results
from benchmarks.senders.work import WARM_UP, Work
from benchmarks.sink import KEY
from benchmarks.whole_path import check

FEW: Final = 10_000
POSTGRES: Final = "postgres://postgres@127.0.0.1:5432/test"
_CONNECTIONS: Final = 32


@contextmanager
def in_postgres(uri: str, count: int) -> Iterator[None]:
    """Create the table in PostgreSQL temporarily."""
    import psycopg2

    connection = psycopg2.connect(uri)
    with connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS contacts")
        cursor.execute(f"CREATE TABLE contacts ({', '.join(contacts.COLUMNS)})".replace(" REAL", " DOUBLE PRECISION"))
        for begin in range(0, count, 50_000):
            numbers = range(begin, min(begin + 50_000, count))
            text = "".join("\t".join(map(str, contacts.contact(number))) + "\n" for number in numbers)
            cursor.copy_expert("COPY contacts FROM STDIN", io.StringIO(text))
    try:
        yield
    finally:
        with connection, connection.cursor() as cursor:
            cursor.execute("DROP TABLE contacts")
        connection.close()


def runs(sources: Sequence[str], many: int, *, postgres: str) -> Iterator[dict[str, Any]]:
    """Yield one result after the other."""
    with ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        running = open_things.enter_context(server())
        work = Work("", WARM_UP, FEW, running.url, KEY, _CONNECTIONS, str(folder / "bare"))
        bare = run_on_a_core(["benchmarks.senders", "bare_process", work.as_json()])
        yield {"source": "none", "rows": 0, "peak_mb": bare["peak_mb"]}
        for source in sources:
            database, environment = folder / "contacts.db", {}
            if source == "postgres":
                open_things.enter_context(in_postgres(postgres, WARM_UP + many))
                environment = {"BENCHMARK_SOURCE": postgres}
            else:
                contacts.make_table(database, WARM_UP + many)
            for count in (FEW, many):
                running.reset()
                work = Work(
                    str(database), WARM_UP, count, running.url, KEY, _CONNECTIONS, str(folder / f"{source}-{count}")
                )
                ran = run_on_a_core(["benchmarks.senders", "regal_memory", work.as_json()], environment=environment)
                acknowledged = ran.pop("acknowledged_in_all")
                check("regal", sent=WARM_UP + count, acknowledged=acknowledged, counts=running.stats())
                yield {"source": source, "rows": count, **ran, "load": round(os.getloadavg()[0], 2)}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sources", default="sqlite,postgres")
    parser.add_argument("--postgres", default=POSTGRES, help="URI of a database whose table contacts may be replaced")
    parser.add_argument("--keep", default="memory", help="name of the file of results")
    given = parser.parse_args(arguments)
    found = []
    for result in runs(given.sources.split(","), given.rows, postgres=given.postgres):
        print(json.dumps({name: value for name, value in result.items() if name != "files"}), flush=True)
        found.append(result)
    print(write_results(given.keep, found))


if __name__ == "__main__":
    main()
