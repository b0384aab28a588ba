"""Draw results as SVG pictures."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any, Final

import matplotlib as mpl

mpl.use("svg")
from matplotlib import pyplot as plt

from benchmarks import tables
from benchmarks.sharing import BIN_S
from benchmarks.stages import STAGES
from benchmarks.where_it_goes import microseconds

# Makes the file reproducible.
mpl.rcParams["svg.hashsalt"] = "airflow-provider-regal"
_OURS, _THEIRS, _LIMIT = "#2a7f62", "#9aa5b1", "#c0392b"
_BINS_A_SECOND: Final = 100


def _keep(figure: Any, file: Path) -> None:
    figure.tight_layout()
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def whole_path(results: dict[str, Any], file: Path) -> None:
    """CPU of ten thousand rows, for each setting."""
    found = results["rounds"]
    settings = tables.settings(found)
    figure, axes = plt.subplots(1, len(settings), figsize=(4.2 * len(settings), 4.2), squeeze=False)
    for place, setting in zip(axes[0], settings, strict=True):
        runs = tables.of_setting(found, tls=setting[0], latency_ms=setting[1])
        names = [name for name in runs if name != "wrk"][::-1]
        told = [[tables.cpu_per_10k(run) for run in runs[name]] for name in names]
        medians = [statistics.median(one) for one in told]
        spreads = [
            [m - min(one) for m, one in zip(medians, told, strict=True)],
            [max(one) - m for m, one in zip(medians, told, strict=True)],
        ]
        colors = [_OURS if name.startswith("regal") else _THEIRS for name in names]
        labels = [tables.NAMES[name].replace("**", "").replace("`", "").split(",")[0] for name in names]
        labels = [
            f"{label} ({name.removeprefix('regal_').replace('_', ', ')})" if name.startswith("regal_") else label
            for label, name in zip(labels, names, strict=True)
        ]
        place.barh(range(len(names)), medians, xerr=spreads, color=colors, ecolor="#555", error_kw={"lw": 1})
        place.set_yticks(range(len(names)), labels if place is axes[0][0] else [""] * len(names))
        place.set_title(tables.setting_name(*setting), fontsize=10)
        place.set_xlabel("CPU seconds for 10,000 rows")
    _keep(figure, file)


def arrivals(results: dict[str, Any], file: Path) -> None:
    """Arrivals in the previous second, by the server's clock, for each limit and constant latency."""
    drawn = [run for run in results["rounds"] if "bins" in run]
    limits = sorted({run["limit"] for run in drawn})
    figure, axes = plt.subplots(1, len(limits), figsize=(4.2 * len(limits), 3.2), squeeze=False)
    for place, limit in zip(axes[0], limits, strict=True):
        for run in (run for run in drawn if run["limit"] == limit):
            bins = run["bins"]
            moving = [sum(bins[max(0, end - _BINS_A_SECOND) : end]) for end in range(1, len(bins) + 1)]
            seconds = [end / _BINS_A_SECOND for end in range(1, len(bins) + 1)]
            steady = run["latency_ms"] == run["jump_ms"]
            name = f"{run['latency_ms']} ms" if steady else f"{run['latency_ms']}/{run['jump_ms']} ms"
            place.plot(seconds[::3], moving[::3], lw=1, ls="-" if steady else ":", label=name)
        place.axhline(limit, color=_LIMIT, lw=1)
        place.set_title(f"limit {limit:,} a second", fontsize=10)
        place.set_xlabel("seconds since the first arrival")
        place.set_ylim(0, limit * 1.1)
    axes[0][0].set_ylabel("arrivals in the second before")
    axes[0][-1].legend(title="latency", fontsize=7, title_fontsize=8)
    _keep(figure, file)


def _moving(bins: list[int]) -> list[int]:
    a_second = round(1 / BIN_S)
    return [sum(bins[max(0, end - a_second) : end]) for end in range(1, len(bins) + 1)]


def sharing(results: dict[str, Any], file: Path) -> None:
    """Arrivals in the previous second, from one to many senders that join and leave, for each limit."""
    drawn = [run for run in results["rounds"] if run["ledger"] != "sqlite"] or results["rounds"]
    drawn = [run for run in drawn if run["latency_ms"] == drawn[0]["latency_ms"]]
    limits = sorted({run["limit"] for run in drawn})
    figure, axes = plt.subplots(1, len(limits), figsize=(4.2 * len(limits), 3.2), squeeze=False)
    for place, limit in zip(axes[0], limits, strict=True):
        for run in (run for run in drawn if run["limit"] == limit and run["seed"] == 0):
            moving = _moving(run["bins"])
            place.plot([end * BIN_S for end in range(1, len(moving) + 1)], moving, lw=1, label=f"{run['senders']}")
        place.axhline(limit, color=_LIMIT, lw=1)
        place.set_title(f"limit {limit:,} a second", fontsize=10)
        place.set_xlabel("seconds since the first arrival")
        place.set_ylim(0, limit * 1.1)
    axes[0][0].set_ylabel("arrivals in the second before")
    axes[0][-1].legend(title="senders", fontsize=7, title_fontsize=8)
    _keep(figure, file)


def sharing_simulated(results: dict[str, Any], file: Path) -> None:
    """Draw the same for simulated tasks, with and without other systems that send to the account."""
    kinds = [(100, 0.0), (270, 0.0), (270, 60.0)]
    figure, axes = plt.subplots(1, len(kinds), figsize=(4.2 * len(kinds), 3.2), squeeze=False)
    for place, (limit, others) in zip(axes[0], kinds, strict=True):
        for run in results["rounds"]:
            if (run["limit"], run["others"]) == (limit, others) and run["bins"]:
                moving = _moving(run["bins"])
                place.plot([end * BIN_S for end in range(1, len(moving) + 1)], moving, lw=1, label=f"{run['tasks']}")
        place.axhline(limit, color=_LIMIT, lw=1)
        beside = f", beside {others:.0f} of others" if others else ""
        place.set_title(f"limit {limit:,} a second{beside}", fontsize=10)
        place.set_xlabel("seconds")
        place.set_ylim(0, limit * 1.1)
    axes[0][0].set_ylabel("arrivals in the second before")
    axes[0][-1].legend(title="tasks", fontsize=7, title_fontsize=8)
    _keep(figure, file)


def where_it_goes(results: dict[str, Any], file: Path) -> None:
    """Microseconds per row in each stage."""
    figure, place = plt.subplots(figsize=(8, 3.6))
    kinds = sorted({run["tls"] for run in results["rounds"]})
    for number, tls in enumerate(kinds):
        told = [microseconds(run) for run in results["rounds"] if run["tls"] is tls]
        left, color = 0.0, plt.get_cmap("tab20")
        for at, stage in enumerate(STAGES):
            width = statistics.median(one[stage] for one in told)
            place.barh(number, width, left=left, color=color(at), label=stage if not number else None)
            left += width
    place.set_yticks(range(len(kinds)), ["TLS" if tls else "plain http" for tls in kinds])
    place.set_xlabel("us of CPU a row")
    place.legend(ncols=3, fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.2))
    _keep(figure, file)
