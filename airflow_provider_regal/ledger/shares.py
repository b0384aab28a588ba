"""Shares: one rate limit for all tasks of an account, agreed on in the commits that they make anyway.

::

    a line for each sender: wants, granted, until ─▶ split ─▶ my share ─┬─ smaller: granted at once, to me
                                                                        └─ larger: as far as the others leave it, and
                                                                           under the lock of the account

The granted rates never add up to more than the limit: a new sender is granted nothing until the others have committed
to less, and a line counts until its sender can't be sending anymore, whatever happened to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import bindparam, delete, select, text
from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.entries import raw_rows
from airflow_provider_regal.ledger.text import from_ledger_time, to_ledger_time
from airflow_provider_regal.ledger.upserts import write_rows

#: If there are more senders than requests per second, they take turns of this many seconds.
TURN_S: Final = 5.0
#: For single events: slots are handed out this many seconds ahead.
_AHEAD_S: Final = 1.0
_BACKLOG_S: Final = 0.25
_SECOND_S: Final = 1.03
_AT_FIRST: Final = 10
_AT_LEAST: Final = 2
#: All single events of an account together count as this sender.
SINGLE_EVENTS: Final = "single events"
#: They come from many processes, so they go less evenly than those of one process, and a little late.
MARGIN_OF_SINGLES: Final = 0.9

_s = schema.senders.c
_COLUMNS: Final = ("account", "sender", "wants", "granted", "rate_limit", "until", "next_at", "draining_until")
_LOCK: Final = (
    select(schema.accounts.c.account)
    .where(schema.accounts.c.account == bindparam("account"))
    .with_for_update(skip_locked=True)
)


class Sender(NamedTuple):
    """One line: a delivery that sends, or the single events of the account.

    :param wants: requests per second that it could use.
    :param granted: what it may send, or has sent in the last second, whichever is more.
    :param rate_limit: of its connection; the lowest is the account's.
    :param until: when it can't be sending anymore unless it has committed again.
    :param next_at: for single events: the next free slot.
    :param draining_until: for single events: when the slots handed out at the granted rate end; later ones are further
        apart.
    """

    wants: int
    granted: int
    rate_limit: int
    until: str
    next_at: str | None = None
    draining_until: str | None = None


def split(wants: Mapping[str, int], limit: int, *, turn: int = 0) -> dict[str, int]:
    """Split a rate equally, in whole requests per second; what a sender does not want goes to the others.

    :param wants: what each could use.
    :param turn: whose turn it is, if there are more senders than requests per second.
    """
    names = sorted(wants)
    if len(names) > limit:
        first = turn * limit % len(names)
        chosen = {names[(first + number) % len(names)] for number in range(limit)}
        return {name: int(name in chosen) for name in names}
    shares, left = {}, limit
    for number, name in enumerate(sorted(names, key=wants.__getitem__)):
        shares[name] = min(wants[name], left // (len(names) - number))
        left -= shares[name]
    return shares


def share_of(me: str, wants: int, senders: Mapping[str, Sender], limit: int, *, turn: int = 0) -> tuple[int, int]:
    """Return the share due to a sender, and what it may be granted now.

    :param senders: that may be sending, with or without this one.
    :param limit: of the account.
    """
    others = {name: sender for name, sender in senders.items() if name != me}
    wanting = {name: one.wants for name, one in others.items() if one.wants}
    due = split({**wanting, me: wants}, limit, turn=turn)[me]
    return due, min(due, max(0, limit - sum(one.granted for one in others.values())))


def wants_of_singles(mine: Sender | None, now: datetime, most: int) -> int:
    """Return what single events want: more while they have to wait, less while slots are unused."""
    if mine is None or not mine.wants or mine.next_at is None:
        return min(most, _AT_FIRST)
    ahead_s = (from_ledger_time(mine.next_at) - now).total_seconds()
    if ahead_s > 0:
        return min(most, mine.wants * 2 if ahead_s > _BACKLOG_S else mine.wants * 5 // 4 + 1)
    unused = mine.granted and -ahead_s > 2 / mine.granted
    return max(_AT_LEAST, mine.wants * 4 // 5) if unused else mine.wants


def next_slot(mine: Sender | None, granted: int, now: datetime) -> tuple[datetime | None, datetime, str | None]:
    """Hand out the next slot for single events.

    :param mine: their line, if it still counts.
    :param granted: requests per second from now on.
    :returns: the slot, None if there is none now; when the next one is free; and until when the previous grant still
        counts, because closer slots were handed out: otherwise the sum of all shares would be wrong.
    """
    free_at = now if mine is None or mine.next_at is None else max(now, from_ledger_time(mine.next_at))
    slot = free_at if granted and (free_at - now).total_seconds() <= _AHEAD_S else None
    next_at = free_at if slot is None else slot + timedelta(seconds=1 / (granted * MARGIN_OF_SINGLES))
    draining = None
    if mine is not None and granted < mine.granted:
        draining = mine.draining_until or to_ledger_time(free_at + timedelta(seconds=_SECOND_S))
        if draining <= to_ledger_time(now):
            draining = None
    return slot, next_at, draining


@dataclass(frozen=True, slots=True)
class Share:
    """A sender's share.

    :param granted: requests per second.
    :param due: what it will be granted once the others have committed to less.
    :param others: how many other senders have something to send.
    """

    granted: int
    due: int
    others: int


class Shares:
    """The senders of an account.

    :param sender: the name of this one.
    :param rate_limit: of its connection, requests per second.
    :param hold_s: seconds after a commit until it stops sending, unless it has committed again.
    """

    def __init__(
        self, account: Account, *, rate_limit: int, sender: str = SINGLE_EVENTS, hold_s: float = _AHEAD_S
    ) -> None:
        self._account = account
        self._sender = sender
        self._rate_limit = rate_limit
        self._hold_s = hold_s
        now = account.database.now_sql.replace(":", "\\:")
        self._read: Any = text(
            f"SELECT {now}, s.sender, s.wants, s.granted, s.rate_limit, s.until, s.next_at, s.draining_until "  # noqa: S608
            "FROM regal_accounts a LEFT JOIN regal_senders s ON s.account = a.account WHERE a.account = :account"
        )

    def renew(self, connection: Connection, wants: int, lower: Callable[[int], int]) -> Share:
        """Agree on this sender's share, within a transaction.

        A smaller share applies from now on, even if the transaction fails; a larger one once it is committed.

        :param wants: requests per second that it could use.
        :param lower: limits sending to that rate from now on, and returns what counts: that rate, or what was sent in
            the last second.
        """
        now, senders = self._senders(connection)
        share, mine = self._share(wants, senders, now), senders.get(self._sender)
        before = 0 if mine is None else mine.granted
        if share.granted > before and not self._lock(connection):
            share = Share(before, share.due, share.others)
        elif share.granted > before:  # others may have taken some of it while we had no lock
            now, senders = self._senders(connection)
            share = self._share(wants, senders, now)
            self._remove_expired(connection, now)
        until = to_ledger_time(now + timedelta(seconds=self._hold_s))
        counts = max(share.granted, lower(share.granted))
        self._write(connection, Sender(wants, counts, self._rate_limit, until))
        return share

    def leave(self, connection: Connection, lower: Callable[[int], int]) -> None:
        """Release the share, once a second has passed since the last request.

        :param lower: see :meth:`renew`.
        """
        now, _ = self._senders(connection)
        until = to_ledger_time(now + timedelta(seconds=_SECOND_S))
        self._write(connection, Sender(0, lower(0), self._rate_limit, until))

    def take_slot(self) -> float | None:
        """Take the slot of one single event, in its own transaction.

        :returns: seconds until it; None if nothing is granted yet, or too many wait: ask again.
        :raises LedgerError: no slot can be agreed on.
        """
        return self._account.database.write(self._take_slot)

    def _take_slot(self, connection: Connection) -> float | None:
        self._lock_line(connection)
        now, senders = self._senders(connection)
        mine = senders.get(self._sender)
        wants = wants_of_singles(mine, now, self._rate_limit)
        granted, before = self._share(wants, senders, now).granted, 0 if mine is None else mine.granted
        if granted > before and not self._lock(connection):
            granted = before
        elif granted > before:  # others may have taken some of it while we had no lock
            now, senders = self._senders(connection)
            granted = self._share(wants, senders, now).granted
            self._remove_expired(connection, now)
        slot, next_at, draining = next_slot(mine, granted, now)
        until = max(now, next_at) + timedelta(seconds=self._hold_s)
        reported = max(granted, before) if draining is not None else granted
        self._write(
            connection,
            Sender(wants, reported, self._rate_limit, to_ledger_time(until), to_ledger_time(next_at), draining),
        )
        return None if slot is None else (slot - now).total_seconds()

    def _share(self, wants: int, senders: Mapping[str, Sender], now: datetime) -> Share:
        limit = min([self._rate_limit, *(one.rate_limit for one in senders.values())])
        turn = int(now.timestamp() // TURN_S)
        due, granted = share_of(self._sender, min(wants, limit), senders, limit, turn=turn)
        others = sum(name != self._sender and one.wants > 0 for name, one in senders.items())
        return Share(granted, due, others)

    def _senders(self, connection: Connection) -> tuple[datetime, dict[str, Sender]]:
        """Read the database's time, and the senders that may be sending then."""
        found = raw_rows(connection, self._read, {"account": self._account.name})
        now = from_ledger_time(found[0][0]) if found else self._account.now()
        at = to_ledger_time(now)
        return now, {row[1]: Sender(*row[2:]) for row in found if row[1] is not None and row[5] >= at}

    def _lock(self, connection: Connection) -> bool:
        """Lock the account's shares; return False, without waiting, if another sender has locked them."""
        if connection.dialect.name == "sqlite":  # the transaction is the only one that writes
            return True
        return connection.execute(_LOCK, {"account": self._account.name}).first() is not None

    def _lock_line(self, connection: Connection) -> None:
        """Lock the line of single events, so that no two get the same slot; create it if it is missing."""
        if connection.dialect.name == "sqlite":
            return
        account, sender = self._account.name, self._sender
        mine = select(_s.sender).where((_s.account == account) & (_s.sender == sender)).with_for_update()
        if connection.execute(mine).first() is None:
            none = Sender(0, 0, self._rate_limit, "")
            write_rows(connection, schema.senders, _COLUMNS, [(account, sender, *none)], "keep")
            connection.execute(mine)

    def _write(self, connection: Connection, line: Sender) -> None:
        write_rows(connection, schema.senders, _COLUMNS, [(self._account.name, self._sender, *line)], "replace")

    def _remove_expired(self, connection: Connection, now: datetime) -> None:
        expired = (_s.account == self._account.name) & (_s.until < to_ledger_time(now)) & (_s.sender != self._sender)
        connection.execute(delete(schema.senders).where(expired))
