"""Judge runs: each delivery with :mod:`tests.distributed.judge`, and all together by what Regal counted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from tests.distributed.airflow_api import Run
from tests.distributed.judge import Case, judge, judge_limit
from tests.distributed.record import Broken, Delivered, Journal
from tests.distributed.source import rows_of
from tests.distributed.stack import Stack

#: A server with a longer stall can't determine when requests arrived.
_MOST_STALL_S = 0.25

Key = tuple[str, str, int]


def key_of(run: Run, one: Delivered) -> Key:
    """Return the key of a delivery: its DAG, task and map index."""
    return run.dag_id, one.task_id, one.map_index


def newest(deliveries: list[Delivered]) -> list[Delivered]:
    """Return the newest delivery of each task instance."""
    return list({(one.task_id, one.map_index): one for one in deliveries}.values())


def look(stack: Stack, one: Delivered) -> Broken:
    """Record the state of a delivery whose process was stopped, before the next try begins."""
    outcomes = stack.record.outcomes(one.id)
    acknowledged = frozenset(position for position, status in outcomes.items() if status == "acknowledged")
    return Broken(acknowledged, stack.record.reserved(one.id), stack.regal.requests)


def verify(
    stack: Stack,
    runs: Iterable[Run],
    *,
    limit: int,
    broken: Mapping[Key, Broken] | None = None,
    since: Mapping[str, int] | None = None,
    statuses: Iterable[str] = ("200",),
) -> dict[str, Any]:
    """Judge runs that have ended.

    :param limit: requests in any second of the server's clock.
    :param broken: what was on record of the deliveries whose processes were stopped.
    :param since: by task id, judge by the requests after this one, which a clear resent.
    :param statuses: Regal's permitted answers; ``unanswered`` is added for killed deliveries, and 429 if the server
        stalled and then saw more than the limit at once.
    :returns: what was measured.
    """
    broken, since = broken or {}, since or {}
    stats = stack.regal.stats()
    held = verify_limit(stack, limit)  # first, because the server stalls while it writes its journal
    journal = Journal.read(stack.regal.ask("events"))
    found = {"rows": 0, "repeats": 0, "unknown": 0, "rejected": 0}
    for run in runs:
        for one in newest(stack.record.deliveries(run.dag_id, run.run_id)):
            if one.task_id == "single":
                continue  # it has no rows; its own test judges it
            key = key_of(run, one)
            rows = rows_of(stack.source_url, run.dag_id, one.task_id, max(one.map_index, 0))
            seen = journal.after(since.get(one.task_id, 0))
            case = Case(str(key), one, stack.record.outcomes(one.id), rows, seen, broken.get(key))
            judge(case)
            counts = {"rows": len(rows), "repeats": case.repeats, "unknown": one.unknown, "rejected": one.rejected}
            found = {name: count + counts[name] for name, count in found.items()}
    if not since:
        assert stats["duplicates"] == found["repeats"], "Regal's own count of bodies that came again"
    allowed = {*statuses, *(("unanswered",) if broken else ()), *(("429",) if held["worst"] > limit else ())}
    assert set(stats["by_status"]) <= allowed, (stats["by_status"], held)
    assert not stats["contract_findings"], stats["contract_findings"]
    return {**found, **held}


def verify_limit(stack: Stack, limit: int) -> dict[str, Any]:
    """Compare the busiest second with the limit."""
    worst, stall_s = stack.regal.stats()["worst_window_1s_all"], stack.regal.stall_s()
    assert stall_s <= _MOST_STALL_S, f"the server stood still for {stall_s:.2f} s: this machine is too busy to judge"
    judge_limit(worst, limit, stall_s)
    return {"worst": worst, "limit": limit, "server_stall_ms": round(1_000 * stall_s, 1)}
