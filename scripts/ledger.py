"""Read the ledger's records of the demo's deliveries with plain SQL, as any user could."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from scripts.crash import query
from scripts.local import LEDGER

_DELIVERY = """
SELECT id, state, read_rows, acknowledged, rejected, unknown, skipped, counts
FROM regal_deliveries WHERE dag_id = ? AND task_id = ? ORDER BY id DESC LIMIT 1
"""
_REASONS = """
SELECT status, reason, message, count(*) FROM regal_outcomes
WHERE delivery = ? AND status <> 'acknowledged' GROUP BY status, reason, message
"""


def last_delivery(dag_id: str, task_id: str) -> dict[str, Any]:
    """The counts of a task's last delivery, over all its tries, and why rows were rejected or are unknown."""
    rows = query(_DELIVERY, dag_id, task_id, database=LEDGER)
    if not rows:
        raise SystemExit(f"The task {task_id} has left no delivery in the ledger.")
    number, state, read, acknowledged, rejected, unknown, skipped, counts = rows[0]
    reasons: Counter[str] = Counter()
    for status, reason, message, count in query(_REASONS, str(number), database=LEDGER):
        why = str(message).partition("; ")[0] if reason == "invalid" else f"{status}, {reason}"
        reasons[why] += int(str(count))
    told = json.loads(str(counts))
    return {
        **told,
        "opt_ins_withheld": sum(told["withheld"].values()),
        "delivery": number,
        "status": state,
        "read": read,
        "acknowledged": acknowledged,
        "rejected": rejected,
        "unknown": unknown,
        "skipped": skipped,
        "reasons": dict(reasons.most_common(5)),
    }
