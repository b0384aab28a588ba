"""The state of each row of a snapshot (one byte), and the outcomes these states mean. Pure."""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import Final


class Outcome(StrEnum):
    """The outcome of a row."""

    ACKNOWLEDGED = "acknowledged"  #: Regal answered 2xx
    REJECTED = "rejected"  #: will never be accepted: invalid, or refused by Regal
    UNKNOWN = "unknown"  #: sent, or reserved, and it can't be known whether Regal received it
    SKIPPED = "skipped"  #: not sent, on purpose


class Skip(StrEnum):
    """Why a row was skipped."""

    UNCHANGED = "unchanged"  #: Regal has acknowledged it unchanged
    DUPLICATE = "duplicate"  #: its message id was sent before
    OLDER = "older"  #: a newer decision, or a newer version of the contact, is on record
    SUPPRESSED = "suppressed"  #: its person must not be contacted
    NOT_INCLUDED = "not_included"  #: its source excludes it
    DRY_RUN = "dry_run"  #: nothing is sent
    REDELIVERED = "redelivered"  #: a redelivery has taken it
    RECORDED = "recorded"  #: a consent that Regal is known to have: recorded now, not sent
    NO_DECISION = "no_decision"  #: a row of a sync without a yes or no for a phone or email that it has


class RowState(IntEnum):
    """The state of a row in the snapshot."""

    OPEN = 0  #: to be sent
    RESERVED = 1  #: may be sent from now on: unknown after a crash
    ACKNOWLEDGED = 2
    REJECTED = 3
    UNKNOWN = 4
    SKIPPED_UNCHANGED = 5
    SKIPPED_DUPLICATE = 6
    SKIPPED_OLDER = 7
    SKIPPED_NOT_INCLUDED = 8
    SKIPPED_DRY_RUN = 9
    SKIPPED_REDELIVERED = 10
    SKIPPED_RECORDED = 11
    SKIPPED_SUPPRESSED = 12
    AMBIGUOUS = 13  #: to be rejected: another row of the source has the same key
    SKIPPED_NO_DECISION = 14

    @classmethod
    def of(cls, what: Outcome | Skip) -> RowState:
        """Return the state of a row with an outcome."""
        return _STATES[what]


_STATES: Final[dict[Outcome | Skip, RowState]] = {
    Outcome.ACKNOWLEDGED: RowState.ACKNOWLEDGED,
    Outcome.REJECTED: RowState.REJECTED,
    Outcome.UNKNOWN: RowState.UNKNOWN,
    **{skip: RowState[f"SKIPPED_{skip.name}"] for skip in Skip},
}
#: State -> outcome; a state that is missing here is not settled.
OUTCOMES: Final[dict[int, Outcome]] = {
    state.value: what if isinstance(what, Outcome) else Outcome.SKIPPED for what, state in _STATES.items()
}
#: Rows in these states may have reached Regal.
MAY_HAVE_ARRIVED: Final = (RowState.RESERVED, RowState.ACKNOWLEDGED, RowState.UNKNOWN)


class RowStates:
    """The states of a snapshot's rows, and which of them are not committed yet."""

    def __init__(self, states: bytes | bytearray = b"") -> None:
        self._states = bytearray(states)
        self.changed: set[int] = set()

    def __len__(self) -> int:
        return len(self._states)

    def __getitem__(self, position: int) -> int:
        return self._states[position]

    def __setitem__(self, position: int, state: int) -> None:
        if self._states[position] != state:
            self._states[position] = state
            self.changed.add(position)

    def between(self, start: int, end: int) -> bytes:
        """Return the states of consecutive rows."""
        return bytes(self._states[start:end])

    def is_settled(self, position: int) -> bool:
        """Return whether a row has an outcome."""
        return self._states[position] in OUTCOMES

    def count(self, state: RowState) -> int:
        """Count the rows in a state."""
        return self._states.count(state)

    def positions(self, state: RowState) -> list[int]:
        """List the rows in a state."""
        return [position for position, one in enumerate(self._states) if one == state]

    @property
    def may_have_arrived(self) -> bool:
        """Whether any row may have reached Regal."""
        return any(self._states.count(state) for state in MAY_HAVE_ARRIVED)
