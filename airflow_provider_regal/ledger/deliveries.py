"""Deliveries: who delivers what, the snapshot, and the commits.

::

    latest(place) ─▶ what is there? ─▶ begin (a new one) | take (one UPDATE) ─▶ Held
    find(a plan)  ─▶ may it be sent? ─────────────────────▶ take (one UPDATE) ───▲
                                                                                 │
       snapshot: keep_rows ... rows_complete ◀────────────────────────────────────┤
       commit:   states, outcomes, consents, contacts, message ids, counts        │   each one transaction, and only
       end:      finished | failed | stopped | planned; lets go                  ◀┘   if the delivery is still ours
"""

from __future__ import annotations

import hashlib
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar
from uuid import uuid4

from sqlalchemy import bindparam, delete, func, select, text
from sqlalchemy.engine import Connection

from airflow_provider_regal.errors import TakenOverError
from airflow_provider_regal.ledger.account import Account, Contact, age_s
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.entries import raw_rows
from airflow_provider_regal.ledger.outcomes import OutcomeLine, reasons_of, remove_lines, write_outcomes
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from airflow_provider_regal.ledger.rows import RowChunk, decode_chunk
from airflow_provider_regal.ledger.rules import Claim
from airflow_provider_regal.ledger.schema import LONGEST_MESSAGE, deliveries, outcomes, row_chunks
from airflow_provider_regal.ledger.states import Outcome, RowState, RowStates
from airflow_provider_regal.ledger.text import LONGEST_NAME, fit, short, to_ledger_time
from airflow_provider_regal.ledger.tries import TryLog, begin_try, lose_tries

READING: Final = "reading"  #: the source is being read; nothing was sent
SENDING: Final = "sending"
FINISHED: Final = "finished"  #: every row has an outcome, within the thresholds
#: Every row has an outcome, but a threshold was exceeded (rejected rows of named events can be tried again); or the
#: source can't be used (a guard, a ValueError): its rows were dropped, and at most opt-outs were sent.
FAILED: Final = "failed"
#: Rows are left, after an outage, a request to stop or a guard that keeps the rows; the next try resumes.
STOPPED: Final = "stopped"
REPLACED: Final = "replaced"  #: a clear or restart reads the source again, in a new delivery
PLANNED: Final = "planned"  #: its rows wait until a task sends them
EXPIRED: Final = "expired"  #: a plan that was not sent in time; its rows were dropped
#: Replaces the fingerprint of the source once its rows were dropped: no later try can resume from them.
DROPPED: Final = "rows dropped"

T = TypeVar("T")
_d = deliveries.c
_AT_ONCE: Final = 500
_LONGEST_DELIVERY: Final = timedelta(days=7)


@dataclass(frozen=True, slots=True)
class Try:
    """The number of a try of a task instance.

    :param epoch: increases with every clear of a finished task, not with automatic retries; starts at 0.
    :param number: Airflow's try number, from 1.
    """

    epoch: int = 0
    number: int = 1


@dataclass(frozen=True, slots=True)
class Place:
    """The owner of a delivery: a task instance, with a name if it has several deliveries.

    :param name: of this delivery, if the task instance has more than one.
    """

    dag_id: str | None = None
    run_id: str | None = None
    task_id: str | None = None
    map_index: int = -1
    name: str | None = None

    @classmethod
    def outside_a_task(cls, name: str | None = None) -> Place:
        """Return a new, unique place."""
        return cls(run_id=uuid4().hex, name=name)

    def key(self, account: str) -> str:
        """Return the lookup key of the place, with a fixed length."""
        parts = (account, self.dag_id, self.run_id, self.task_id, self.map_index, self.name)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def __str__(self) -> str:
        task = ".".join(part for part in (self.dag_id, self.task_id) if part) or "outside a task"
        return task + (f"[{self.map_index}]" if self.map_index >= 0 else "") + (f"/{self.name}" if self.name else "")


@dataclass(slots=True)
class Counts:
    """The outcomes of a delivery's rows, over all its tries.

    :param read: rows that the source returned.
    :param skips: reason for skipping -> rows.
    :param known: rejected rows that an earlier delivery rejected with the same payload; for information only.
    :param unknown_of_outage: unknown rows caused by a crash, a stop or the first failures of an outage.
    :param withheld: reason for leaving opt-ins out of their events -> opt-ins.
    :param opt_outs_rejected: rejected rows with an opt-out that was not sent, or a decision that can't be read.
    :param opt_outs_unknown: rows with an opt-out for which it can't be known whether Regal received it.
    :param without_time: named events sent without the time they happened.
    :param requests: HTTP requests.
    :param repeats: requests beyond the first for each row.
    :param answers_429: requests that Regal answered with 429, too many requests.
    :param seconds: of all tries.
    :param plan: what a sync determined before it sent anything.
    :param owed_rows: opt-outs that Regal lacks, added at the end of the snapshot; counted nowhere else.
    :param owed_last: how many of these are sent after the source's rows, because one of those rows has a later opt-in;
        the other owed opt-outs are sent before them.
    :param guard: why a guard stopped all but the opt-outs.
    :param outage_since: start of the current outage (ledger time); None without one.
    :param outage_reason: the result of the last request in the outage.
    :param only_changed: whether its last try skipped unchanged contacts; None if that is not on record.
    """

    read: int = 0
    acknowledged: int = 0
    rejected: int = 0
    unknown: int = 0
    skipped: int = 0
    skips: Counter[str] = field(default_factory=Counter)
    known: int = 0
    unknown_of_outage: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    opt_outs_rejected: int = 0
    opt_outs_unknown: int = 0
    without_time: int = 0
    requests: int = 0
    repeats: int = 0
    answers_429: int = 0
    outages: int = 0
    seconds: float = 0.0
    plan: dict[str, int] = field(default_factory=dict)
    owed_rows: int = 0
    owed_last: int = 0
    guard: str | None = None
    outage_since: str | None = None
    outage_reason: str | None = None
    only_changed: bool | None = None

    @property
    def settled(self) -> int:
        """Rows with an outcome."""
        return self.acknowledged + self.rejected + self.unknown + self.skipped

    def add(self, outcome: Outcome, rows: int) -> None:
        """Count rows with an outcome; a negative number undoes it."""
        setattr(self, outcome.value, getattr(self, outcome.value) + rows)

    def skip(self, why: str, rows: int = 1) -> None:
        """Count skipped rows."""
        self.skipped += rows
        if rows:
            self.skips[str(why)] += rows

    def to_json(self) -> str:
        """Serialize the counts that have no column."""
        return json.dumps({one.name: getattr(self, one.name) for one in fields(self) if one.name not in _COUNT_COLUMNS})

    @classmethod
    def of(cls, record: Record) -> Counts:
        """Load the counts of a delivery."""
        rest = json.loads(record.counts) if record.counts else {}
        known = {one.name for one in fields(cls)}
        rest = {name: value for name, value in rest.items() if name in known}
        rest |= {name: Counter(rest.get(name, {})) for name in ("skips", "withheld")}
        return cls(record.read_rows, record.acknowledged, record.rejected, record.unknown, record.skipped, **rest)


_COUNT_COLUMNS: Final = ("read", "acknowledged", "rejected", "unknown", "skipped")


class Record(NamedTuple):
    """A delivery, as stored in its table."""

    id: int
    incarnation: int
    account: str
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    map_index: int
    name: str | None
    call: str
    source: str
    options: str | None
    epoch: int
    try_number: int
    restarted: int
    holder: str | None
    held_at: str | None
    hold_s: int
    state: str
    kept_rows: int | None
    read_rows: int
    acknowledged: int
    rejected: int
    unknown: int
    skipped: int
    rate: int | None
    counts: str | None
    error: str | None
    started_at: str
    ended_at: str | None
    plan: str | None = None
    sender: str | None = None
    conn_id: str | None = None


RECORD: Final = select(*(_d[name] for name in Record._fields))
_LATEST: Final = RECORD.where(_d.place == bindparam("place")).order_by(_d.incarnation.desc()).limit(1)
_STATES: Final = (
    select(row_chunks.c.chunk, row_chunks.c.states)
    .where(row_chunks.c.delivery == bindparam("delivery"))
    .order_by(row_chunks.c.chunk)
)
_ROWS: Final = select(row_chunks.c.rows).where(
    (row_chunks.c.delivery == bindparam("delivery")) & (row_chunks.c.chunk == bindparam("chunk"))
)
_SET_STATES: Final = text("UPDATE regal_row_chunks SET states = :states WHERE delivery = :delivery AND chunk = :chunk")
_before = outcomes.alias()
_REJECTED_BEFORE: Final = (
    select(func.count())
    .select_from(outcomes)
    .where((outcomes.c.delivery == bindparam("delivery")) & (outcomes.c.status == "rejected"))
    .where(
        select(_before.c.position)
        .where(
            (_before.c.payload_hash == outcomes.c.payload_hash)
            & _before.c.payload.is_not(None)
            & (_before.c.account == bindparam("account"))
            & (_before.c.status == "rejected")
            & (_before.c.delivery < outcomes.c.delivery)
        )
        .exists()
    )
)
_HOLD: Final[dict[str, Any]] = {}
_LAST_WRITE: Final = select(_d.last_write).where(_d.id == bindparam("delivery"))


@dataclass(slots=True)
class Changes:
    """What a commit writes in addition to the counts and the states of rows.

    :param primaries: user ids and phones that became their primary ones; not written, but checked after the commit.
    :param removed: rows whose lines are removed: they are open again, or were not applied.
    """

    outcomes: list[OutcomeLine] = field(default_factory=list)
    acknowledged: list[Claim] = field(default_factory=list)
    unknown: list[Claim] = field(default_factory=list)
    released: list[Claim] = field(default_factory=list)
    contacts: list[Contact] = field(default_factory=list)
    phones: list[tuple[str, str]] = field(default_factory=list)
    primaries: list[tuple[str, str]] = field(default_factory=list)
    types: dict[str, str] = field(default_factory=dict)
    log: list[LoggedConsent] = field(default_factory=list)
    removed: list[int] = field(default_factory=list)

    def __bool__(self) -> bool:
        return any(getattr(self, one.name) for one in fields(self))

    def put_back(self, earlier: Changes) -> None:
        """Add back what could not be committed, before what was collected since."""
        for one in fields(self):
            before, since = getattr(earlier, one.name), getattr(self, one.name)
            setattr(self, one.name, before | since if isinstance(before, dict) else before + since)


class Deliveries:
    """The deliveries of an account."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.database: Database = account.database

    def latest(self, place: Place) -> Record | None:
        """Find the last delivery of a place."""
        key = place.key(self.account.name)
        return self.database.read(lambda connection: _latest(connection, key))

    def find(self, number: int) -> Record | None:
        """Find a delivery of the account by its id."""
        wanted = RECORD.where((_d.id == number) & (_d.account == self.account.name))
        found = self.database.read(lambda connection: connection.execute(wanted).first())
        return None if found is None else Record(*found)

    def reasons(self, delivery: int) -> Counter[str]:
        """Count the rejected and unknown rows of a delivery by their reason."""
        return self.database.read(lambda connection: reasons_of(connection, delivery))

    def others_running(self, held: int) -> list[int]:
        """List the account's other deliveries that are held and have committed so recently that they count as running.

        :param held: the delivery that asks.
        """
        now = self.account.now()
        wanted = select(_d.id, _d.held_at, _d.hold_s).where(
            (_d.account == self.account.name)
            & (_d.started_at >= to_ledger_time(now - _LONGEST_DELIVERY))
            & _d.holder.is_not(None)
            & (_d.id != held)
        )
        found = self.database.read(lambda connection: connection.execute(wanted).fetchall())
        return [number for number, held_at, hold_s in found if held_at is not None and age_s(held_at, now) <= hold_s]

    def rows_of_runs(self, place: Place, most: int) -> list[int]:
        """Return the row counts of a task's last finished deliveries, newest first; none outside a task."""
        if place.task_id is None:
            return []
        wanted = (
            select(_d.read_rows)
            .where((_d.account == self.account.name) & (_d.state == FINISHED))
            .where((_d.dag_id == _name(place.dag_id)) & (_d.task_id == _name(place.task_id)))
            .where((_d.map_index == place.map_index) & (_d.name == _name(place.name)))
            .order_by(_d.started_at.desc(), _d.id.desc())
            .limit(most)
        )
        return self.database.read(lambda connection: [row[0] for row in connection.execute(wanted)])

    def state_before(self, place: Place) -> str | None:
        """Return how the last delivery of a task in another run ended; None if there is none."""
        wanted = (
            select(_d.state)
            .where((_d.account == self.account.name) & _d.state.in_((FINISHED, FAILED, STOPPED, PLANNED)))
            .where((_d.dag_id == _name(place.dag_id)) & (_d.task_id == _name(place.task_id)))
            .where(
                (_d.map_index == place.map_index) & (_d.name == _name(place.name)) & (_d.run_id != _name(place.run_id))
            )
            .order_by(_d.started_at.desc(), _d.id.desc())
            .limit(1)
        )
        return self.database.read(lambda connection: connection.execute(wanted).scalar_one_or_none())

    def may_have_sent(self, record: Record) -> bool:
        """Return whether any row of a delivery may have reached Regal."""
        if record.acknowledged or record.unknown or record.kept_rows is None:
            return bool(record.acknowledged or record.unknown)
        found = self.database.read(lambda connection: raw_rows(connection, _STATES, {"delivery": record.id}))
        return any(RowState.RESERVED in bytes(states) for _, states in found)

    def begin(
        self,
        place: Place,
        this: Try,
        *,
        call: str,
        source: str,
        options: str,
        hold_s: int,
        rate: int | None = None,
        restarted: bool = False,
        replaces: Record | None = None,
        counts: Counts | None = None,
        plan: str | None = None,
        conn_id: str | None = None,
        logs_tries: bool = True,
    ) -> Held:
        """Begin a new delivery; the one it replaces can't commit anymore.

        :param source: fingerprint of the source.
        :param plan: for a plan, the options with which it will be sent.
        :param options: fingerprint of the options that affect the result for a row.
        :param hold_s: seconds for which a request may still be in flight after a commit.
        :param conn_id: the connection it sends with.
        :param logs_tries: record its tries.
        :raises TakenOverError: another try began one in the meantime.
        """
        key, holder = place.key(self.account.name), uuid4().hex
        counts = counts or Counts()
        wait_s, log = 0.0, None

        def work(connection: Connection) -> Record:
            nonlocal wait_s, log
            last = _latest(connection, key)
            if last is not None and last.holder == holder:
                return last  # it was committed, but the answer was lost
            if (None if last is None else last.id) != (None if replaces is None else replaces.id):
                raise TakenOverError(_TAKEN_OVER)
            if last is not None:
                wait_s = _wait_s(self, last)
                closing = deliveries.update().where(_d.id == last.id)
                if last.state in (FINISHED, FAILED):
                    connection.execute(closing.values(holder=None))
                else:
                    connection.execute(closing.values(holder=None, state=REPLACED))
                lose_tries(connection, last)
                connection.execute(delete(row_chunks).where(row_chunks.c.delivery == last.id))
            now = to_ledger_time(self.account.now())
            row = {
                "place": key, "incarnation": 1 if last is None else last.incarnation + 1,
                "account": self.account.name,
                "dag_id": _name(place.dag_id), "run_id": _name(place.run_id), "task_id": _name(place.task_id),
                "map_index": place.map_index, "name": _name(place.name), "call": call, "source": source,
                "options": options, "epoch": this.epoch, "try_number": this.number, "restarted": int(restarted),
                "holder": holder, "held_at": now, "hold_s": hold_s, "state": READING, "read_rows": counts.read,
                "acknowledged": counts.acknowledged, "rejected": counts.rejected, "unknown": counts.unknown,
                "skipped": counts.skipped, "rate": rate, "counts": counts.to_json(), "started_at": now, "plan": plan,
                "conn_id": _name(conn_id),
            }  # fmt: skip
            (number,) = connection.execute(deliveries.insert(), row).inserted_primary_key or (0,)
            record = _record(connection, number)
            log = begin_try(connection, record, now) if logs_tries else None
            return record

        record = self.database.write(work)
        return Held(self, record, holder, wait_s, log)

    def take(
        self,
        record: Record,
        this: Try,
        *,
        options: str,
        hold_s: int,
        source: str,
        again: bool = False,
        plan: str | None = None,
        sender: str | None = None,
        conn_id: str | None = None,
    ) -> Held:
        """Take a delivery over with one UPDATE, whatever an earlier try is doing; the earlier try can't commit anymore.

        :param again: its rows are read again: drop those read so far.
        :param plan: see :meth:`begin`.
        :param sender: the task instance that sends the plan. A plan has only one sender.
        :param conn_id: see :meth:`begin`.
        :raises TakenOverError: a later try, or another sender, has it.
        """
        holder = uuid4().hex
        wait_s, log, before_at = 0.0, None, None

        def work(connection: Connection) -> Record:
            nonlocal wait_s, log, before_at
            seen = _record(connection, record.id)
            if seen.holder == holder:
                return seen  # it was committed, but the answer was lost
            wait_s, before_at = _wait_s(self, seen), seen.held_at
            not_later = (_d.epoch < this.epoch) | ((_d.epoch == this.epoch) & (_d.try_number <= this.number))
            values: dict[str, Any] = {
                "holder": holder, "epoch": this.epoch, "try_number": this.number, "options": options,
                "hold_s": max(hold_s, seen.hold_s), "held_at": text(self.database.now_sql), "error": None,
                "ended_at": None, "plan": plan, "sender": sender, "conn_id": _name(conn_id),
            }  # fmt: skip
            if seen.sender != sender:
                not_later = (_d.state == PLANNED) & _d.sender.is_(None)
            if again:
                empty = Counts()
                values |= {"state": READING, "kept_rows": None, "source": source, "counts": empty.to_json()}
                values["started_at"] = to_ledger_time(self.account.now())  # opt-outs without a time count as given now
                values |= {f"{name}_rows" if name == "read" else name: 0 for name in _COUNT_COLUMNS}
            else:
                values["state"] = SENDING
            taken = connection.execute(
                deliveries.update().where((_d.id == record.id) & (_d.state != REPLACED) & not_later).values(**values)
            )
            if not taken.rowcount:
                raise TakenOverError(_TAKEN_OVER)
            if again:
                connection.execute(delete(row_chunks).where(row_chunks.c.delivery == record.id))
                connection.execute(delete(outcomes).where(outcomes.c.delivery == record.id))
            lose_tries(connection, seen)
            held = _record(connection, record.id)
            log = begin_try(connection, held, to_ledger_time(self.account.now()))
            return held

        taken = self.database.write(work)
        return Held(self, taken, holder, wait_s, log, before_at=before_at)


_TAKEN_OVER: Final = "Another try of this task delivers now; this one has stopped and sends nothing more."


def _wait_s(of: Deliveries, seen: Record) -> float:
    """Return for how many seconds requests of the previous try may still be in flight."""
    if seen.holder is None or seen.held_at is None or seen.kept_rows is None:  # while reading, nothing is sent
        return 0.0
    return min(max(seen.hold_s - age_s(seen.held_at, of.account.now()), 0.0), float(seen.hold_s))


def _name(text: str | None) -> str | None:
    return None if text is None else short(text, LONGEST_NAME)


def _latest(connection: Connection, key: str) -> Record | None:
    found = connection.execute(_LATEST, {"place": key}).first()
    return None if found is None else Record(*found)


def _record(connection: Connection, number: int) -> Record:
    return Record(*connection.execute(RECORD.where(_d.id == number)).one())


class Held:
    """A delivery that this try holds; everything it writes is written only while it holds the delivery.

    ``states`` are those of the snapshot's rows, ``counts`` the outcomes of all rows, ``hold_s`` the seconds for which a
    request may still be in flight; the next commit writes them.

    :param wait_s: for how many seconds requests of an earlier try may still be in flight.
    :param log: writes about this try; None if tries are not recorded.
    :param before_at: when the earlier try committed last (ledger time); it sent what it had reserved at about then.
    """

    def __init__(
        self,
        deliveries_: Deliveries,
        record: Record,
        holder: str,
        wait_s: float,
        log: TryLog | None = None,
        *,
        before_at: str | None = None,
    ) -> None:
        self.record = record
        self.id: int = record.id
        self.hold_s = record.hold_s
        self.wait_s = wait_s
        self.log = log
        self.before_at = before_at
        self.counts = Counts.of(record)
        self.states = RowStates()
        self.account = deliveries_.account
        self.account.delivery = str(record.id)
        self.database = deliveries_.database
        self.holder = holder
        self._sizes: list[int] = []  # rows of each chunk
        self._starts: list[int] = [0]
        self._withheld: list[LoggedConsent] = []
        if record.kept_rows is not None:
            self._load()

    def _load(self) -> None:
        found = self.database.read(lambda connection: raw_rows(connection, _STATES, {"delivery": self.id}))
        for _, states in found:
            self._append(len(states))
        self.states = RowStates(b"".join(bytes(states) for _, states in found))

    def _append(self, rows: int) -> None:
        self._sizes.append(rows)
        self._starts.append(self._starts[-1] + rows)

    # -- the snapshot -------------------------------------------------------------------------------------------------

    def keep_rows(self, chunks: Sequence[RowChunk]) -> None:
        """Write chunks of the snapshot."""
        first = len(self._sizes)
        rows = [
            {"delivery": self.id, "chunk": number, "rows": chunk.encoded(), "states": bytes(len(chunk))}
            for number, chunk in enumerate(chunks, first)
        ]

        def work(connection: Connection) -> None:
            if rows:
                connection.execute(row_chunks.insert(), rows)

        self.write(work)
        for chunk in chunks:
            self._append(len(chunk))

    @property
    def kept(self) -> int:
        """The number of rows in the snapshot so far."""
        return self._starts[-1]

    def drop_rows(self) -> None:
        """Drop the snapshot collected so far; none of it is sent."""
        self.write(lambda connection: connection.execute(delete(row_chunks).where(row_chunks.c.delivery == self.id)))
        self._sizes, self._starts = [], [0]

    def rows_complete(self, ambiguous: Mapping[int, int]) -> None:
        """Record that the source was read completely: from now on the snapshot is valid.

        :param ambiguous: states of rows that are not open: position in the snapshot -> state.
        """
        self.states = RowStates(bytes(self._starts[-1]))
        for position, state in ambiguous.items():
            self.states[position] = state
        changed = self._changed_chunks()

        def work(connection: Connection) -> None:
            self.account.log_withheld(connection, self._withheld)
            self.write_states(connection, changed)
            connection.execute(
                deliveries.update().where(_d.id == self.id).values(kept_rows=self._starts[-1], state=SENDING)
            )

        self.write_once(work, counts=self._counted())
        self.states.changed.clear()

    def rows(
        self, *, without: Callable[[int], bool] = lambda position: False
    ) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Read the snapshot: position in it (from 0), number in the source (from 1), row.

        :param without: returns whether a row is not needed; skipping it costs almost nothing.
        """
        for chunk, start in enumerate(self._starts[:-1]):
            if all(without(position) for position in range(start, self._starts[chunk + 1])):
                continue
            told = {"delivery": self.id, "chunk": chunk}
            ((encoded,),) = self.database.read(partial(raw_rows, statement=_ROWS, told=told))
            needless = {number for number in range(self._sizes[chunk]) if without(start + number)}
            for number, source_row, row in decode_chunk(bytes(encoded), without=needless.__contains__):
                yield start + number, source_row, row

    @property
    def owed_sent(self) -> int:
        """How many of the owed opt-outs in the snapshot Regal has acknowledged."""
        end = len(self.states)
        return self.states.between(end - self.counts.owed_rows, end).count(RowState.ACKNOWLEDGED)

    def rows_to_send(self) -> Iterator[tuple[int, int, dict[str, Any]]]:
        """Read the unsettled rows of the snapshot in the order in which they are sent.

        The snapshot holds the source's rows, then ``owed_last`` owed opt-outs, then the owed opt-outs to send first.
        """
        counts = self.counts
        settled, first_owed = self.states.is_settled, len(self.states) - counts.owed_rows + counts.owed_last
        if first_owed < len(self.states):
            yield from self.rows(without=lambda position: position < first_owed or settled(position))
        yield from self.rows(without=lambda position: position >= first_owed or settled(position))

    # -- commits ------------------------------------------------------------------------------------------------------

    def prepare_commit(self, changes: Changes, *, candidates: Iterable[int] = (), seconds: float = 0.0) -> Commit:
        """Collect everything to be written now; :meth:`Commit.write` writes it, in any thread.

        :param candidates: rows that may get another state within the transaction.
        :param seconds: that this try has taken since the last commit.
        """
        self.counts.seconds += seconds
        changed, self.states.changed = self.states.changed, set()
        positions = (*changed, *candidates) if self._sizes else ()  # single events have no snapshot
        chunks = {self._chunk_of(position) for position in positions}
        states = {chunk: bytes(self._chunk(chunk)) for chunk in chunks}
        told = None if self.log is None else self.log.due(self.counts, seconds)
        return Commit(self, changes, changed, states, self._counted(), of_try=told)

    def commit(self, changes: Changes | None = None, *, seconds: float = 0.0) -> None:
        """Write what changed, in one transaction.

        :raises TakenOverError: another try has the delivery; nothing was written.
        :raises LedgerError: nothing was written.
        """
        prepared = self.prepare_commit(changes or Changes(), seconds=seconds)
        try:
            prepared.write()
        except BaseException:
            prepared.undo()
            raise

    def end(self, state: str, *, error: str | None = None, drop_rows: bool = False) -> None:
        """Release the delivery, so that the next try need not wait.

        :param state: how it ended.
        :param error: why, without values.
        :param drop_rows: the snapshot is no longer needed.
        """
        now = to_ledger_time(self.account.now())

        def work(connection: Connection) -> None:
            connection.execute(
                deliveries.update()
                .where(_d.id == self.id)
                .values(
                    state=state,
                    holder=None,
                    ended_at=now,
                    error=None if error is None else fit(error, LONGEST_MESSAGE),
                )
            )
            if self.log is not None:
                self.log.end(connection, self.counts, state, error, now)
            if drop_rows:
                connection.execute(delete(row_chunks).where(row_chunks.c.delivery == self.id))

        self.write_once(work, counts=self._counted())

    def note_state(self, state: str) -> None:
        """Record the state of the delivery, and keep holding it."""
        self.states = RowStates(b"\0")
        now = to_ledger_time(self.account.now())
        changing = deliveries.update().where(_d.id == self.id).values(state=state, ended_at=now)
        self.write(lambda connection: connection.execute(changing))

    def write(self, work: Callable[[Connection], object]) -> None:
        """Run work in its own transaction, once, if the delivery is still ours."""
        self.write_once(work)

    def write_once(self, work: Callable[[Connection], T], *, counts: Mapping[str, Any] | None = None) -> T:
        """Run work in its own transaction, once, if the delivery is still ours.

        A connection may drop after the transaction was committed and before the answer arrives: the work is not
        repeated then.

        :param counts: written in the same transaction.
        :raises TakenOverError: another try has the delivery; nothing was written.
        :raises LedgerError: nothing was written.
        """
        token, done = uuid4().hex, list[T]()

        def held(connection: Connection) -> T:
            if done and connection.execute(_LAST_WRITE, {"delivery": self.id}).scalar() == token:
                return done[-1]
            self._hold(connection, {"last_write": token, **(counts or {})})
            done.append(work(connection))
            return done[-1]

        return self.database.write(held)

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read from the ledger."""
        return self.database.read(work)

    def reasons(self) -> Counter[str]:
        """Count the rejected and unknown rows by their reason."""
        return self.database.read(lambda connection: reasons_of(connection, self.id))

    def rejected_before(self) -> int:
        """Count the rejected rows that an earlier delivery rejected with the same payload."""
        told = {"delivery": self.id, "account": self.account.name}
        return int(self.database.read(lambda connection: connection.execute(_REJECTED_BEFORE, told).scalar_one()))

    # -- parts of transactions ----------------------------------------------------------------------------------------

    def _hold(self, connection: Connection, written: Mapping[str, Any]) -> None:
        """Check that the delivery is still ours.

        :raises TakenOverError: it is not.
        """
        statement = _hold_statement(self.database, tuple(written))
        held = connection.execute(statement, {"delivery": self.id, "me": self.holder, **written})
        if not held.rowcount:
            raise TakenOverError(_TAKEN_OVER)

    def _counted(self) -> dict[str, Any]:
        counts = self.counts
        return {
            "read_rows": counts.read, "acknowledged": counts.acknowledged, "rejected": counts.rejected,
            "unknown": counts.unknown, "skipped": counts.skipped, "counts": counts.to_json(), "hold_s": self.hold_s,
        }  # fmt: skip

    def log_later(self, line: LoggedConsent) -> None:
        """Add a withheld consent. It is logged once the source has been read, unless an earlier run has logged it."""
        self._withheld.append(line)

    def _chunk_of(self, position: int) -> int:
        return bisect_right(self._starts, position) - 1

    def _chunk(self, chunk: int) -> bytearray:
        return bytearray(self.states.between(self._starts[chunk], self._starts[chunk + 1]))

    def _changed_chunks(self) -> dict[int, bytes]:
        return {chunk: bytes(self._chunk(chunk)) for chunk in {self._chunk_of(one) for one in self.states.changed}}

    def with_states(self, chunks: Mapping[int, bytes], states: Mapping[int, int]) -> dict[int, bytes]:
        """Return the states of chunks, with changes applied."""
        changed = {chunk: bytearray(one) for chunk, one in chunks.items()}
        for position, state in states.items():
            if (chunk := self._chunk_of(position)) in changed:
                changed[chunk][position - self._starts[chunk]] = state
        return {chunk: bytes(one) for chunk, one in changed.items()}

    def write_states(self, connection: Connection, chunks: Mapping[int, bytes]) -> None:
        """Write the states of chunks."""
        rows = [{"delivery": self.id, "chunk": chunk, "states": states} for chunk, states in sorted(chunks.items())]
        if rows:
            connection.execute(_SET_STATES, rows)


class Commit:
    """One commit: states, outcomes, consents, contacts, message ids, counts and the hold, or nothing."""

    def __init__(
        self,
        held: Held,
        changes: Changes,
        changed: set[int],
        chunks: Mapping[int, bytes],
        counts: Mapping[str, Any],
        *,
        of_try: Mapping[str, Any] | None,
    ) -> None:
        self.changes = changes
        self._held = held
        self._changed = changed
        self._chunks = chunks
        self._counts = counts
        self._of_try = of_try

    def write(self, reserve: Callable[[Connection], Mapping[int, int]] | None = None) -> Mapping[int, int]:
        """Write it, if the delivery is still ours.

        :param reserve: called within the transaction, after all other writes; returns the new states of rows. After a
            conflict it is called again, so it must change nothing but the database.
        :returns: these states.
        :raises TakenOverError: another try has the delivery; nothing was written.
        :raises LedgerError: nothing was written.
        """
        return self._held.write_once(lambda connection: self._write(connection, reserve), counts=self._counts)

    def undo(self) -> None:
        """Undo a commit that could not be written: the next one has to include it."""
        self._held.states.changed |= self._changed

    def _write(
        self, connection: Connection, reserve: Callable[[Connection], Mapping[int, int]] | None
    ) -> Mapping[int, int]:
        held, changes, account = self._held, self.changes, self._held.account
        account.settle(connection, changes.acknowledged, changes.unknown, changes.released)
        remove_lines(connection, held.id, changes.removed)
        write_outcomes(connection, held.id, account.name, changes.outcomes)
        account.keep_contacts(connection, changes.contacts)
        account.keep_phones(connection, changes.phones)
        account.keep_types(connection, changes.types)
        account.log(connection, changes.log)
        if held.log is not None and self._of_try is not None:
            held.log.write(connection, self._of_try)
        reserved = reserve(connection) if reserve is not None else {}
        held.write_states(connection, held.with_states(self._chunks, reserved))
        return reserved


def _hold_statement(database: Database, columns: tuple[str, ...]) -> Any:
    key = f"{database.dialect} {columns}"
    if key not in _HOLD:
        # MySQL reports an unchanged row as not updated; the time always changes.
        assigned = "".join(f", {name} = :{name}" for name in columns)
        now = database.now_sql.replace(":", "\\:")
        _HOLD[key] = text(
            f"UPDATE regal_deliveries SET held_at = {now}{assigned} WHERE id = :delivery AND holder = :me"  # noqa: S608
        )
    return _HOLD[key]
