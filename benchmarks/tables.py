"""Format results as Markdown tables: medians with their spread, and ratios within one round."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from benchmarks import pacing as pace
from benchmarks.running import spread
from benchmarks.stages import STAGES
from benchmarks.where_it_goes import microseconds

Rounds = list[dict[str, Any]]

NAMES: Final = {
    "regal": "**this package**, contacts (identify)",
    "regal_track": "**this package**, events (track), never twice",
    "regal_postgres": "**this package**, contacts, ledger in PostgreSQL",
    "regal_track_postgres": "**this package**, events, never twice, ledger in PostgreSQL",
    "regal_asyncio": "**this package**, contacts, where uvloop is not installed",
    "bare_loop": "bare aiohttp loop, ready-made bodies",
    "bare_loop_uvloop": "bare aiohttp loop on uvloop",
    "http_hook": "Airflow's `HttpHook.run` a row",
    "one_by_one": "`requests.post` a row",
    "threads": "`requests.Session`, 32 threads",
    "drt_project": "drt-core",
    "dlt_pipeline": "dlt, `@dlt.destination`",
    "wrk": "wrk, ready-made bodies",
}


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Format a table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def of_setting(found: Rounds, *, tls: bool, latency_ms: int) -> dict[str, list[dict[str, Any]]]:
    """Return the runs of each candidate in one setting, in the order of rounds."""
    runs: dict[str, list[dict[str, Any]]] = {}
    for run in found:
        if (run["tls"], run["latency_ms"]) == (tls, latency_ms):
            runs.setdefault(run["candidate"], []).append(run)
    return {name: runs[name] for name in NAMES if name in runs}


def cpu_per_10k(run: dict[str, Any]) -> float:
    """Return CPU seconds for ten thousand rows."""
    return float(1e4 * run["cpu_s"] / run["rows"])


def rows_a_second(run: dict[str, Any]) -> float:
    """Return rows per second."""
    return float(run["rows"] / run["wall_s"])


def ratios(
    ours: Sequence[dict[str, Any]], theirs: Sequence[dict[str, Any]], of: Callable[[dict[str, Any]], float]
) -> list[float]:
    """Return ours divided by theirs, round by round."""
    by_round = {run["round"]: of(run) for run in theirs}
    return [of(run) / by_round[run["round"]] for run in ours if run["round"] in by_round]


def settings(found: Rounds) -> list[tuple[bool, int]]:
    """Return the settings that have results."""
    return sorted({(run["tls"], run["latency_ms"]) for run in found}, key=lambda setting: (setting[1], setting[0]))


def setting_name(tls: bool, latency_ms: int) -> str:
    """Return the name of a setting."""
    return f"{'TLS' if tls else 'plain http'}, {latency_ms} ms"


def machine(results: dict[str, Any]) -> str:
    """Describe the machine and the software versions."""
    of = results["machine"]
    rows = [(name, of[name]) for name in ("processor", "cores", "system", "python", "at")]
    loads = [run["load"] for run in results["rounds"]]
    rows.append(("load average meanwhile", f"{min(loads)} to {max(loads)}"))
    rows += [(name, version) for name, version in of["versions"].items()]
    return table(("what", "which"), rows)


def whole_path(results: dict[str, Any]) -> str:
    """CPU and speed of every candidate in every setting."""
    parts = []
    for setting in settings(results["rounds"]):
        runs = of_setting(results["rounds"], tls=setting[0], latency_ms=setting[1])
        rows = []
        for name, mine in runs.items():
            ours = runs.get("regal", [])
            ratio = "" if name == "regal" or not ours else spread(ratios(mine, ours, cpu_per_10k))
            each, speed = list(map(cpu_per_10k, mine)), list(map(rows_a_second, mine))
            busy = 100 * statistics.median(run["server_cpu_s"] / run["wall_s"] for run in mine)
            rows.append((NAMES[name], spread(each), ratio, spread(speed, 0), f"{busy:.0f} %", len(mine)))
        head = (
            setting_name(*setting), "CPU s per 10,000 rows", "CPU, times ours", "rows a second", "server busy", "rounds"
        )  # fmt: skip
        parts.append(table(head, rows))
    return "\n\n".join(parts)


def targets(results: dict[str, Any]) -> str:
    """Ratios within one round, with their targets."""
    found, rows = results["rounds"], []
    for setting in settings(found):
        runs = of_setting(found, tls=setting[0], latency_ms=setting[1])

        def compare(  # noqa: PLR0917
            what: str,
            ours: str,
            theirs: str,
            of: Callable[[dict[str, Any]], float],
            most: float | None = None,
            least: float | None = None,
            runs: dict[str, list[dict[str, Any]]] = runs,
            setting: tuple[bool, int] = setting,
        ) -> None:
            if ours not in runs or theirs not in runs:
                return
            told = ratios(runs[ours], runs[theirs], of)
            median = statistics.median(told)
            good = (most is None or median <= most) and (least is None or median >= least)
            aim = f"at most {most:.3g}" if most is not None else f"at least {least:.3g}"
            rows.append((setting_name(*setting), what, aim, spread(told, 3), "yes" if good else "**no**"))

        if setting[1] == 0:
            compare("CPU a row / `HttpHook.run`", "regal", "http_hook", cpu_per_10k, most=1 / 6)
            compare("CPU a row / `HttpHook.run`, with the ledger", "regal", "http_hook", cpu_per_10k, most=1 / 7)
            compare("CPU a row / `HttpHook.run`, next aim", "regal", "http_hook", cpu_per_10k, most=1 / 8)
            compare("CPU a row / bare loop", "regal", "bare_loop", cpu_per_10k, most=1.6)
            compare("CPU a row / bare loop, next aim", "regal", "bare_loop", cpu_per_10k, most=1.3)
        if setting == (True, 0):
            compare("rows a second / wrk", "regal", "wrk", rows_a_second, least=0.09)
        if setting[1] == 50:
            compare("rows a second / 32 threads", "regal", "threads", rows_a_second, least=3)
        for peer in ("one_by_one", "threads", "drt_project", "dlt_pipeline"):
            compare(f"CPU a row / {NAMES[peer]}", "regal", peer, cpu_per_10k, most=1)
    return table(("setting", "what, in the same round", "aimed at", "median (least-most)", "reached"), rows)


def where_it_goes(results: dict[str, Any]) -> str:
    """Microseconds of CPU per row, by stage."""
    by_tls = {
        tls: [microseconds(run) for run in results["rounds"] if run["tls"] is tls]
        for tls in sorted({run["tls"] for run in results["rounds"]})
    }
    rows = [
        (stage, *(spread([told[stage] for told in runs], 1) for runs in by_tls.values()))
        for stage in STAGES
        if any(told[stage] >= 0.05 for runs in by_tls.values() for told in runs)
    ]
    rows.append(("all of it", *(spread([sum(told.values()) for told in runs], 1) for runs in by_tls.values())))
    return table(("stage, us of CPU a row", *("TLS" if tls else "plain http" for tls in by_tls)), rows)


def _cells(found: Rounds) -> dict[tuple[Any, ...], Rounds]:
    cells: dict[tuple[Any, ...], Rounds] = {}
    for run in found:
        cells.setdefault((run["limit"], run["latency_ms"], run["jump_ms"], run["margin"]), []).append(run)
    return cells


def _latency(low: int, high: int) -> str:
    return f"{low} ms" if low == high else f"{low} and {high} ms in turn"


def pacing(results: dict[str, Any]) -> str:
    """Every cell: the worst second of all its runs, and how much of the limit was used."""
    rows = []
    for (limit, low, high, _), runs in _cells(results["rounds"]).items():
        worst = [run["worst"] for run in runs]
        over = sum(one > limit for one in worst)
        shares = [100 * run["share"] for run in runs]
        whole = [100 * run["share_whole"] for run in runs]
        bursts = max(run["burst"] for run in runs)
        enough = statistics.median(shares) >= 100 * pace.WANTED[limit]
        rows.append(
            (
                limit, _latency(low, high), f"{max(worst)}" + (f" **({over} over)**" if over else ""),
                spread(shares, 1), "yes" if enough else "**no**", spread(whole, 1), bursts, len(runs),
            )
        )  # fmt: skip
    head = ("limit", "latency", "worst second of all runs", "% of the limit, once running", "enough",
            "% with the ramp", "most in 10 ms", "runs")  # fmt: skip
    return table(head, rows)


def margins(results: dict[str, Any]) -> str:
    """Show the effect of the pacer's margin."""
    by_margin: dict[tuple[float, int], Rounds] = {}
    for run in results["rounds"]:
        by_margin.setdefault((run["margin"], run["limit"]), []).append(run)
    rows = []
    for (margin, limit), runs in sorted(by_margin.items()):
        over = sum(run["worst"] > limit for run in runs)
        shares = [100 * run["share"] for run in runs if run["latency_ms"] == run["jump_ms"]]
        rows.append((f"{margin:.0%}", limit, len(runs), over, max(run["worst"] for run in runs), spread(shares, 1)))
    head = ("aims at", "limit", "runs", "runs over the limit", "worst second", "% of the limit, steady latency")
    return table(head, rows)


def paced_cpu(results: dict[str, Any]) -> str:
    """Show the share of a core that a paced delivery uses."""
    rows = [
        (limit, _latency(low, high), spread([100 * run["cpu_share"] for run in runs], 1), len(runs))
        for (limit, low, high, _), runs in _cells(results["rounds"]).items()
    ]
    return table(("requests a second", "latency", "% of a core", "runs"), rows)


def sharing(results: dict[str, Any]) -> str:
    """Each number of senders on one account: the worst second, how much of the limit was used, and how equally."""
    cells: dict[tuple[Any, ...], Rounds] = {}
    for run in results["rounds"]:
        key = (run["ledger"], run["limit"], run["latency_ms"], run["senders"], run["singles"])
        cells.setdefault(key, []).append(run)
    rows = []
    for (ledger, limit, latency_ms, senders, singles), runs in cells.items():
        over = sum(run["worst"] > limit for run in runs)
        many = f"{senders} + {singles} one by one" if singles else str(senders)
        rows.append(
            (
                "SQLite" if ledger == "sqlite" else "PostgreSQL", limit, f"{latency_ms} ms", many,
                f"{max(run['worst'] for run in runs)}" + (f" **({over} over)**" if over else ""),
                spread([100 * run["share"] for run in runs], 1), spread([run["jain"] for run in runs], 3), len(runs),
            )
        )  # fmt: skip
    head = (
        "ledger",
        "limit",
        "latency",
        "senders",
        "worst second of all runs",
        "% of the limit",
        "Jain's index",
        "runs",
    )
    return table(head, rows)


def sharing_simulated(results: dict[str, Any]) -> str:
    """Make the same table for many more tasks, on a simulated clock."""
    rows = [
        (
            run["tasks"], run["limit"], f"{run['others']:.0f}" if run["others"] else "none", run["worst"],
            f"{100 * run['share']:.1f}", f"{run['jain']:.3f}", run["refused"],
        )
        for run in results["rounds"]
    ]  # fmt: skip
    head = (
        "tasks",
        "limit",
        "other systems, requests a second",
        "worst second",
        "% of the limit",
        "Jain's index",
        "429s",
    )
    return table(head, rows)


def _of_part(results: dict[str, Any], part: str) -> Rounds:
    return [{**run, "ledger": _LEDGERS[run["ledger"]]} for run in results["rounds"] if run["part"] == part]


_LEDGERS: Final = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


def scale_deliveries(results: dict[str, Any]) -> str:
    """Simultaneous deliveries: the cost of each, and how many per hour that allows."""
    rows = [
        (
            run["ledger"], run["at_once"], f"{run['events']:,}", f"{run['wall_s']:.1f}",
            f"{1_000 * run['cpu_s'] / run['at_once']:.0f}", f"{run['longest_s']:.1f}",
            f"{3_600 * run['at_once'] / run['wall_s']:,.0f}", f"{run['events'] / run['wall_s']:,.0f}",
        )
        for run in _of_part(results, "deliveries")
    ]  # fmt: skip
    head = ("ledger", "deliveries at once", "events", "wall s", "CPU ms each, with start-up", "longest, s",
            "deliveries an hour", "events a second")  # fmt: skip
    return table(head, rows)


def scale_singles(results: dict[str, Any]) -> str:
    """Single events: the cost of each, without starting its process."""
    rows = [
        (
            run["ledger"], run["at_once"], f"{run['events']:,}", f"{run['events'] / run['sending_s']:,.0f}",
            f"{1_000 * run['cpu_s'] / run['events']:.1f}",
        )
        for run in _of_part(results, "singles")
    ]  # fmt: skip
    return table(("ledger", "processes", "events", "events a second", "CPU ms an event, with start-up"), rows)


def scale_commits(results: dict[str, Any]) -> str:
    """Show commits of 100 outcomes."""
    rows = [
        (
            run["ledger"], run["at_once"], f"{run['a_second']:,.0f}", f"{100 * run['a_second']:,.0f}",
            f"{run['median_ms']:.1f}", f"{run['p99_ms']:.0f}", run["failed"],
        )
        for run in _of_part(results, "commits")
    ]  # fmt: skip
    head = ("ledger", "processes", "commits a second", "outcomes a second", "median ms", "99 %, ms", "failed")
    return table(head, rows)


def scale_growth(results: dict[str, Any]) -> str:
    """Show the disk space of outcomes, and their removal."""
    rows = [
        (
            run["ledger"], _KINDS[run["what"]], f"{run['mb_per_million']:,.0f}", f"{run['prune_s_per_million']:.0f}"
        )
        for run in _of_part(results, "growth")
    ]  # fmt: skip
    return table(("ledger", "a million outcomes of", "MB", "seconds to remove them"), rows)


_KINDS: Final = {
    "events": "events with a user id",
    "contacts": "contacts with user id, phone and email",
    "rejected": "rejected contacts, with their payload",
}


def memory(results: dict[str, Any]) -> str:
    """Peak memory, and the ledger's disk space."""
    found = results["rounds"]
    bare = next(run["peak_mb"] for run in found if run["source"] == "none")
    rows: list[Sequence[object]] = [("bare process", "", f"{bare:.0f}", "", "", "", "")]
    few: dict[str, float] = {}
    for run in found:
        if run["source"] == "none":
            continue
        first = few.setdefault(run["source"], run["peak_mb"])
        rows.append(
            (
                run["source"], f"{run['rows']:,}", f"{run['peak_mb']:.0f}", f"{run['peak_mb'] - bare:.0f}",
                f"{run['peak_mb'] / first:.3f}", f"{run['disk_peak'] / 1e6:.1f}", f"{run['disk'] / 1e6:.1f}",
            )
        )  # fmt: skip
    head = ("source", "rows", "peak MB", "over the bare process", "times that of the first",
            "MB of disk at most", "MB of disk in the end")  # fmt: skip
    return table(head, rows)


def unchanged_contacts(results: dict[str, Any]) -> str:
    """CPU of an unchanged row."""
    kinds: dict[tuple[int, int], Rounds] = {}
    for run in results["rounds"]:
        kinds.setdefault((run["rows"], run["changed_every"]), []).append(run)
    rows = []
    for (count, _), runs in kinds.items():
        each = [1e6 * run["cpu_s"] / run["rows"] for run in runs]
        reading = [1e6 * run["reading_cpu_s"] / run["rows"] for run in runs]
        peak = spread([run["peak_mb"] for run in runs], 0)
        rows.append(
            (f"{count:,}", f"{runs[0]['acknowledged']:,}", spread(each, 1), spread(reading, 1), peak, len(runs))
        )
    head = ("rows", "of them changed", "us of CPU a row", "of them to read the query", "peak MB", "runs")
    return table(head, rows)


def storms(results: dict[str, Any]) -> str:
    """Show the results of storms, by guarantee and ledger."""
    kinds: dict[tuple[str, str], Rounds] = {}
    for run in results["rounds"]:
        kinds.setdefault((run["guarantee"], run["ledger"]), []).append(run)
    names = ("rows", "tries", "kills", "repeats", "unknown")
    rows = []
    for (guarantee, ledger), runs in sorted(kinds.items()):
        sums = [f"{sum(run[name] for run in runs):,}" for name in names]
        busiest = max(run["worst_window"] / run["rate"] for run in runs)
        late = sum(run["late"] for run in runs)
        broken = sum(bool(run["broken"]) and not run["late"] for run in runs)
        rows.append((f"`{guarantee}`", ledger, len(runs), *sums, f"{busiest:.0%}", late, broken))
    head = ("guarantee", "ledger", "storms", "rows", "tries", "kills", "sent again", "unknown")
    return table((*head, "busiest second, of the limit", "not judged", "storms that broke a promise"), rows)


def troubles(results: dict[str, Any]) -> str:
    """Show how many storms had each kind of trouble."""
    kinds: dict[str, Rounds] = {}
    for run in results["rounds"]:
        for kind in run["kinds"]:
            kinds.setdefault(kind, []).append(run)
    rows = [
        (name, len(runs), *(f"{sum(run[what] for run in runs):,}" for what in ("tries", "repeats", "unknown")))
        for name, runs in sorted(kinds.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    ]
    return table(("trouble", "storms with it", "their tries", "rows sent again", "rows unknown"), rows)


def outages(results: dict[str, Any]) -> str:
    """Show the results of outages of ten minutes."""
    names = ("rows", "tries", "acknowledged", "repeats", "unknown")
    rows = [
        (f"`{run['guarantee']}`", *(run[name] for name in names), f"{run['seconds']:.0f}", len(run["broken"]))
        for run in results["rounds"]
    ]
    head = ("guarantee", "rows", "tries", "acknowledged", "sent again", "unknown", "seconds", "promises broken")
    return table(head, rows)


def by_candidate(results: dict[str, Any]) -> str:
    """Show rounds in the form candidate -> measure -> number."""
    found: list[dict[str, dict[str, float]]] = results["rounds"]
    measures = list(next(iter(found[0].values())))
    rows = [
        (name, *(spread([told[name][measure] for told in found], _digits(measure)) for measure in measures), len(found))
        for name in found[0]
    ]
    return table(("what", *(_in_words(measure) for measure in measures), "rounds"), rows)


def _digits(measure: str) -> int:
    return 3 if measure.endswith("_s") else 1 if measure.endswith(("_ms", "_us", "_mb")) else 0


def _in_words(measure: str) -> str:
    name, _, unit = measure.rpartition("_")
    words = f"{name.replace('_', ' ')}, {unit}" if unit in ("s", "ms", "us", "mb") else measure.replace("_", " ")
    return words.replace("cpu", "CPU")
