"""Judge one delivery: compare its records in the ledger with its source and with what Regal received. Pure.

::

    identity         read = acknowledged + rejected + unknown + skipped, of the delivery and of its lines
    zero lost        every row of the source has an outcome; what is acknowledged arrived
    twice            never under at_most_once; else only rows that were in flight when a process was stopped
    unknown          only under at_most_once: what was reserved when a process was stopped, and none of it sent later
    order            rows of a person arrive in the order of the source
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tests.distributed.record import Broken, Delivered, Journal
from tests.distributed.source import SourceRow

#: Tasks whose rows are sent at most once; the others repeat what may not have arrived.
AT_MOST_ONCE = ("events", "rows")
_SETTLED = ("acknowledged", "rejected", "unknown")


@dataclass(frozen=True)
class Case:
    """A delivery that has ended, and everything known about it.

    :param outcomes: the outcomes of its rows, by position from 1.
    :param rows: of the source, in the order in which they were read.
    :param journal: what Regal received from this and other deliveries.
    :param broken: what was on record when its process was stopped; None if it was not.
    """

    name: str
    delivered: Delivered
    outcomes: Mapping[int, str]
    rows: Sequence[SourceRow]
    journal: Journal
    broken: Broken | None = None

    @property
    def repeats(self) -> int:
        """Return how many arrivals of its rows were not the first of their row."""
        times = self.journal.times()
        return sum(max(0, times[row.row_id] - 1) for row in self.rows)


def judge(case: Case) -> None:
    """Judge a delivery.

    :raises AssertionError: a promise was broken.
    """
    judge_identity(case)
    judge_losses(case)
    if case.delivered.task_id in AT_MOST_ONCE:
        judge_at_most_once(case)
    else:
        judge_at_least_once(case)
    judge_order(case)


def judge_identity(case: Case) -> None:
    """Every row was read, and has one outcome."""
    one, name = case.delivered, case.name
    counts = {status: list(case.outcomes.values()).count(status) for status in _SETTLED}
    assert case.rows, f"{name}: no rows in the source"
    assert one.state == "finished", f"{name}: {one.state}"
    assert one.read == len(case.rows) == one.acknowledged + one.rejected + one.unknown + one.skipped, f"{name}: {one}"
    assert counts == {status: getattr(one, status) for status in _SETTLED}, f"{name}: {counts}, {one}"
    assert one.skipped == 0, f"{name}: {one}"
    assert set(case.outcomes) == set(range(1, len(case.rows) + 1)), f"{name}: a row without an outcome"


def judge_losses(case: Case) -> None:
    """What is acknowledged arrived."""
    times = case.journal.times()
    acknowledged = [row for at, row in enumerate(case.rows, 1) if case.outcomes[at] == "acknowledged"]
    lost = [row.row_id for row in acknowledged if not times[row.row_id]]
    assert not lost, f"{case.name}: {len(lost)} acknowledged rows did not arrive"


def judge_at_most_once(case: Case) -> None:
    """No row arrives twice; unknown is what was reserved, and it is not sent again."""
    name, one, broken = case.name, case.delivered, case.broken
    assert case.repeats == 0, f"{name}: {case.repeats} rows came again"
    assert one.unknown == (0 if broken is None else broken.reserved), f"{name}: {one.unknown} unknown, {broken}"
    if broken is not None:
        unknown = {row.row_id for at, row in enumerate(case.rows, 1) if case.outcomes[at] == "unknown"}
        late = [a for a in case.journal.arrivals if a.number > broken.until and a.row_id in unknown]
        assert not late, f"{name}: {len(late)} rows were sent though another try had settled them as unknown"


def judge_at_least_once(case: Case) -> None:
    """Only rows that had arrived without a commit when the process was stopped arrive again."""
    name, broken = case.name, case.broken
    assert case.delivered.unknown == 0, f"{name}: {case.delivered.unknown} unknown"
    if broken is None:
        assert case.repeats == 0, f"{name}: {case.repeats} rows came again"
        return
    position_of = {row.row_id: position for position, row in enumerate(case.rows, 1)}
    ours = [a for a in case.journal.arrivals if a.row_id in position_of]
    before = {position_of[a.row_id] for a in ours if a.number <= broken.until}
    after = {position_of[a.row_id] for a in ours if a.number > broken.until}
    assert not after & broken.acknowledged, f"{name}: what a commit acknowledged was sent again"
    assert case.repeats == len(after & before), f"{name}: {case.repeats} rows came again, {len(after & before)} may"


def judge_order(case: Case) -> None:
    """Rows of a person arrive in source order: both the first arrivals of each row, and the last ones."""
    first: dict[int, int] = {}
    last: dict[int, int] = {}
    for arrival in case.journal.arrivals:
        if arrival.row_id is not None:
            first.setdefault(arrival.row_id, arrival.number)
            last[arrival.row_id] = arrival.number
    for row_id in {arrival.row_id for arrival in case.journal.arrivals if not arrival.stored} & set(last):
        del last[row_id]  # a clear resends what was refused, after the rows that followed it
    for numbers in (first, last):
        came: dict[str, int] = {}
        for row in case.rows:
            if row.row_id in numbers:
                number = numbers[row.row_id]
                assert came.get(row.person, 0) < number, f"{case.name}: row {row.row_id} came before an earlier one"
                came[row.person] = number


def judge_limit(worst: int, limit: int, stall_s: float) -> None:
    """No second has more requests than the limit.

    :param stall_s: after a stall, a server sees everything sent in the meantime at once: it may count that much more.
    """
    assert worst <= limit * (1 + stall_s), f"{worst} requests in a second, {limit} allowed, stood still {stall_s:.3f} s"
