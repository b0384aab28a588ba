"""The whole path and its alternatives: SQLite rows to a server that answers 200, at two latencies, plain and over TLS.

``python -m benchmarks.whole_path [--rounds 6] [--share 1.0] [--only regal,bare_loop,http_hook] [--plain]
[--latencies 0,50]``

A round runs every candidate once in each setting, in an order that rotates with every round. The modules in
``benchmarks/senders/`` describe the candidates. CPU is that of the whole process and its children, without what
happened before the first measured row; the answers a candidate received are compared with what the server counted.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import contacts, wrk
from benchmarks.running import Server, run_on_a_core, server, stolen_s, write_results
from benchmarks.senders.work import WARM_UP, Work
from benchmarks.sink import KEY

# Rows per run, without latency and at 50 ms: three to five seconds' worth. One at a time, 50 ms allow 19 rows/s.
CANDIDATES: Final = {
    "regal": (20_000, 8_000),
    "regal_track": (20_000, 8_000),
    "regal_postgres": (20_000, 8_000),
    "regal_track_postgres": (20_000, 8_000),
    "regal_asyncio": (20_000, 8_000),
    "bare_loop": (26_000, 10_000),
    "bare_loop_uvloop": (26_000, 10_000),
    "http_hook": (1_500, 160),
    "one_by_one": (1_500, 160),
    "threads": (3_000, 1_600),
    "drt_project": (2_500, 160),
    "dlt_pipeline": (2_000, 1_200),
}
ONE_AT_A_TIME_OVER_TLS: Final = 0.4
# For candidates with several connections: few if answers come at once, enough for 5,000 rows/s at 50 ms.
CONNECTIONS: Final = {0: 32, 50: 256}
WRK_S: Final = 5.0


@dataclass(frozen=True)
class Setting:
    """The setting in which the candidates of a round are compared."""

    tls: bool
    latency_ms: int

    @property
    def connections(self) -> int:
        """The maximum number of open connections."""
        return CONNECTIONS[self.latency_ms]


SETTINGS: Final = tuple(Setting(tls, latency_ms) for latency_ms in CONNECTIONS for tls in (False, True))


class WrongCountError(RuntimeError):
    """The server did not receive what the candidate claims to have sent."""


def check(name: str, *, sent: int, acknowledged: int, counts: dict[str, int]) -> None:
    """Compare what a candidate and the server counted.

    :param sent: rows it was given in total.
    :raises WrongCountError: they differ, so the run is not a valid measurement.
    """
    wanted = {"ok": sent, "bad": 0, "different": sent}
    found = {what: counts[what] for what in wanted}
    if acknowledged != sent or found != wanted:
        raise WrongCountError(f"{name}: {sent} rows, {acknowledged} acknowledged, but the server counted {found}")


def one_run(name: str, running: Server, setting: Setting, *, database: Path, folder: Path, share: float) -> Any:
    """Run one candidate once, and check it."""
    count = max(50, int(CANDIDATES.get(name, CANDIDATES["regal"])[setting.latency_ms > 0] * share))
    if setting.tls and name in ("http_hook", "one_by_one"):
        count = max(50, int(count * ONE_AT_A_TIME_OVER_TLS))
    work = Work(str(database), WARM_UP, count, running.url, KEY, setting.connections, str(folder / name))
    running.reset(latency_ms=setting.latency_ms)
    busy = running.stats()["cpu_s"]
    trusted = {}
    if running.certificate:
        trusted = dict.fromkeys(("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"), str(running.certificate))
    ran = run_on_a_core(["benchmarks.senders", name, work.as_json()], environment=trusted)
    counts = running.stats()
    check(name, sent=WARM_UP + count, acknowledged=ran.pop("acknowledged_in_all"), counts=counts)
    return {"rows": count, **ran, "server_cpu_s": round(counts["cpu_s"] - busy, 3)}


def run_wrk(running: Server, setting: Setting, *, bodies: Path) -> dict[str, Any]:
    """Run wrk once, and check it: requests in flight at its end were counted by the server only."""
    running.reset(latency_ms=setting.latency_ms)
    busy = running.stats()["cpu_s"]
    ran = wrk.run(running.url, KEY, bodies, connections=setting.connections, seconds=WRK_S)
    counts = running.stats()
    if counts["bad"] or not 0 <= counts["ok"] - ran["acknowledged"] <= setting.connections:
        raise WrongCountError(f"wrk: {ran['acknowledged']} answers, but the server counted {counts}")
    return {"rows": ran["acknowledged"], **ran, "server_cpu_s": round(counts["cpu_s"] - busy, 3)}


def rounds(count: int, names: Sequence[str], settings: Sequence[Setting], *, share: float) -> Iterator[dict[str, Any]]:
    """Yield one result after the other."""
    with ExitStack() as open_things:
        folder = Path(open_things.enter_context(tempfile.TemporaryDirectory()))
        servers = {tls: open_things.enter_context(server(tls=tls)) for tls in {setting.tls for setting in settings}}
        database, bodies = folder / "contacts.db", folder / "bodies.jsonl"
        contacts.make_table(database, WARM_UP + max(max(counts) for counts in CANDIDATES.values()))
        with bodies.open("wb") as file:
            file.writelines(
                contacts.encoded(contacts.body_of(row)) + b"\n" for row in contacts.rows(database, 0, 5_000)
            )
        for number in range(count):
            for setting in settings:
                at = number % len(names)
                for name in (*names[at:], *names[:at]):
                    stolen = stolen_s()
                    place = folder / f"{number}-{setting.tls}-{setting.latency_ms}"
                    if name == "wrk":
                        ran = run_wrk(servers[setting.tls], setting, bodies=bodies)
                    else:
                        ran = one_run(name, servers[setting.tls], setting, database=database, folder=place, share=share)
                    machine = {"load": round(os.getloadavg()[0], 2), "stolen_s": round(stolen_s() - stolen, 2)}
                    yield {"round": number, **asdict(setting), "candidate": name, **ran, **machine}


def say(result: dict[str, Any]) -> str:
    """Print one result on a line."""
    per_10k, speed = 1e4 * result["cpu_s"] / result["rows"], result["rows"] / result["wall_s"]
    how = f"{'tls' if result['tls'] else 'plain'} {result['latency_ms']} ms"
    return (
        f"{result['round']} {how:<12}{result['candidate']:<12}{per_10k:>8.2f} CPU s/10,000 {speed:>8.0f} rows/s"
        f"   (server {result['server_cpu_s'] / result['wall_s']:.0%}, load {result['load']})"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line, measure, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--share", type=float, default=1.0, help="of the rows a run usually has")
    parser.add_argument("--only", help="names of candidates, with commas")
    parser.add_argument("--plain", action="store_true", help="without TLS")
    parser.add_argument("--latencies", default="0,50", help="in ms")
    parser.add_argument("--keep", default="whole_path", help="name of the file of results")
    given = parser.parse_args(arguments)
    names = given.only.split(",") if given.only else [*CANDIDATES, "wrk"]
    if "wrk" in names and not wrk.installed():
        print(wrk.MISSING)
        names.remove("wrk")
    latencies = {*map(int, given.latencies.split(","))}
    settings = [s for s in SETTINGS if not (given.plain and s.tls) and s.latency_ms in latencies]
    found = []
    for result in rounds(given.rounds, names, settings, share=given.share):
        print(say(result), flush=True)
        found.append(result)
    print(write_results(given.keep, found, connections=CONNECTIONS))


if __name__ == "__main__":
    main()
