"""The report: the outcomes of all rows, as counts. It contains no personal data and stays under 2 KB."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from airflow_provider_regal.ledger.deliveries import Counts

REASONS_SHOWN: Final = 5
_REASONS_LOGGED: Final = 20
_LONGEST_REASON: Final = 120
_LONGEST_SAMPLE: Final = 200
_MOST_BYTES: Final = 2_000
_PLAN_WORDS: Final = {
    "sent": "new, or newer than what is on record: {opt_outs} first, then {opt_ins}",
    "unchanged": "Regal has it, or may have it already",
    "older": "a newer decision is in the source or on record",
    "no_evidence": "an opt-in without a time or IP address that counts; rejected",
    "unreadable": "can't be read or can't be sent as it is; rejected",
}
_RARE_WORDS: Final = {
    "recorded": "Regal is known to have it, so nothing is sent",
    "suppressed": "of people who must not be contacted; not sent",
    "no_decision": "no yes or no for a phone or email that the row has; nothing is sent",
}


@dataclass(slots=True)
class DeliveryReport:
    """The result of a delivery.

    For a finished delivery ``read == acknowledged + rejected + unknown + skipped``.

    :param delivery: its id in the ledger; None for a dry run.
    :param status: ``finished``; ``failed`` (beyond a threshold, or stopped by a guard); ``stopped`` (rows are left, a
        retry resumes); ``planned`` (``left`` rows wait to be sent); ``dry_run``; ``nothing_to_do``.
    :param read: rows that the source returned.
    :param repeats: requests beyond the first for each row.
    :param known: rejected rows that an earlier delivery rejected with the same payload; for information only.
    :param skips: reason for skipping -> rows.
    :param notes: what Regal will do that the sender may not expect -> rows of this try.
    :param owed_sent: opt-outs read by other deliveries that Regal lacked and acknowledged in this one.
    :param opt_outs_owed: opt-outs of the account that Regal still lacks when the delivery ends.
    :param consents_on_record: opt-ins and opt-outs of the account that Regal has when a sync ends, according to the
        ledger; not in the XCom report.
    :param plan: what a sync determined before it sent anything.
    :param unknown_of_outage: unknown rows caused by a crash, a stop or an outage; they cause a warning but don't fail
        the task.
    :param opt_outs_rejected: rejected rows with an opt-out that was not sent, or a decision that can't be read. Any
        such row fails the task, regardless of the thresholds, as does any in ``opt_outs_unknown``: rows with an opt-out
        that Regal may not have.
    :param withheld: reason for leaving opt-ins out of their events -> opt-ins.
    :param reasons: reason -> rejected and unknown rows.
    :param samples: descriptions of a few rows of a plan or dry run, without their values.
    """

    delivery: int | None = None
    status: str = "stopped"
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
    withheld: Counter[str] = field(default_factory=Counter)
    owed_sent: int = 0
    opt_outs_owed: int = 0
    consents_on_record: int = 0
    opt_outs_rejected: int = 0
    opt_outs_unknown: int = 0
    without_time: int = 0
    requests: int = 0
    repeats: int = 0
    outages: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    samples: list[str] = field(default_factory=list)

    def count(self, counts: Counts) -> None:
        """Copy the counts of a delivery."""
        for name in (
            "read", "acknowledged", "rejected", "unknown", "skipped", "known", "unknown_of_outage",
            "opt_outs_rejected", "opt_outs_unknown", "without_time", "requests", "repeats", "outages", "seconds",
        ):  # fmt: skip
            setattr(self, name, getattr(counts, name))
        self.skips, self.plan, self.withheld = Counter(counts.skips), dict(counts.plan), Counter(counts.withheld)

    @property
    def opt_ins_withheld(self) -> int:
        """Opt-ins that were left out of their events."""
        return self.withheld.total()

    @property
    def settled(self) -> int:
        """Rows with an outcome."""
        return self.acknowledged + self.rejected + self.unknown + self.skipped

    @property
    def left(self) -> int:
        """Rows without an outcome yet."""
        return self.read - self.settled

    @property
    def per_second(self) -> float:
        """Requests per second over the whole delivery."""
        return self.requests / self.seconds if self.seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the report for XCom: every key, and as many of the top reasons and samples as fit."""
        reasons: dict[str, int] = {}
        withheld: dict[str, int] = {}
        samples: list[str] = []
        report = {
            "delivery": self.delivery,
            "status": self.status,
            "read": self.read,
            "acknowledged": self.acknowledged,
            "rejected": self.rejected,
            "unknown": self.unknown,
            "skipped": self.skipped,
            "left": self.left,
            "known": self.known,
            "skips": dict(self.skips),
            "plan": self.plan,
            "notes": self.notes.total(),
            "opt_ins_withheld": self.opt_ins_withheld,
            "opt_outs_owed": self.opt_outs_owed,
            "opt_outs_rejected": self.opt_outs_rejected,
            "opt_outs_unknown": self.opt_outs_unknown,
            "without_time": self.without_time,
            "requests": self.requests,
            "repeats": self.repeats,
            "outages": self.outages,
            "seconds": round(self.seconds, 3),
            "per_second": round(self.per_second, 1),
            "reasons": reasons,
            "withheld": withheld,
            "samples": samples,
        }
        for counted, most in ((reasons, self.reasons), (withheld, self.withheld)):
            for reason, count in most.most_common(REASONS_SHOWN):
                short = reason[:_LONGEST_REASON]
                counted[short] = counted.get(short, 0) + count
                if len(json.dumps(report)) > _MOST_BYTES:
                    del counted[short]
        for sample in self.samples:
            samples.append(sample[:_LONGEST_SAMPLE])
            if len(json.dumps(report)) > _MOST_BYTES:
                samples.pop()
        return report

    def plan_as_table(self) -> str:
        """Format what a sync determined, for the log: five terms with their counts and meanings."""
        told = {name: _counted(self.plan[name], name.replace("_", "-")[:-1]) for name in ("opt_outs", "opt_ins")}
        lines = [
            f"{word.replace('_', ' '):<14}{self.plan[word]:>10,}   {meaning.format(**told)}"
            for word, meaning in _PLAN_WORDS.items()
        ]
        lines += [
            f"{word.replace('_', ' '):<14}{self.plan[word]:>10,}   {meaning}"
            for word, meaning in _RARE_WORDS.items()
            if self.plan.get(word)
        ]
        if removed := self.plan["removed"]:
            lines.append(f"{_counted(removed, 'opt-in')} on record {'is' if removed == 1 else 'are'} not in the source")
        return "\n".join(lines)

    def as_table(self) -> str:
        """Format the report for the log."""
        names = ("read", "acknowledged", "rejected", "unknown", "skipped")
        lines = [f"{name:<14}{getattr(self, name):>12,}" for name in names]
        lines += [f"  {why.replace('_', ' '):<12}{count:>12,}" for why, count in self.skips.items()]
        if self.left:
            lines.append(f"{'left':<14}{self.left:>12,}")
        if self.known:
            lines.append(f"{'rejected before':<16}{self.known:>10,}")
        if self.withheld:
            lines.append(f"{'opt-ins withheld':<16}{self.opt_ins_withheld:>10,}")
            lines += [f"{count:>10,} x {reason}" for reason, count in self.withheld.most_common()]
            if self.delivery is not None:
                lines.append(f"  List them: airflow regal consent --delivery {self.delivery}")
        if self.owed_sent:
            lines.append(f"{'opt-outs owed before, sent':<26}{self.owed_sent:>10,}")
        if self.opt_outs_owed:
            lines.append(f"{'opt-outs owed':<16}{self.opt_outs_owed:>10,}")
        for name in ("opt_outs_rejected", "opt_outs_unknown"):
            if count := getattr(self, name):
                lines.append(f"{name.replace('_', ' ').replace('opt ', 'opt-'):<18}{count:>8,}")
        requests, repeats = _counted(self.requests, "request"), _counted(self.repeats, "repeat")
        outages = f", {_counted(self.outages, 'outage')}" if self.outages else ""
        lines.append(f"{requests} in {self.seconds:.1f} s ({self.per_second:.0f}/s), {repeats}{outages}")
        lines += [f"{count:>8,} x note: {note}" for note, count in self.notes.most_common(_REASONS_LOGGED)]
        lines += [f"{count:>8,} x {reason}" for reason, count in self.reasons.most_common(_REASONS_LOGGED)]
        if (more := len(self.reasons) - _REASONS_LOGGED) > 0:
            lines.append(f"and {more:,} more reasons: airflow regal outcomes {self.delivery}")
        return "\n".join(lines)


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
