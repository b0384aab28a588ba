"""The report: what became of all rows, in counts. It holds nothing personal and stays under 2 KB."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

REASONS_SHOWN: Final = 5
_REASONS_LOGGED: Final = 20
_LONGEST_REASON: Final = 120
_MOST_BYTES: Final = 2_000
_PLAN_WORDS: Final = {
    "new": "the ledger knows nothing of it",
    "changed": "the ledger has something else, or an older word",
    "unchanged": "as Regal acknowledged it",
    "superseded": "the source has a newer row of the same consent",
    "stale": "the ledger knows something newer from elsewhere; withheld",
    "in_doubt": "Regal may have it already; a redelivery may send it",
    "silent": "rows that say neither yes nor no",
    "rejected": "can never be sent as it is; withheld",
    "opt_outs": "to send, all of them first",
    "opt_ins": "to send after them",
    "removed": "subscribed, and no longer in the source",
}


@dataclass(slots=True)
class DeliveryReport:
    """What became of a delivery.

    For a finished one ``read == acknowledged + rejected + unknown + skipped``.

    :param status: ``finished``, ``stopped`` (rows are left, a retry continues), ``dry_run`` or ``nothing_to_do``.
    :param read: rows the source gave.
    :param repeats: requests beyond the first of each row.
    :param known: rejected rows that an earlier run had rejected just so; they do not count against ``max_rejected``.
    :param skips: why rows were skipped -> rows.
    :param notes: what Regal will do that the sender may not expect -> rows of this try.
    :param plan: what a sync of opt-ins found out before it sent anything.
    :param unknown_of_outage: unknowns of a crash or of an outage's first failures; they warn, but do not fail the task.
    :param reasons: reason -> rows, of rejected and unknown rows.
    :param run_folder: where rows and dead letters lie.
    """

    run_folder: str
    status: str = "finished"
    read: int = 0
    acknowledged: int = 0
    rejected: int = 0
    unknown: int = 0
    skipped: int = 0
    known: int = 0
    skips: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    plan: dict[str, int] = field(default_factory=dict)
    unknown_of_outage: int = 0
    opt_ins_withheld: int = 0
    without_time: int = 0
    requests: int = 0
    repeats: int = 0
    outages: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)

    @property
    def settled(self) -> int:
        """Rows with an outcome."""
        return self.acknowledged + self.rejected + self.unknown + self.skipped

    @property
    def per_second(self) -> float:
        """Requests a second, over the whole delivery."""
        return self.requests / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Give the report for XCom: with as many of the commonest reasons as fit."""
        reasons: dict[str, int] = {}
        report = {
            "status": self.status,
            "read": self.read,
            "acknowledged": self.acknowledged,
            "rejected": self.rejected,
            "unknown": self.unknown,
            "skipped": self.skipped,
            **({"known": self.known} if self.known else {}),
            **({"skips": dict(self.skips)} if self.skips else {}),
            **({"plan": self.plan} if self.plan else {}),
            **({"notes": self.notes.total()} if self.notes else {}),
            "opt_ins_withheld": self.opt_ins_withheld,
            "without_time": self.without_time,
            "requests": self.requests,
            "repeats": self.repeats,
            "outages": self.outages,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.per_second, 1),
            "run_folder": self.run_folder,
            "reasons": reasons,
        }
        for reason, count in self.reasons.most_common(REASONS_SHOWN):
            short = reason[:_LONGEST_REASON]
            reasons[short] = reasons.get(short, 0) + count
            if len(json.dumps(report)) > _MOST_BYTES:
                del reasons[short]
        return report

    def plan_as_table(self, *, with_reasons: bool = False) -> str:
        """Draw for the log what a sync found out: the kinds with their counts, and what they mean.

        :param with_reasons: say why consents were rejected, too, once that is counted.
        """
        lines = []
        for kind, count in self.plan.items():
            lines.append(f"{kind:<12}{count:>12,}   {_PLAN_WORDS[kind]}")
            if kind == "rejected" and with_reasons:
                shown = self.reasons.most_common(_REASONS_LOGGED)
                lines += [f"{'':<12}{number:>12,} x {reason}" for reason, number in shown]
        return "\n".join(lines)

    def as_table(self) -> str:
        """Draw the report for the log."""
        lines = [
            f"{name:<14}{count:>12,}"
            for name, count in (
                ("read", self.read),
                ("acknowledged", self.acknowledged),
                ("rejected", self.rejected),
                ("unknown", self.unknown),
                ("skipped", self.skipped),
            )
        ]
        lines += [f"  {why.replace('_', ' '):<12}{count:>12,}" for why, count in self.skips.items()]
        if self.known:
            lines.append(f"{'rejected before':<16}{self.known:>10,}")
        if self.opt_ins_withheld:
            lines.append(f"{'opt-ins withheld':<16}{self.opt_ins_withheld:>10,}")
        lines.append(
            f"{self.requests:,} requests in {self.seconds:.1f} s ({self.per_second:.0f}/s), {self.repeats} repeats"
        )
        lines += [f"{count:>8,} x note: {note}" for note, count in self.notes.most_common(_REASONS_LOGGED)]
        lines += [f"{count:>8,} x {reason}" for reason, count in self.reasons.most_common(_REASONS_LOGGED)]
        if (more := len(self.reasons) - _REASONS_LOGGED) > 0:
            lines.append(f"and {more:,} reasons more, in dead_letters.jsonl")
        return "\n".join(lines)
