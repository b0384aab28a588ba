"""Explain a person's records: consent with its evidence, what Regal does not have and why, and the timeline."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from airflow_provider_regal.ledger import formats
from airflow_provider_regal.ledger.admin.history import ConsentNow, Consents, Person, PersonOutcome, Wanted
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.formats import plural
from airflow_provider_regal.ledger.people import consent_log
from airflow_provider_regal.ledger.people.consent_log import LogLine
from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.people.suppressions import Suppression, find_suppressions
from airflow_provider_regal.ledger.rules import SENDING
from airflow_provider_regal.ledger.text import short

_WITHHELD_SHOWN: Final = 10


class Explanation(NamedTuple):
    """The consent of one phone or email on one channel.

    :param who: the phone or email.
    :param verdict: such as ``opted in``.
    :param sentences: the reasons.
    """

    who: str
    channel: str
    account: str
    verdict: str
    sentences: list[str]


def names_of(wanted: Wanted, stored: Identifiers) -> dict[str, str]:
    """Return the plain names of stored identifiers, for the requested person."""
    keys = (*wanted.phones, *wanted.emails, *(f"user:{one}" for one in wanted.user_ids))
    return {stored.stored(key): key for key in keys}


def explain(found: Consents, names: Mapping[str, str]) -> Iterator[Explanation]:
    """Explain each phone or email on each channel.

    :param names: stored identifier -> its plain name, for the requested person.
    """
    consents = {(one.account, one.identifier, one.channel): one for one in found.consents}
    lines: dict[tuple[str, str, str], list[LogLine]] = {}
    for line in found.decisions:
        lines.setdefault((line.account, line.identifier, line.channel), []).append(line)
    for account, identifier, channel in sorted(consents.keys() | lines.keys()):
        key = (account, identifier, channel)
        told, known = lines.get(key, []), consents.get(key)
        who = formats.identifier(names.get(identifier, identifier))
        sentences = [*(_standing(known, told) if known else ()), *_not_sent(told)]
        yield Explanation(who, channel, account, _verdict(known), [*sentences])


def _verdict(known: ConsentNow | None) -> str:
    if known is None or (known.subscribed is None and known.opt_out_at is None and known.pending_at is None):
        return "no consent"
    if known.owes_opt_out:
        return "OPTED OUT, and Regal does not have that yet"
    if known.pending_at is not None:
        return f"{_opted(known.pending_subscribed)}, and it can't be known yet whether Regal has that"
    if known.subscribed is None:
        return "opted out"
    return _opted(known.subscribed)


def _opted(subscribed: object) -> str:
    return "opted in" if subscribed else "opted out"


def _standing(known: ConsentNow, lines: Sequence[LogLine]) -> Iterator[str]:
    if known.subscribed is not None:
        yield (
            f"Regal has: {_opted(known.subscribed)} at {formats.time(known.evidence_at)} UTC, "
            + (
                f"acknowledged {formats.time(known.acknowledged_at)}"
                if known.acknowledged_at
                else "by its own data or recorded as a baseline; nothing was sent for it"
            )
            + (f", from {known.source}." if known.source else ".")
        )
        yield from _evidence(known, lines)
    if known.pending_at is not None:
        what = "opt-in" if known.pending_subscribed else "opt-out"
        state = (
            "is being sent now"
            if known.state == SENDING
            else "was sent, and it can't be known whether Regal received it"
        )
        yield f"The {what} of {formats.time(known.pending_at)} {state}."
    if known.owes_opt_out:
        by = f" by {known.opt_out_source}" if known.opt_out_source else ""
        yield (
            f"The opt-out of {formats.time(known.opt_out_at)} was read{by} and is not acknowledged. The next delivery "
            "of contacts sends it first; to send it now: airflow regal consent owed --send"
        )
    if known.opt_out_at is not None:
        yield f"No opt-in given up to {formats.time(known.opt_out_at)} is sent: the person opted out then."


def _evidence(known: ConsentNow, lines: Sequence[LogLine]) -> Iterator[str]:
    """Return the evidence of what Regal has. Of an opt-out, also that of the opt-in before it.

    A row that says no often still has the IP address and the wording of the earlier yes. They are not evidence of the
    opt-out, so its own are left to the history.
    """
    had = [line for line in lines if line.status in (consent_log.ACKNOWLEDGED, consent_log.RECORDED)]
    mine = [one for one in had if one.subscribed == bool(known.subscribed) and one.given_at == known.evidence_at]
    if not mine:
        yield "Evidence: none in the consent log."
    elif known.subscribed:
        yield f"Evidence: {_proof(mine[-1])}."
    else:
        yield f"Evidence: {'; '.join(part for part in (mine[-1].reason, _where(mine[-1])) if part)}."
    opt_ins = [one for one in had if one.subscribed]
    if not known.subscribed and opt_ins:
        newest = max(opt_ins, key=lambda one: one.given_at or "")
        yield f"Evidence of the earlier opt-in of {formats.time(newest.given_at)}: {_proof(newest)}."


def _proof(line: LogLine) -> str:
    parts = (
        f"IP address {line.ip}" if line.ip else "",
        f"collected by {line.form}" if line.form else "",
        f"agreed to {json.dumps(line.text, ensure_ascii=False)}" if line.text else "",
        line.reason or "",
        _where(line),
    )
    return "; ".join(part for part in parts if part)


def _where(line: LogLine) -> str:
    row = line.place or (f"row {line.position:,}" if line.position else "")
    return ", ".join(part for part in (row, f"delivery {line.delivery}" if line.delivery else "") if part)


def _not_sent(lines: Sequence[LogLine]) -> Iterator[str]:
    """Return the newest decisions that Regal does not have, and why."""
    left = [line for line in lines if line.status in (consent_log.WITHHELD, consent_log.REFUSED)]
    for line in left[-_WITHHELD_SHOWN:]:
        what = "opt-in" if line.subscribed else "opt-out"
        given = f"given {formats.time(line.given_at)}" if line.given_at else "without a time"
        verb = "Withheld" if line.status == consent_log.WITHHELD else "Refused by Regal"
        yield f"{verb} {formats.time(line.logged_at)}: {what} {given} ({_where(line)}): {line.reason or '-'}."
    if (more := len(left) - _WITHHELD_SHOWN) > 0:
        yield f"and {plural(more, 'older one')} that Regal does not have either (--json lists all)."


def rejected_rows(rows: Sequence[PersonOutcome]) -> Iterator[str]:
    """Return one sentence about each of the newest rejected rows with a decision, and where it is."""
    for one in rows[-_WITHHELD_SHOWN:]:
        by = f" of {one.task}" if one.task else ""
        yield f"{formats.time(one.at)}: {one.row.where}, delivery {one.row.delivery}{by}: {one.row.message or '-'}."
    if (more := len(rows) - _WITHHELD_SHOWN) > 0:
        yield f"and {plural(more, 'older one')} (--json lists all)."


# -- a person's timeline ---


class Line(NamedTuple):
    """A line of a person's timeline."""

    at: str
    what: str
    status: str
    where: str
    told: str


def suppressions_of(database: Database, wanted: Wanted, stored: Identifiers, account: str | None) -> list[Suppression]:
    """Find a person's entries on the suppression list."""
    people = (*wanted.phones, *wanted.emails, *(f"user:{user_id}" for user_id in wanted.user_ids))
    name = None if account is None else short(account)
    return find_suppressions(database, people, identifiers=stored, account=name)


def suppressed_since(one: Suppression) -> str:
    """Return one line about a person who must not be contacted."""
    note = f": {formats.one_line(one.note)}" if one.note else ""
    who, since = formats.identifier(one.identifier), formats.time(one.added_at)
    return f"{one.kind.capitalize()} since {since} in account {one.account} ({who}){note}"


def timeline(person: Person) -> list[Line]:
    """List the outcomes of a person's rows and decisions, oldest first."""
    return sorted((*_rows(person.outcomes), *_decisions(person.decisions)))


def _rows(outcomes: list[PersonOutcome]) -> Iterator[Line]:
    for one in outcomes:
        row = one.row
        event = f" {row.event!r}" if row.event else ""
        found = f"found in {one.found_in}" if one.found_in else ""
        by = f"redelivered by {row.redelivered_by}" if row.redelivered_by is not None else ""
        there = f"found at Regal on {formats.time(row.found_at)}" if row.found_at is not None else ""
        told = "; ".join(part for part in (one.task, row.reason, row.message, found, by, there) if part)
        yield Line(one.at, f"{row.call}{event}", row.status, f"{row.delivery}, {row.where}", told)


def _decisions(decisions: list[LogLine]) -> Iterator[Line]:
    for one in decisions:
        what = f"{one.channel} {'opt-in' if one.subscribed else 'opt-out'}"
        where = "-" if one.delivery is None else one.delivery
        if one.place or one.position is not None:
            where += f", {one.place or f'row {one.position:,}'}"
        told = "; ".join(
            part
            for part in (
                f"{formats.identifier(one.identifier)}",
                f"given {formats.time(one.given_at)}" if one.given_at else "",
                f"ip {one.ip}" if one.ip else "",
                f"from {one.form}" if one.form else "",
                one.reason or "",
            )
            if part
        )
        yield Line(one.logged_at, what, one.status, where, told)


def consent_now(one: ConsentNow) -> str:
    """Return one line about the consent on record of a phone or email on one channel."""
    told = []
    if one.subscribed is not None:
        word = "opted in" if one.subscribed else "opted out"
        told.append(f"{word} since {formats.time(one.evidence_at)}, acknowledged {formats.time(one.acknowledged_at)}")
    if one.owes_opt_out:
        told.append(f"opt-out of {formats.time(one.opt_out_at)} is not acknowledged by Regal yet")
    if one.pending_at is not None:
        word = "opt-in" if one.pending_subscribed else "opt-out"
        state = "is being sent" if one.state == "sending" else "may have reached Regal"
        told.append(f"{word} of {formats.time(one.pending_at)} {state}")
    if one.source:
        told.append(f"by {one.source}")
    return "; ".join(told) or "nothing"
