"""Audit the opt-in sync: compare the claims of its two runs with the warehouse and with the local Regal.

What has to be sent is computed independently, from the rows alone and without code of the package.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from scripts.consents import AREAS
from scripts.crash import query
from scripts.ledger import last_delivery
from scripts.local import WAREHOUSE, Regal

# A phone or email and a channel -> when the newest decision was made, and whether it was a no.
Consents = dict[tuple[str, str], tuple[str, bool]]
_NUMBER = re.compile(rf"1?({'|'.join(map(str, AREAS))})55501\d\d")
_WHEN_IT_WAS_READ = "now"  # sorts after every date


@dataclass(frozen=True)
class Newest:
    """The newest decisions in a consent table.

    :param consents: the newest decision of each phone or email and channel.
    :param unfit: rows that can never be sent: a yes without evidence, or without a person.
    """

    consents: Consents
    rows: int
    unfit: int

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Newest:
        """Compute it from rows."""
        consents: Consents = {}
        read = unfit = 0
        for row in rows:
            read += 1
            whose, channel = _whose(row), row["channel"].lower()
            no = str(row["subscribed"]).lower() not in ("1", "true")
            if whose is None or not (no or (row["said_at"] and row["ip"])):
                unfit += 1
                continue
            word = (_moment(row["said_at"]), no)
            consents[whose, channel] = max(word, consents.get((whose, channel), ("", False)))
        return cls(consents, read, unfit)

    @classmethod
    def in_the_warehouse(cls) -> Newest:
        """Compute it from the current warehouse."""
        names = ("phone", "email", "channel", "subscribed", "said_at", "ip")
        rows = query(f"SELECT {', '.join(names)} FROM consents ORDER BY id", database=WAREHOUSE)  # noqa: S608
        return cls.of(dict(zip(names, row, strict=True)) for row in rows)


@dataclass
class Run:
    """One run of the sync.

    :param table: the warehouse at the time of the run.
    :param report: the operator's report.
    :param requests: what Regal received from the run.
    """

    table: Newest
    report: dict[str, Any]
    requests: list[dict[str, Any]]

    @property
    def said(self) -> list[bool]:
        """The yes and no of everything that was sent, in order."""
        told = []
        for request in self.requests:
            traits = request["body"]["traits"]
            for point in (*traits.get("phones", {}).values(), *traits.get("emails", {}).values()):
                told += [opt_in["subscribed"] for name, opt_in in point.items() if name.endswith("OptIn")]
        return told


@dataclass
class OptIns:
    """The results of all runs of the sync.

    :param stale: the phone whose old subscription came back.
    :param opted_out: a phone that was opted out in between.
    """

    here: Regal
    dag_id: str
    runs: list[Run] = field(default_factory=list)
    stale: str = ""
    opted_out: str = ""

    def note(self, received_before: int) -> None:
        """Record the results of a run that has ended.

        :param received_before: how many requests Regal had received before it.
        """
        self.here.settled_stats()
        requests = self.here.ask(f"events?after={received_before}")
        self.runs.append(Run(Newest.in_the_warehouse(), last_delivery(self.dag_id, "opt_ins"), requests))

    def held(self) -> dict[tuple[str, str], str]:
        """Return what Regal has for the people in the table."""
        found = {}
        for contact in self.here.ask("contacts"):
            if (contact["user_id"] or "").startswith("lead-"):
                for point, told in (contact["phones"] | contact["emails"]).items():
                    for channel in ("sms", "voice", "email"):
                        if told.get(channel, {}).get("history"):
                            found[point, channel] = told[channel]["status"]
        return found

    def sms_of(self, phone: str) -> dict[str, Any]:
        """Return what Regal has for a phone's consent to texts."""
        (contact,) = self.here.ask(f"contacts?phone={phone.replace('+', '%2B')}")
        sms: dict[str, Any] = contact["phones"][phone]["sms"]
        return sms

    def audit(self) -> list[str]:
        """Return everything that does not add up."""
        return list(self._wrong())

    def _wrong(self) -> Iterator[str]:
        known: Consents = {}
        for number, run in enumerate(self.runs, 1):
            newer = {key: word for key, word in run.table.consents.items() if word > known.get(key, ("", False))}
            yield from (f"opt-ins, run {number}: {what}" for what in _wrong_of(run, newer))
            known |= newer
        held = self.held()
        expected = {key: "Unsubscribed" if no else "Subscribed" for key, (_, no) in known.items()}
        if wrong := sum(held.get(key) != expected.get(key) for key in held.keys() | expected.keys()):
            yield f"opt-ins: Regal holds {wrong} of {len(expected)} consents that differ from the newest decision"
        if self.stale and held.get((self.stale, "sms")) != "Unsubscribed":
            yield "opt-ins: an old subscription undid an opt-out"
        if self.opted_out and held.get((self.opted_out, "sms")) != "Unsubscribed":
            yield "opt-ins: an opt-out did not arrive"


def _wrong_of(run: Run, newer: Consents) -> Iterator[str]:
    report, said = run.report, Counter(run.said)
    settled = sum(report[outcome] for outcome in ("acknowledged", "rejected", "unknown", "skipped"))
    wanted = Counter(not no for _, no in newer.values())
    if report["status"] != "finished":
        yield f"{report['status']}, not finished"
    if not report["read"] == settled == run.table.rows:
        yield f"{run.table.rows} rows in the warehouse, {report['read']} read, {settled} settled"
    if report["rejected"] != run.table.unfit:
        yield f"{run.table.unfit} rows have no evidence or no address, {report['rejected']} were rejected"
    if not (said == wanted and report["acknowledged"] == wanted.total()):
        yield (
            f"{wanted[False]} opt-outs and {wanted[True]} opt-ins are news, {said[False]} and {said[True]} arrived, "
            f"{report['acknowledged']} were acknowledged"
        )
    if run.said != sorted(run.said):
        yield "an opt-in arrived before an opt-out"


def _whose(row: Mapping[str, Any]) -> str | None:
    if row["channel"].lower() == "email":
        return str(row["email"]).strip().lower()
    digits = re.sub(r"\D", "", row["phone"] or "")
    return f"+1{digits[-10:]}" if _NUMBER.fullmatch(digits) else None


def _moment(text: str | None) -> str:
    if not text:
        return _WHEN_IT_WAS_READ
    read = datetime.fromisoformat(text)
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
