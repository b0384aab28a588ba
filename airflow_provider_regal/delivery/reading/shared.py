"""Find rows with different user ids that share a phone or email: Regal would merge them into one contact."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby, islice
from typing import Final

from airflow_provider_regal.ledger.account import Account

_log = logging.getLogger(__name__)
_PARTS: Final = 256
_LISTED: Final = 5
_AT_ONCE: Final = 1_000


#: The note in the report.
SHARED: Final = "a phone or email is shared with another user id: Regal merges them into one contact"


def log_shared(shared: Mapping[int, str]) -> None:
    """Log a warning with the numbers of these rows in the source."""
    listed = "".join(f"\n  row {row:,}: {why}" for row, why in islice(sorted(shared.items()), _LISTED))
    count = "1 row shares" if len(shared) == 1 else f"{len(shared):,} rows share"
    _log.warning(
        "%s a phone or email with another user id. Regal merges them into one contact. Fix placeholders in the source; "
        "on_shared='reject' sends none of them:%s", count, listed,
    )  # fmt: skip


class SharedIdentifiers:
    """Finds them among the rows that are sent and the phones on record; 24 bytes for each phone and email."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._parts: list[array[int]] = [array("q") for _ in range(_PARTS)]
        self._new: list[tuple[int, str, Collection[str]]] = []
        self._on_record: dict[int, str] = {}

    def add(self, source_row: int, user_id: str, identifiers: Collection[str]) -> None:
        """Add a row's person.

        :param identifiers: the row's phones and emails; may include the user id as ``user:...``.
        """
        self._new.append((source_row, user_id, identifiers))
        if len(self._new) >= _AT_ONCE:
            self._take_new()

    def finish(self) -> dict[int, str]:
        """Return numbers of rows that share a phone or email with another user id -> a description of the rows."""
        self._take_new()
        found = dict(self._on_record)
        for rows in self._groups():
            named = ", ".join(f"{row:,}" for row in rows[:_LISTED])
            more = f" and {len(rows) - _LISTED:,} more" if len(rows) > _LISTED else ""
            found |= dict.fromkeys(rows, f"rows {named}{more} of the source, of different user ids, share it")
        return found

    def _groups(self) -> Iterator[Sequence[int]]:
        for part in self._parts:
            hashes = part[::3]
            if len({*hashes}) == len(hashes):  # which is usual, and costs less than sorting
                continue
            told = sorted(zip(hashes, part[1::3], part[2::3], strict=True))
            for _, same in groupby(told, lambda one: one[0]):
                group = [*same]
                if len({who for _, who, _ in group}) > 1:
                    yield sorted({row for _, _, row in group})

    def _take_new(self) -> None:
        """Add in batches: adding one by one takes three times as long."""
        parts, of_phone = self._parts, list[tuple[int, str, str]]()
        for source_row, user_id, identifiers in self._new:
            who = hash(user_id)
            for identifier in identifiers:
                if identifier.startswith("user:"):
                    continue
                hashed = hash(identifier)
                parts[hashed % _PARTS].extend((hashed, who, source_row))
                if "@" not in identifier:
                    of_phone.append((source_row, user_id, identifier))
        self._new.clear()
        users = self._account.users_of({phone for _, _, phone in of_phone})
        stored = self._account.identifiers.stored
        for source_row, user_id, phone in of_phone if users else ():
            if (known := users.get(phone)) and known - {stored(user_id)}:
                self._on_record[source_row] = "another user id on record has it"
