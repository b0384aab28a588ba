"""A sender's share of the account's rate: measure what it could use, request it with a commit, and apply it.

::

    Pacer: how many went? did the limit hold any back? ─▶ ask ─▶ renew (in the commit) ─▶ committed ─▶ Pacer.set_limit
                                                                    └─ a smaller share holds from here on
"""

from __future__ import annotations

import logging
from math import ceil
from typing import Final

from sqlalchemy.engine import Connection

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.ledger.shares import MARGIN_OF_SINGLES, Share, Shares

_log = logging.getLogger(__name__)
_ALONE_S: Final = 1.0
_WITH_OTHERS_S: Final = 0.5
_WAITING_S: Final = 0.25
_MANY: Final = 50  # each reads the rows of all the others
_NOT_BEFORE_S: Final = 0.2
_HEADROOM: Final = 1.25
_SAID_EVERY_S: Final = 10.0
# A slot that is used late moves its request into the next ones' second. The margin of single events makes up for this.
_MOST_LATE_S: Final = 1 / MARGIN_OF_SINGLES - 1


class RateShare:
    """The share of one delivery.

    :param pacer: set to the granted rate; starts at 0.
    :param most: maximum requests per second of the delivery, even if it is alone.
    """

    def __init__(self, shares: Shares, pacer: Pacer, *, most: int, clock: Clock) -> None:
        self._shares = shares
        self._pacer = pacer
        self._most = most
        self._clock = clock
        self._renewed = float("-inf")
        self._used = [float("inf")] * 2  # requests per second in the last rounds; not measured yet
        self._wants = most
        self._agreed: Share | None = None
        self._new: Share | None = None
        self._said, self._said_at = 0, float("-inf")

    @property
    def every_s(self) -> float:
        """Seconds until the share should be renewed."""
        agreed = self._agreed
        if agreed is None or agreed.granted < agreed.due:
            return _WAITING_S
        return min(_WITH_OTHERS_S * max(1.0, agreed.others / _MANY), _ALONE_S) if agreed.others else _ALONE_S

    def ask(self, left: int) -> bool:
        """Determine what could be used, before a commit.

        :param left: rows not settled yet.
        :returns: whether it is time to renew the share.
        """
        now = self._clock.monotonic()
        passed_s = now - self._renewed
        if passed_s < _NOT_BEFORE_S:
            return False
        sent, held_back = self._pacer.take_use(now)
        self._used = [self._used[-1], float("inf") if held_back else sent / passed_s * _HEADROOM + 1]
        self._wants = self._most
        if self._agreed is not None and self._agreed.others:  # they can use what this delivery can't
            usable = min(self._most, max(self._used), left / _WITH_OTHERS_S)
            self._wants = max(1, ceil(usable))
        self._renewed = now
        return True

    def renew(self, connection: Connection) -> None:
        """Renew the share, within the commit."""
        self._new = self._shares.renew(connection, self._wants, self._lower)

    def committed(self) -> None:
        """Apply the agreed share, now that it is committed."""
        if self._new is None:
            return
        self._agreed, self._new = self._new, None
        if self._agreed.granted > self._pacer.limit:
            self._pacer.set_limit(self._agreed.granted)
        self._tell(self._agreed)

    def leave(self, connection: Connection) -> None:
        """Release the share within the last commit; nothing is sent afterwards."""
        self._shares.leave(connection, self._lower)

    def _lower(self, limit: int) -> int:
        return self._pacer.lower(limit, self._clock.monotonic())

    def _tell(self, share: Share) -> None:
        now = self._clock.monotonic()
        if share.others == self._said or now - self._said_at < _SAID_EVERY_S:
            return
        self._said, self._said_at = share.others, now
        if share.others:
            senders = "1 other sender" if share.others == 1 else f"{share.others:,} other senders"
            _log.info("The account's rate is shared with %s: up to %d requests/s are ours", senders, share.due)
        else:
            _log.info("The account's rate is no longer shared: up to %d requests/s are ours", share.due)


class SlotPacer:
    """Paces single events, which may come from any process of the account: each takes a slot from the ledger.

    :param pacer: of this process; pausing it holds back all its senders.
    """

    def __init__(self, shares: Shares, pacer: Pacer, *, clock: Clock) -> None:
        self._shares = shares
        self._pacer = pacer
        self._clock = clock
        self._slot: float | None = None
        self._waiting_since: float | None = None

    def take(self, now: float) -> float:
        """Take a slot, if there is one now; see :meth:`airflow_provider_regal.client.pace.Pacer.take`.

        :raises LedgerError: no slot can be agreed on.
        """
        if pause_s := self._pacer.pause_left(now):
            return pause_s
        if self._slot is None or now - self._slot > _MOST_LATE_S:
            wait_s = self._shares.take_slot()
            now = self._clock.monotonic()
            if wait_s is None:
                self._say_that_it_waits(now)
                return _WAITING_S
            self._slot = now + wait_s
        if now < self._slot:
            return self._slot - now
        if wait_s := self._pacer.take(now):
            return wait_s
        self._slot = self._waiting_since = None
        return 0.0

    def go(self, now: float) -> float:
        """Count a request that has its slot; see :meth:`airflow_provider_regal.client.pace.Pacer.go`."""
        return self._pacer.go(now)

    def pause(self, until: float) -> None:
        """Pause all sends of this process until then."""
        self._pacer.pause(until)

    def pause_left(self, now: float) -> float:
        """Return for how many more seconds all sends of this process are paused."""
        return self._pacer.pause_left(now)

    def _say_that_it_waits(self, now: float) -> None:
        since = self._waiting_since = now if self._waiting_since is None else self._waiting_since
        if now - since >= _SAID_EVERY_S:
            self._waiting_since = now
            _log.info("Waiting for a turn: the account's rate limit is in use")
