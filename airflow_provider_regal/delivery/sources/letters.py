"""Dead letters as rows, to be sent again: every rule applies to them as to any other row."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
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
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.claim import Claim
from airflow_provider_regal.journal.dead_letters import DeadLetter
from airflow_provider_regal.journal.progress import CorruptProgressError
from airflow_provider_regal.journal.redelivery import Letters, open_letters, since_when
from airflow_provider_regal.journal.run_folder import FolderInUseError
from airflow_provider_regal.journal.segment import DamagedError
from airflow_provider_regal.journal.taken import Taken

_log = logging.getLogger(__name__)

Fix = Callable[[dict[str, Any]], Mapping[str, Any] | None]

_UNREADABLE: Final = "could not be read when they were delivered: mend them with fix=, or deliver their source again"
_CONSENT: Final = "rows of an opt-in sync: run the sync again, it tries what was rejected"
_OPT_INS: Final = "opt-ins of a sync: only with its ledger can they be kept from following a newer opt-out. Give it"
PATIENCE_S: Final = 30.0
_ASK_AGAIN_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
_TAKEN_AT_ONCE: Final = 1_000
_LOOKED_AT_AT_ONCE: Final = 8


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

    :param name: of its run folder.
    :param goes_on: an earlier try of it has worked in that folder: what that took, and was not sent, is taken again.
    :param restarts: all that it ever took is taken again.
    """

    name: str
    goes_on: bool = False
    restarts: bool = False

    def may_take_again(self, claim: Claim) -> bool:
        """Say whether a letter it has had is its own to send."""
        return self.restarts or (self.goes_on and claim.outcome is None)

    def would_take(self, claim: Claim | None) -> Claim:
        """Say who would have a letter if it was asked for."""
        if claim is None:
            return Claim(self.name, ours=True)
        return replace(claim, ours=claim.by == self.name and self.may_take_again(claim))


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A letter that is to be sent, if it is nobody else's.

    :param payload: what it says, mended.
    """

    letter: DeadLetter
    payload: Mapping[str, Any]


def read_letters(
    folders: Iterable[Path | Bucket],
    choice: Choice,
    *,
    by: Claimant,
    taken: Taken | None,
    has_ledger: bool,
    clock: Clock,
    limit: int | None = None,
    patience_s: float = PATIENCE_S,
) -> Iterator[Marked]:
    """Take the letters of run folders and give them as rows, those that died first at the front.

    :param taken: notes which were taken; None to look only, and take nothing.
    :param has_ledger: whether the ledger keeps what is older from following what is newer.
    :param limit: how many letters to take at most.
    :param patience_s: seconds to wait for a run folder that somebody works in.
    """
    left, calls, row = Counter[str](), Counter[str](), 0
    with ExitStack() as at_the_end:
        at_the_end.callback(_say_what_it_may_cost, calls, has_ledger=has_ledger)
        at_the_end.callback(_say_what_stays, left)
        if taken is not None:
            taken.start()
            at_the_end.enter_context(closing(taken))
        for folder in _oldest_first(folders, clock):
            if not _room(limit, row):
                break
            with _opened(folder, patience_s, clock, only_looks=taken is None) as letters:
                wanted = _wanted(letters, choice, left, has_ledger=has_ledger)
                while batch := list(islice(wanted, _room(limit, row))):
                    ours = _take(letters, batch, by, left, only_looks=taken is None)
                    for number, (one, claim) in enumerate(ours, row):
                        if taken is not None:  # all of them, before the first is given on
                            taken.add(number, str(folder), one.letter.position, claim.token)
                    for one, _ in ours:
                        row += 1
                        calls[f"{one.letter.call}, {one.letter.status}"] += 1
                        yield _row(one.letter, one.payload, f"{folder} position {one.letter.position}")


def _oldest_first(folders: Iterable[Path | Bucket], clock: Clock) -> list[Path | Bucket]:
    listed = list(folders)
    with ThreadPoolExecutor(_LOOKED_AT_AT_ONCE) as threads:
        since = dict(zip(listed, threads.map(lambda folder: since_when(folder, clock), listed), strict=True))
    return sorted((folder for folder in listed if since[folder] is not None), key=lambda folder: since[folder] or "")


@contextmanager
def _opened(folder: Path | Bucket, patience_s: float, clock: Clock, *, only_looks: bool) -> Iterator[Letters | None]:
    letters = _open(folder, patience_s, clock, only_looks=only_looks)
    try:
        yield letters
    except FolderInUseError as error:  # on a bucket others are not kept away
        _log.warning("%s: the rest of its dead letters stays where it is", error)
    finally:
        if letters is not None:
            letters.close()


def _open(folder: Path | Bucket, patience_s: float, clock: Clock, *, only_looks: bool) -> Letters | None:
    until, pause_s = clock.monotonic() + patience_s, _ASK_AGAIN_S
    while True:
        try:
            return open_letters(folder, clock, only_looks=only_looks)
        except FolderInUseError:
            if clock.monotonic() >= until:
                _log.warning("A task works in %s: its dead letters stay where they are", folder)
                return None
        except (CorruptProgressError, DamagedError) as error:
            _log.warning("%s: %s; its dead letters stay where they are", folder, error)
            return None
        clock.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _wanted(letters: Letters | None, choice: Choice, left: Counter[str], *, has_ledger: bool) -> Iterator[_Wanted]:
    """Give the letters that are to be sent, and count why others are not."""
    for letter in () if letters is None else letters.read():
        payload, why = _what_to_send(letter, choice, has_ledger=has_ledger)
        if payload is None:
            left[why or ""] += 1
        else:
            yield _Wanted(letter, payload)


def _room(limit: int | None, taken: int) -> int:
    """Say how many letters to take at once."""
    return _TAKEN_AT_ONCE if limit is None else min(limit - taken, _TAKEN_AT_ONCE)


def _take(
    letters: Letters | None, batch: Iterable[_Wanted], by: Claimant, left: Counter[str], *, only_looks: bool
) -> list[tuple[_Wanted, Claim]]:
    """Take letters; count who has those that somebody else has."""
    ours, positions = [], {one.letter.position: one for one in batch}
    if letters is None:
        return []
    if only_looks:
        claims = {position: by.would_take(letters.claim_of(position)) for position in positions}
    else:
        claims = letters.take(positions, by.name, by.may_take_again)
    for position, one in positions.items():
        claim = claims[position]
        if claim.ours:
            ours.append((one, claim))
        else:
            left[f"taken by {claim.by}" + (f", {claim.outcome} there" if claim.outcome else "")] += 1
    return ours


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
