"""The books of a delivery: every outcome is written here, dead letter first, before the row counts as settled."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from airflow_provider_regal.client.exchange import Decision
from airflow_provider_regal.client.hearsay import fit_to_show
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.claims import STALE, Claims, Granted
from airflow_provider_regal.delivery.marking import Marking
from airflow_provider_regal.delivery.prepared import LeftOut, Ready, Refused
from airflow_provider_regal.delivery.settings import NAMED_CALLS
from airflow_provider_regal.errors import FixConnectionError
from airflow_provider_regal.events.names import MESSAGE_ID
from airflow_provider_regal.journal.dead_letters import DeadLetter
from airflow_provider_regal.journal.ledger_rules import OPT_IN
from airflow_provider_regal.journal.progress import Outcome, Skip
from airflow_provider_regal.journal.report import DeliveryReport
from airflow_provider_regal.journal.run_folder import RunFolder

# Why a row became unknown through no fault of its own; they warn, but do not fail the task.
_DIED: Final = "worker died"
_INTERRUPTED: Final = "interrupted"
_OUTAGE: Final = "outage"
_NUMBERED: Final = re.compile(r"\[\d+\]")  # phones[1]: the same note for all
_SKIPS: Final = frozenset(skip.value for skip in Skip)


def lost_to_outage(letter: DeadLetter) -> bool:
    """Whether a row became unknown through a crash, a stop or an outage, in whichever try."""
    return letter.status == "unknown" and letter.reason.partition(":")[0] in (_DIED, _INTERRUPTED, _OUTAGE)


class Books:
    """Writes what became of each row into the run folder, and counts it in the report.

    :param folder: an open run folder.
    :param target: for messages about the connection; its key is masked in Regal's words.
    """

    def __init__(
        self, folder: RunFolder, report: DeliveryReport, target: Target, *, claims: Claims, marking: Marking
    ) -> None:
        self._folder = folder
        self._claims = claims
        self._marking = marking
        self._progress = folder.progress
        self._letters = folder.dead_letters  # opened at once: its closing drops letters of rows no longer dead
        self._target = target
        self.report = report

    @property
    def reserves_for_s(self) -> float | None:
        """For how many seconds reservations should last; None where they cost next to nothing."""
        return self._folder.reserves_for_s

    def wait_s(self, now: float) -> float:
        """Say whether something may be sent: 0 for yes, else the seconds until it is worth asking again."""
        return self._folder.wait_s(now)

    def note(self, row: Ready) -> None:
        """Note what a row leaves out, now that it is about to be sent."""
        self._note_withheld(row)
        if row.payload.notes:
            self.report.notes.update(_NUMBERED.sub("", note) for note in row.payload.notes)
        if row.payload.call in NAMED_CALLS and not row.has_time:
            self.report.without_time += 1

    def _note_withheld(self, row: Ready) -> None:
        new = row.payload.withheld[row.withheld_noted :]
        row.withheld_noted += len(new)
        if new:
            self.report.opt_ins_withheld += len(new)
            self._folder.withheld(row.position, [str(withheld) for withheld in new], row.payload.body)

    async def reserve(self, rows: Sequence[Ready], now: float, moment: datetime) -> Granted:
        """Ask the ledger, and note durably which of the rows may be sent now.

        :param now: monotonic seconds.
        :param moment: the same by the calendar.
        """
        granted = await self._claims.ask(rows, now)
        for row in granted.withheld:
            self._note_withheld(row)
        for row, why in granted.skipped:
            if why is Skip.STALE and not row.payload.withheld:  # the event itself stands for the opt-in
                self._withhold(row.position, row.payload.body)
            self.skip_row(row, why, moment)
        if once := [row.position for row in granted.go if row.guarantee == "at_most_once"]:
            self._progress.reserve(once)
            await self.sync()
        return granted

    def skip(self, position: int, why: Skip) -> None:
        """Note that a row is not sent, on purpose."""
        self._progress.settle(position, why)

    def skip_row(self, row: Ready, why: Skip, now: datetime) -> None:
        """Note that a prepared row is not sent; one that could only be sent in part stays rejected."""
        if row.instead_of is not None:
            self.reject(row.instead_of, now)
        else:
            self.skip(row.position, why)

    def leave_out(self, row: LeftOut) -> None:
        """Note that a row is not sent since its source says so."""
        if row.reason == Skip.STALE:
            self._withhold(row.position, row.row)
        self.skip(row.position, Skip(row.reason) if row.reason in _SKIPS else Skip.LEFT_OUT)

    def _withhold(self, position: int, row: Mapping[str, Any]) -> None:
        self.report.opt_ins_withheld += 1
        self._folder.withheld(position, [STALE], row)

    async def checkpoint(self) -> None:
        """Force everything noted to disk, and then into the ledger."""
        await self._marking.write(self._progress, self.sync)

    async def keep_checkpoints(self, every_s: float) -> None:
        """Make a checkpoint again and again."""
        while True:
            await asyncio.sleep(every_s)
            await self.checkpoint()

    def flush(self) -> None:
        """Hand what was noted to the operating system."""
        self._progress.flush()

    async def sync(self) -> None:
        """Force to disk what was handed to the operating system, dead letters before what refers to them.

        :raises FolderReplacedError: nobody would find it there.
        """
        await asyncio.to_thread(self._folder.sync)

    def acknowledge(self, row: Ready, now: Callable[[], datetime]) -> None:
        """Note that Regal has the row.

        :param now: gives the current time, which is hardly ever asked for.
        """
        self._count_requests(row)
        self._marking.acknowledge(row)
        if row.instead_of is not None:
            self.reject(row.instead_of, now())
        else:
            self._progress.settle(row.position, Outcome.ACKNOWLEDGED)

    def reject(self, row: Refused, now: datetime) -> None:
        """Note that the row can never be sent."""
        said = [*map(str, row.faults), *([f"in {row.origin}"] if row.origin else [])]
        self._write(
            row.position,
            key=None,
            call=row.call,
            status="rejected",
            reason="invalid",
            field=row.faults[0].field,
            message="; ".join(said),
            attempts=0,
            times=(_first_time(row) or now, now),
            payload=dict(row.row),
            form=row.form,
            known=self._marking.is_known(row.row_hash) and row.letter_time is None,
        )
        self._progress.settle(row.position, Outcome.REJECTED)

    def refuse(self, row: Ready, decision: Decision, now: datetime) -> None:
        """Note that Regal refuses the row for good."""
        self._count_requests(row)
        self.release(row)  # if the letter cannot be written, a later try asks again
        known = self._marking.refuse(row) and row.letter_time is None  # a redelivery is there to get it through
        self._bury(row, "rejected", self._said(row, decision), decision.reason, now, known=known)
        self._progress.settle(row.position, Outcome.REJECTED)

    def lose_sight(self, row: Ready, decision: Decision, now: datetime, *, in_outage: bool) -> None:
        """Note that nobody can know whether Regal has the row."""
        self._count_requests(row)
        reason = f"{_OUTAGE}: {decision.reason}" if in_outage else decision.reason
        self._bury(row, "unknown", self._said(row, decision), reason, now)
        self._progress.settle(row.position, Outcome.UNKNOWN)
        self._marking.lose_sight(row)

    def blame_outage(self, row: Ready, decision: Decision, now: datetime) -> None:
        """Note that it was an outage that made a row unknown, as turned out only later."""
        self._bury(row, "unknown", self._said(row, decision), f"{_OUTAGE}: {decision.reason}", now)

    def interrupted(self, row: Ready, now: datetime) -> None:
        """Note that we cut the request off ourselves before it was answered."""
        if row.guarantee == "at_least_once":
            row.doubtful = True
            self.leave_open(row)
            return
        self._count_requests(row)
        self._bury(row, "unknown", "stopped while it was being sent", _INTERRUPTED, now)
        self._progress.settle(row.position, Outcome.UNKNOWN)
        self._marking.lose_sight(row)

    def died(self, row: Ready | Refused, now: datetime) -> None:
        """Note that an earlier try died between reserving the row and noting an answer."""
        if isinstance(row, Ready):
            key, call, kept = _key(row), row.payload.call, _kept(row)
            self._marking.lose_sight(row)
        else:  # its mapping changed since
            key, call, kept = None, row.call, {"payload": dict(row.row), "form": row.form}
        self._write(
            row.position,
            key=key,
            call=call,
            status="unknown",
            reason=_DIED,
            field=None,
            message="the worker died while it was being sent; look for it in Regal",
            attempts=1,
            times=(now, now),
            **kept,
        )
        self._progress.settle(row.position, Outcome.UNKNOWN)

    def release(self, row: Ready) -> None:
        """Take the row's reservation back: Regal surely does not have it."""
        if row.guarantee == "at_most_once":
            self._progress.release(row.position)

    def leave_open(self, row: Ready) -> None:
        """Leave the row unsettled: a later try sends it."""
        self._count_requests(row)
        self.release(row)
        if row.doubtful:
            self._marking.lose_sight(row)
        else:
            self._marking.release(row)

    def unauthorized(self, decision: Decision) -> FixConnectionError:
        """Make the error for a refused key."""
        return FixConnectionError(
            f"Connection {self._target.conn_id!r}: Regal refused the API key ({decision.reason}). Check the field "
            "'API key'; it is sent as it stands, without 'Bearer'. Everything not settled is kept: mend the "
            "connection and clear the task.",
            status=decision.status,
        )

    def _count_requests(self, row: Ready) -> None:
        self.report.requests += row.tries
        self.report.repeats += max(row.tries - 1, 0)

    def _said(self, row: Ready, decision: Decision) -> str:
        said = fit_to_show(decision.said, sent=row.payload.body, api_key=self._target.api_key)
        return f"{decision.reason}, Regal says: {said}" if said else decision.reason

    def _bury(self, row: Ready, status: str, message: str, reason: str, now: datetime, *, known: bool = False) -> None:
        self._write(
            row.position,
            key=_key(row),
            call=row.payload.call,
            status=status,
            reason=reason,
            field=None,
            message=f"{message}; in {row.origin}" if row.origin else message,
            attempts=row.tries,
            times=(_first_time(row) or now, now),
            known=known,
            **_kept(row),
        )

    def _write(self, position: int, *, times: tuple[datetime, datetime], **what: Any) -> None:
        first, last = (time.isoformat(timespec="milliseconds") for time in times)
        self._letters.write(
            DeadLetter(run=self._folder.name, position=position, first_time=first, last_time=last, **what)
        )


def _kept(row: Ready) -> dict[str, Any]:
    """Give what a redelivery needs of a row."""
    body = json.loads(row.body)
    claims = [claimed.claim for claimed in row.claims if claimed.consent is None and claimed.claim.call == OPT_IN]
    return {
        "payload": body if row.message_id is None else {MESSAGE_ID: row.message_id, **body},
        "ledger_key": row.key,
        "claims": [[c.key, c.channel, c.subscribed, c.at, c.row_hash, *([True] if c.stored else [])] for c in claims],
    }


def _first_time(row: Ready | Refused) -> datetime | None:
    if row.letter_time is not None:
        return datetime.fromisoformat(row.letter_time)
    return row.first_time if isinstance(row, Ready) else None


def _key(row: Ready) -> str:
    return row.identifiers[0].removeprefix("user:")
