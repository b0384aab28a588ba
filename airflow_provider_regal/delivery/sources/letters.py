"""Dead letters as rows, to be sent again: every rule applies to them as to any other row."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from airflow_provider_regal.delivery.marks import (
    CALL_MARK,
    CLAIMS_MARK,
    EVENT_MARK,
    FORCE_MARK,
    LEDGER_KEY_MARK,
    LETTER_TIME_MARK,
    ONLY_CONSENT_MARK,
    ORIGIN_MARK,
    ROW_MARK,
    Marked,
)
from airflow_provider_regal.events.models import EVENTS, Page
from airflow_provider_regal.events.names import NAME
from airflow_provider_regal.journal.dead_letters import DeadLetter
from airflow_provider_regal.journal.progress import CorruptProgressError
from airflow_provider_regal.journal.redelivery import Claim, Letters, Taken, since_when
from airflow_provider_regal.journal.run_folder import FolderInUseError

_log = logging.getLogger(__name__)

Fix = Callable[[dict[str, Any]], Mapping[str, Any] | None]

_UNREADABLE: Final = "could not be read when they were delivered: mend them with fix=, or deliver their source again"
_CONSENT: Final = "rows of an opt-in sync: run the sync again, it tries what was rejected"
_OPT_INS: Final = "opt-ins of a sync: only with its ledger can they be kept from following a newer opt-out. Give it"
_PATIENCE_S: Final = 30.0
_ASK_AGAIN_S: Final = 0.2


@dataclass(frozen=True, slots=True)
class Choice:
    """Which letters are sent again, and how.

    :param status: ``rejected``, ``unknown``.
    :param fix: gets the payload of a letter (a row where it could not be mapped) and gives what to send; None to leave
        the letter where it is.
    """

    status: Collection[str]
    fix: Fix | None = None


@dataclass(frozen=True, slots=True)
class Claimant:
    """Who takes letters.

    :param folder: its run folder.
    :param goes_on: an earlier try of it has worked in that folder: what that took, and was not sent, is taken again.
    :param restarts: all that it ever took is taken again.
    """

    folder: Path
    goes_on: bool = False
    restarts: bool = False

    def may_take(self, claim: Claim) -> bool:
        """Say whether a letter is its own to send, given who has it now."""
        again = self.restarts or (self.goes_on and claim.outcome is None)
        return claim.new or (claim.by == str(self.folder) and again)


def read_letters(
    folders: Iterable[Path],
    choice: Choice,
    *,
    by: Claimant,
    has_ledger: bool,
    dry_run: bool = False,
    patience_s: float = _PATIENCE_S,
) -> Iterator[Marked]:
    """Take the letters of run folders and give them as rows, those that died first at the front.

    :param has_ledger: whether the ledger keeps what is older from following what is newer.
    :param dry_run: look only, and take nothing.
    :param patience_s: seconds to wait for a run folder that somebody works in.
    """
    left, calls, row = Counter[str](), Counter[str](), 0
    taken = Taken(by.folder)
    with ExitStack() as at_the_end:
        at_the_end.callback(_say_what_it_may_cost, calls, has_ledger=has_ledger)
        at_the_end.callback(_say_what_stays, left)
        if not dry_run:
            taken.start()
            at_the_end.enter_context(closing(taken))
        for folder in sorted(folders, key=since_when):
            with _opened(folder, patience_s) as letters:
                for letter in () if letters is None else letters.read():
                    payload, why = _what_to_send(letter, choice, has_ledger=has_ledger)
                    if payload is not None and letters is not None:
                        why = _why_not_ours(letters, letter.position, by, dry_run=dry_run)
                    if payload is None or why is not None:
                        left[why or ""] += 1
                        continue
                    if not dry_run:
                        taken.add(row, folder, letter.position)
                    row += 1
                    calls[f"{letter.call}, {letter.status}"] += 1
                    yield _row(letter, payload, f"{folder} position {letter.position}")


@contextmanager
def _opened(folder: Path, patience_s: float) -> Iterator[Letters | None]:
    letters = _open(folder, patience_s)
    try:
        yield letters
    finally:
        if letters is not None:
            letters.close()


def _open(folder: Path, patience_s: float) -> Letters | None:
    until = time.monotonic() + patience_s
    while True:
        try:
            return Letters(folder)
        except FolderInUseError:
            if time.monotonic() >= until:
                _log.warning("A task works in %s: its dead letters stay where they are", folder)
                return None
        except CorruptProgressError as error:
            _log.warning("%s: %s; its dead letters stay where they are", folder, error)
            return None
        time.sleep(_ASK_AGAIN_S)


def _what_to_send(
    letter: DeadLetter, choice: Choice, *, has_ledger: bool
) -> tuple[Mapping[str, Any] | None, str | None]:
    """Give what a letter says, mended; or why it stays where it is."""
    if letter.status not in choice.status:
        return None, f"{letter.status}, which was not asked for"
    if letter.form == "consent":
        return None, _CONSENT
    if letter.form == "unreadable" and choice.fix is None:
        return None, _UNREADABLE
    if letter.claims and not has_ledger:
        return None, _OPT_INS
    if letter.claims or choice.fix is None:  # whose consent it is, is not mended on the way
        return dict(letter.payload), None
    payload = choice.fix(dict(letter.payload))
    if payload is None:
        return None, "left out by fix"
    if not isinstance(payload, Mapping):
        raise ValueError(f"fix must give a dictionary, or None to leave the letter; it gave a {type(payload).__name__}")
    return payload, None


def _why_not_ours(letters: Letters, position: int, by: Claimant, *, dry_run: bool) -> str | None:
    """Take a letter; say who has it if that is somebody else."""
    claim = letters.claim_of(position) if dry_run else letters.take(position, str(by.folder))
    if claim is None or by.may_take(claim):
        return None
    return f"taken by {claim.by}" + (f", {claim.outcome} there" if claim.outcome else "")


def _say_what_stays(left: Mapping[str, int]) -> None:
    for why, count in left.items():
        _log.warning("%s dead letters stay where they are: %s", f"{count:,}", why)


def _say_what_it_may_cost(calls: Mapping[str, int], *, has_ledger: bool) -> None:
    unknown = sum(count for what, count in calls.items() if what.endswith("unknown"))
    if unknown:
        _log.warning("%s rows of unknown outcome are sent again, as asked: people may be reached twice", f"{unknown:,}")
    contacts = sum(count for what, count in calls.items() if what.startswith("identify"))
    if contacts and not has_ledger:
        _log.warning(
            "%s contacts are sent as they were then: without a ledger nobody knows whether they were sent anew since. "
            "Give ledger_conn_id if the delivery had one",
            f"{contacts:,}",
        )


def _row(letter: DeadLetter, payload: Mapping[str, Any], origin: str) -> Marked:
    marks: dict[str, Any] = {
        ORIGIN_MARK: origin,
        FORCE_MARK: letter.status == "unknown",
        LETTER_TIME_MARK: letter.first_time,
        LEDGER_KEY_MARK: letter.ledger_key,
    }
    if letter.claims:
        marks |= {CLAIMS_MARK: letter.claims, ONLY_CONSENT_MARK: True}
    if letter.form in ("row", "unreadable"):
        return Marked({**marks, CALL_MARK: letter.call, ROW_MARK: dict(payload)})
    return Marked({**marks, EVENT_MARK: letter.call, ROW_MARK: _written(letter, payload)})


def _written(letter: DeadLetter, payload: Mapping[str, Any]) -> dict[str, Any]:
    kind = EVENTS[letter.call]
    if letter.form == "body" and issubclass(kind, Page):  # the page's own name stands in the properties
        return {key: value for key, value in payload.items() if key != NAME}
    return dict(payload)
