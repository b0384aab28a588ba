"""Audit a delivery: compare its reports with the warehouse and with what Regal received."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from scripts.crash import query
from scripts.ledger import last_delivery
from scripts.local import WAREHOUSE, Regal

TASKS = ("contacts", "events")


@dataclass(frozen=True)
class Accounts:
    """The results of one run of the bulk example.

    :param killed_after: how many events Regal had when the task was killed; None if it was not.
    """

    here: Regal
    dag_id: str
    now: datetime
    killed_after: int | None

    def report(self, task_id: str) -> dict[str, Any]:
        """The report of a task, over all its tries."""
        return last_delivery(self.dag_id, task_id)

    def tries(self, task_id: str) -> int:
        """How many tries a task needed."""
        rows = query(
            "SELECT try_number FROM task_instance WHERE dag_id = ? AND task_id = ? ORDER BY start_date DESC LIMIT 1",
            self.dag_id,
            task_id,
        )
        return int(str(rows[0][0]))

    def in_the_warehouse(self) -> dict[str, int]:
        """How many rows of the warehouse each task has to read."""
        midnight = self.now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        day = [f"{moment:%Y-%m-%d %H:%M:%S}" for moment in (midnight - timedelta(days=1), midnight)]
        counts = (
            query("SELECT count(*) FROM customers", database=WAREHOUSE),
            query(
                "SELECT count(*) FROM events WHERE datetime(happened_at) >= ? AND datetime(happened_at) < ?",
                *day,
                database=WAREHOUSE,
            ),
        )
        return {task: int(str(rows[0][0])) for task, rows in zip(TASKS, counts, strict=True)}

    def arrivals(self) -> Counter[int]:
        """How often each event of the warehouse arrived."""
        stored = (event["body"].get("properties", {}) for event in self.here.ask("events?stored=true"))
        return Counter(properties["event_id"] for properties in stored if "event_id" in properties)

    def audit(self, stats: dict[str, Any]) -> list[str]:
        """Return everything that does not add up."""
        return list(self._wrong(stats))

    def _wrong(self, stats: dict[str, Any]) -> Iterator[str]:
        expected = self.in_the_warehouse()
        for task in TASKS:
            report = self.report(task)
            settled = sum(report[outcome] for outcome in ("acknowledged", "rejected", "unknown", "skipped"))
            if report["status"] != "finished":
                yield f"{task}: {report['status']}, not finished"
            if not report["read"] == settled == expected[task]:
                yield f"{task}: {expected[task]} rows in the warehouse, {report['read']} read, {settled} settled"
        events, arrived = self.report("events"), self.arrivals()
        if not events["acknowledged"] <= len(arrived) <= events["acknowledged"] + events["unknown"]:
            yield f"events: {events['acknowledged']} acknowledged, {events['unknown']} unknown, {len(arrived)} arrived"
        if twice := sum(times > 1 for times in arrived.values()) or stats["duplicates"]:
            yield f"{twice} events arrived twice"
        if stats["contract_findings"]:
            yield f"Regal's contract was broken: {', '.join(stats['contract_findings'])}"
        if stats["worst_window_1s_all"] > stats["rate_limit"]:
            yield f"{stats['worst_window_1s_all']} requests in a second, {stats['rate_limit']} allowed"
        if self.killed_after is None or self.tries("events") < 2:
            yield "the task 'events' was to be killed once, and was not"
