"""Dead letters as rows, to be sent again: every rule applies to them as to any other row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from airflow_provider_regal.delivery.marks import (
    CLAIMS_MARK,
    EVENT_MARK,
    FORCE_MARK,
    LETTER_TIME_MARK,
    ONLY_CONSENT_MARK,
    ORIGIN_MARK,
    REJECT_MARK,
    ROW_MARK,
    Marked,
)
from airflow_provider_regal.events.columns import CALLS, RowMapping
from airflow_provider_regal.events.mapping import RowMapper
from airflow_provider_regal.events.models import Page
from airflow_provider_regal.events.names import NAME
from airflow_provider_regal.events.values import Reading
from airflow_provider_regal.journal.dead_letters import DeadLetter
from airflow_provider_regal.journal.redelivery import Taken, claim, letters_of

_log = logging.getLogger(__name__)

Fix = Callable[[dict[str, Any]], Mapping[str, Any] | None]

_UNREADABLE: Final = "could not be read when it was delivered: mend it with fix=, or deliver it again from its source"
_CONSENT: Final = "is a row of an opt-in sync: run the sync again, which tries what was rejected"


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are sent again, and how.

    :param status: ``rejected``, ``unknown``.
    :param event: the name of track events whose row does not hold it.
    :param mapping: column -> what it becomes, for rows that could not be mapped.
    :param fix: gets the payload of a letter (a row where it could not be mapped) and gives what to send; None to leave
        the letter where it is.
    :param has_ledger: whether the ledger keeps what is older from following what is newer.
    """

    status: Collection[str]
    event: str | None = None
    mapping: Mapping[str, str | None] | None = None
    types: Mapping[str, type] | None = None
    lower_upper: bool = True
    reading: Reading = field(default_factory=Reading)
    fix: Fix | None = None
    has_ledger: bool = False


def read_letters(folders: Iterable[Path], choice: Choice, by: Path | None) -> Iterator[Marked]:
    """Take the letters of run folders and give them as rows.

    :param by: our own run folder; None to look only, and take nothing.
    """
    taken = None if by is None else Taken(by)
    left, calls, row = Counter[str](), Counter[str](), 0
    if taken is not None:
        taken.start()
    for folder in folders:
        for letter in letters_of(folder):
            if letter.status not in choice.status:
                left[f"{letter.status}, which was not asked for"] += 1
                continue
            payload = letter.payload if choice.fix is None else choice.fix(dict(letter.payload))
            if payload is None:
                left["left out by fix"] += 1
                continue
            if taken is not None:
                if (by_whom := claim(folder, letter.position, str(by)).by) != str(by):
                    left[f"taken by {by_whom}"] += 1
                    continue
                taken.add(row, folder, letter.position)
            row += 1
            calls[f"{letter.call}, {letter.status}"] += 1
            yield _row(letter, payload, choice, f"{folder} position {letter.position}")
    for why, count in left.items():
        _log.info("%s dead letters stay where they are: %s", f"{count:,}", why)
    _say_what_it_may_cost(calls, choice)


def _say_what_it_may_cost(calls: Mapping[str, int], choice: Choice) -> None:
    unknown = sum(count for what, count in calls.items() if what.endswith("unknown"))
    if unknown:
        _log.warning("%s rows of unknown outcome are sent again, as asked: people may be reached twice", f"{unknown:,}")
    contacts = sum(count for what, count in calls.items() if what.startswith("identify"))
    if contacts and not choice.has_ledger:
        _log.warning(
            "%s contacts are sent as they were then: without a ledger nobody knows whether they were sent anew since. "
            "Give ledger_conn_id if the delivery had one",
            f"{contacts:,}",
        )


def _row(letter: DeadLetter, payload: Mapping[str, Any], choice: Choice, origin: str) -> Marked:
    marks = {
        ORIGIN_MARK: origin,
        FORCE_MARK: letter.status == "unknown",
        LETTER_TIME_MARK: letter.last_time,
        **({CLAIMS_MARK: letter.claims, ONLY_CONSENT_MARK: True} if letter.claims else {}),
    }
    if letter.form == "consent" or (letter.form == "unreadable" and choice.fix is None):
        reason = _CONSENT if letter.form == "consent" else _UNREADABLE
        return Marked({**marks, REJECT_MARK: [["the row", reason]], ROW_MARK: dict(payload)})
    if letter.form in ("row", "unreadable"):
        event = choice.event if letter.call == "track" else None
        mapper = RowMapper(
            RowMapping(letter.call, event, choice.mapping, choice.types, lower_upper=choice.lower_upper), choice.reading
        )
        if faults := mapper.plan(tuple(payload)).faults:
            rejected = [[fault.field, fault.reason] for fault in faults]
            return Marked({**marks, REJECT_MARK: rejected, ROW_MARK: dict(payload)})
        return Marked({**marks, EVENT_MARK: letter.call, ROW_MARK: mapper.written(payload)})
    return Marked({**marks, EVENT_MARK: letter.call, ROW_MARK: _written(letter, payload)})


def _written(letter: DeadLetter, payload: Mapping[str, Any]) -> dict[str, Any]:
    kind = CALLS[letter.call]
    if letter.form == "body" and issubclass(kind, Page):  # the page's own name stands in the properties
        return {key: value for key, value in payload.items() if key != NAME}
    return dict(payload)
