"""Store the results of many storms in ``benchmarks/results/chaos.json``, from which the tables of the docs are made."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.running import write_results

_KEPT = (
    "seed", "guarantee", "source", "call", "ledger", "rows", "rate", "tls", "troubles", "kinds", "broken", "late",
    "tries", "kills", "retries", "requests", "acknowledged", "repeats", "unknown", "worst_window", "stall_ms", "again",
    "load", "seconds",
)  # fmt: skip


def keep(results: list[dict[str, Any]], name: str) -> Path:
    """Store the results, with a summary."""
    in_order = sorted(results, key=lambda result: result["seed"])
    rounds = [{name: result[name] for name in _KEPT} for result in in_order]
    return write_results(name, rounds, summary=summary(results))


def summary(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Summarize the results."""
    return {
        "storms": len(results),
        "broken": sum(bool(result["broken"]) and not result["late"] for result in results),
        "not_judged": sum(result["late"] for result in results),
        "by_trouble": dict(Counter(kind for result in results for kind in result["kinds"]).most_common()),
        "by_guarantee": {name: _sums(results, name) for name in sorted({one["guarantee"] for one in results})},
        "seconds": round(sum(result["seconds"] for result in results)),
        "worst_window_of_limit": max(round(result["worst_window"] / result["rate"], 3) for result in results),
    }


def _sums(results: list[dict[str, Any]], guarantee: str) -> dict[str, int]:
    names = ("tries", "kills", "requests", "acknowledged", "repeats", "unknown")
    of_it = [result for result in results if result["guarantee"] == guarantee]
    return {"storms": len(of_it), **{name: sum(result[name] for result in of_it) for name in names}}
