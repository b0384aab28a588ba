"""Describe a delivery in words: its state, its progress, what happened, and what to do about it. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from statistics import median
from typing import Final

from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.admin.monitoring import FixedBy, UnknownLeft
from airflow_provider_regal.ledger.deliveries import (
    EXPIRED,
    FAILED,
    FINISHED,
    PLANNED,
    READING,
    REPLACED,
    SENDING,
    STOPPED,
    Counts,
    Record,
)
from airflow_provider_regal.ledger.formats import duration, plural, redeliver_command, seconds_since, task_name

BAD: Final = "bad"
WARN: Final = "warn"
BUSY: Final = "busy"
GOOD: Final = "good"
NONE: Final = "none"
#: The state of a delivery whose task has ended for good.
DEAD: Final = "TASK DEAD"
_TOP: Final = " Top reasons:"
_GONE: Final = "The task's process is gone: it was killed, or its worker was lost"
_NEXT_TRY: Final = "; the next try resumes with them"
_COMMANDS: Final = ("airflow regal", "List them with")
_CHECK_SOURCE: Final = "Check the query or the files."
_SENTENCE_ENDS: Final = re.compile(r"(?<=[a-z])\. (?=[A-Z])")
_UNKNOWN: Final = ("--status", "unknown")
_RUNS_NEEDED: Final = 3
_FIX_DATA: Final = "Fix the data in the source, or the mapping."
_AGAIN: Final[dict[bool | None, str]] = {
    True: "This task has only_changed: rows that Regal acknowledged are not sent again.",
    False: "This task has no only_changed: all rows are sent again, which changes no contact.",
    None: "With only_changed, only rows that are not acknowledged are sent; without it, all.",
}
_ASK_REGAL: Final = (
    "Ask Regal (its status page, its support) whether it takes events again. Only a delivery shows that: to try costs "
    "nothing, since the task stops again with all rows saved."
)
_RETRY_WAITS: Final = "Airflow runs the task again. It resumes here, and sends no acknowledged row again."
# A running delivery commits every second, and sends nothing if its last commit is older than this.
_QUIET_S: Final = 3.0


class TaskNow(Enum):
    """Airflow's state of the task, for a delivery that is not finished."""

    RUNNING = "running"  # or Airflow's state is not known
    WAITING = "waiting"  # it is not running, and will run again
    OVER = "over"  # it has ended for good


@dataclass(frozen=True)
class Since:
    """What is known of a delivery besides its record: from Airflow, from later deliveries, and from people.

    :param fix: what has fixed it.
    :param unknown: its unknown rows that are still to be looked up in Regal.
    :param replaced_by: the delivery that a clear or restart has made in its place.
    """

    task: TaskNow = TaskNow.RUNNING
    fix: FixedBy | None = None
    unknown: UnknownLeft | None = None
    replaced_by: int | None = None


NOTHING_SINCE: Final = Since()


@dataclass(frozen=True)
class State:
    """The state of a delivery as shown to people.

    :param word: such as ``FAILED`` or ``OUTAGE 6 min``.
    :param tone: how it is displayed: ``bad``, ``warn``, ``busy``, ``good``, ``none``.
    :param severity: sort order; 0 needs attention first.
    :param by: the delivery that the word refers to.
    """

    word: str
    tone: str
    severity: int
    by: int | None = None


def left_of(record: Record) -> int:
    """Return how many rows have no outcome yet."""
    return max(record.read_rows - record.acknowledged - record.rejected - record.unknown - record.skipped, 0)


def conn_id_of(record: Record) -> str:
    """Return the connection of a delivery; by default an account has the name of its connection."""
    return record.conn_id or record.account


def is_alive(record: Record, now: datetime, task: TaskNow = TaskNow.RUNNING) -> bool:
    """Return whether a try holds the delivery and is not known to have ended."""
    return history.is_live(record, now) and _now_of(task, record, now) is TaskNow.RUNNING


def _now_of(task: TaskNow, record: Record, now: datetime) -> TaskNow:
    """Return the state of the task: a delivery that commits is running, whatever Airflow reports."""
    if record.holder is not None and seconds_since(record.held_at or record.started_at, now) <= _QUIET_S:
        return TaskNow.RUNNING
    return task


def state_of(record: Record, counts: Counts, now: datetime, since: Since = NOTHING_SINCE) -> State:
    """Describe the state of a delivery."""
    left = left_of(record)
    if since.fix is not None:
        return _of_a_fixed_one(record, since.fix)
    if record.state in (READING, SENDING):
        task = _now_of(since.task, record, now)
        if task is TaskNow.OVER:
            return State(DEAD, BAD, 0)
        if task is TaskNow.WAITING:
            return State("STOPPED, RETRY WAITING", WARN, 2)
        if not history.is_live(record, now):
            silent = duration(seconds_since(record.held_at or record.started_at, now))
            return State(f"STALLED {silent}", BAD, 1)
        if counts.outage_since is not None:
            return State(f"OUTAGE {duration(seconds_since(counts.outage_since, now))}", BAD, 0)
        if record.state == READING or record.kept_rows is None:
            return State("READING", BUSY, 4)
        return State(f"SENDING {progress(record):.0%}".replace("%", " %"), BUSY, 4)
    if record.state == FAILED:
        return State("FAILED", BAD, 0)
    if record.state == STOPPED:
        return State(f"STOPPED, {left:,} LEFT" if left else "STOPPED", BAD, 1)
    if record.state == FINISHED:
        to_check = record.unknown if since.unknown is None else since.unknown.rows
        return State(f"OK, CHECK {to_check:,}", WARN, 3) if record.unknown else State("OK", GOOD, 5)
    if record.state == REPLACED and since.replaced_by is not None:
        return State(f"REPLACED BY delivery {since.replaced_by}", NONE, 6, since.replaced_by)
    return {
        PLANNED: State("WAITS FOR APPROVAL", WARN, 4),
        EXPIRED: State("EXPIRED", NONE, 6),
        REPLACED: State("REPLACED", NONE, 6),
    }.get(record.state, State(record.state.upper(), NONE, 6))


def _of_a_fixed_one(record: Record, fix: FixedBy) -> State:
    if record.state == FINISHED:
        return State("OK, REDELIVERED" if fix.deliveries else "OK, FOUND AT REGAL", GOOD, 5)
    if not fix.deliveries:
        return State("FIXED", GOOD, 5)
    return State(f"FIXED BY delivery {fix.deliveries[-1]}", GOOD, 5, fix.deliveries[-1])


def progress(record: Record) -> float:
    """Return the share of rows with an outcome."""
    return (record.read_rows - left_of(record)) / record.read_rows if record.read_rows else 0.0


def per_second(counts: Counts) -> float | None:
    """Return the requests per second over all tries; None if there were none."""
    return counts.requests / counts.seconds if counts.seconds and counts.requests else None


def eta_s(record: Record, counts: Counts) -> float | None:
    """Return the seconds until the remaining rows may be sent; None if that can't be known."""
    speed = per_second(counts)
    return left_of(record) / speed if speed and counts.outage_since is None else None


def task_of(record: Record) -> str:
    """Return the delivery's task, and the delivery's name if it has one."""
    task = task_name(record.dag_id, record.task_id, record.map_index) or "outside a task"
    return f"{task}/{record.name}" if record.name else task


# -- what happened ----------------------------------------------------------------------------------------------------


def cause(record: Record, counts: Counts, now: datetime, since: Since = NOTHING_SINCE) -> str:
    """Return in one line what is wrong with a delivery; empty if nothing is."""
    if record.state in (READING, SENDING) and _now_of(since.task, record, now) is not TaskNow.RUNNING:
        return _GONE
    if record.error:
        first, *others = record.error.splitlines()
        reasons = [line.strip() for line in others if line.startswith("  ")]
        told = first.removesuffix(_TOP)
        return f"{told} {without_advice(reasons[0])[0]}" if reasons else _without_commands(told)
    if counts.outage_since is not None:
        return f"Regal takes nothing: {counts.outage_reason}"
    if record.state == FINISHED and record.unknown:
        return f"It can't be known whether Regal received {plural(record.unknown, 'row')}"
    if record.state == FINISHED and record.rejected:
        return f"{plural(record.rejected, 'row')} rejected, within the threshold"
    return ""


def without_advice(reason: str) -> tuple[str, str]:
    """Split a reason into what is wrong and what to do about it, which is empty if the reason does not include it."""
    wrong, *advice = _SENTENCE_ENDS.split(reason, maxsplit=1)
    return wrong, advice[0] if advice else ""


def what_happened(record: Record, counts: Counts, now: datetime, since: Since = NOTHING_SINCE) -> str:
    """Return what happened, with thresholds as the user wrote them."""
    state, rows = record.state, plural(record.read_rows, "row")
    if state in (READING, SENDING):
        return _of_a_live_one(record, counts, now, _now_of(since.task, record, now))
    if record.error:
        return _without_commands(record.error.splitlines()[0].removesuffix(_TOP))
    if state == PLANNED:
        return f"{rows} were read and checked; {left_of(record):,} of them wait until somebody approves the plan."
    if state in (REPLACED, EXPIRED):
        why = "a later clear or restart read the source again" if state == REPLACED else "the plan was not sent in time"
        return f"This delivery sends nothing more: {why}."
    told = f"Regal acknowledged {record.acknowledged:,} of {rows}."
    more = [
        f"{record.skipped:,} did not have to be sent" if record.skipped else "",
        f"{record.rejected:,} were rejected, within max_rejected" if record.rejected else "",
        f"of {record.unknown:,} it can't be known whether Regal received them" if record.unknown else "",
    ]
    told_more = "; ".join(part for part in more if part)
    return f"{told} {told_more[:1].upper()}{told_more[1:]}." if told_more else told


def _of_a_live_one(record: Record, counts: Counts, now: datetime, task: TaskNow) -> str:
    settled = f"{record.read_rows - left_of(record):,} of {plural(record.read_rows, 'row')} have an outcome."
    if task is not TaskNow.RUNNING:
        return f"{_GONE}. {settled}"
    if not history.is_live(record, now):
        silent = duration(seconds_since(record.held_at or record.started_at, now))
        return f"The task has not written anything for {silent}: its worker may have died. {settled}"
    if counts.outage_since is not None:
        since = duration(seconds_since(counts.outage_since, now))
        return (
            f"Regal has taken nothing for {since}; the last request: {counts.outage_reason}. One row at a time probes "
            f"whether it is back. {settled}"
        )
    if record.kept_rows is None:
        return f"The source is being read: {plural(record.read_rows, 'row')} so far. Nothing was sent yet."
    return f"It is being sent. {settled}"


def _without_commands(text: str) -> str:
    told = " ".join(line for line in text.splitlines() if not line.startswith(_COMMANDS)).strip()
    return told.replace(_NEXT_TRY, "")  # true for a retry only; the steps tell the rest


# -- what to do -------------------------------------------------------------------------------------------------------


def next_steps(
    record: Record,
    counts: Counts,
    now: datetime,
    since: Since = NOTHING_SINCE,
    *,
    refused: int = 0,
    advice: Sequence[str] = (),
) -> list[str]:
    """List what to do, in order, for this call and the way this delivery ended.

    :param refused: how many of the rejected rows Regal refused; the others were invalid and not sent.
    :param advice: what the reasons of the rejected rows advise.
    """
    if since.fix is not None:
        return []
    steps = _steps(record, counts, now, since, refused)
    if not advice or not steps:
        return steps
    return [steps[0], *advice, *(step for step in steps[1:] if step != _FIX_DATA)]


def _steps(record: Record, counts: Counts, now: datetime, since: Since, refused: int) -> list[str]:
    if record.state in (READING, SENDING):
        return _while_it_runs(record, counts, now, _now_of(since.task, record, now))
    if record.state == STOPPED:
        return _to_resume(record, counts, since.task)
    if record.state == FAILED:
        return _after_a_failure(record, counts, since, refused)
    if record.state == PLANNED:
        return [
            "Approve or reject it where your DAG asks: Airflow's Required Actions, or the task that stands between."
        ]
    if record.state == FINISHED and record.unknown:
        return [*_about_unknown(record, since.unknown), *(_about_tolerated(record, counts) if record.rejected else ())]
    if record.state == FINISHED and record.rejected:
        return _about_tolerated(record, counts)
    return []


def _while_it_runs(record: Record, counts: Counts, now: datetime, task: TaskNow) -> list[str]:
    if task is TaskNow.WAITING:
        return [f"Nothing: {_RETRY_WAITS}{_on_their_way(record)}"]
    if task is TaskNow.OVER:
        return [
            "Airflow does not run it again: clear the task. It resumes here, and no acknowledged row is sent again."
            f"{_on_their_way(record)}"
        ]
    if not history.is_live(record, now):
        return [
            "Look at the task in Airflow. If it no longer runs, Airflow notices the missing heartbeat and retries it; "
            "the retry resumes here.",
            f"If it has no retries left, clear it: no acknowledged row is sent again.{_on_their_way(record)}",
        ]
    if counts.outage_since is not None:
        return [
            "Nothing yet: the task resumes by itself if Regal answers within its outage_patience.",
            "If that takes longer, the task stops with all unsent rows saved. If it has retries left, Airflow resumes "
            "by itself; else clear it.",
        ]
    return []


def _on_their_way(record: Record) -> str:
    # At_least_once is usual only for contacts.
    risk = "" if record.call == "identify" else " Rows that were on their way when it died may then be unknown."
    return risk if left_of(record) else ""


def _to_resume(record: Record, counts: Counts, task: TaskNow) -> list[str]:
    if counts.guard is not None:
        return [
            _CHECK_SOURCE,
            "If the source was wrong, fix it and clear the task with the options as they are: it is read again.",
            "If the number of rows is meant, change the option for this run and clear the task: the rows are sent as "
            "they were read.",
        ]
    error, left = record.error or "", plural(left_of(record), "row")
    resume = f"Clear the task: it resumes with the {left} left, and sends no acknowledged row again."
    if record.call == "identify":
        resume = "Clear the task: it reads the source again, and sends what is not known to be at Regal unchanged."
    if "API key" in error:
        return [
            f"Enter the right API key in the connection {conn_id_of(record)} (Admin > Connections) and save it. The "
            "button Test there proves nothing about the key, whatever it answers.",
            resume,
        ]
    if "max_refused" in error:
        return ["Look at the reasons: Regal refuses these rows.", "Fix the data or the mapping.", resume]
    first = [_ASK_REGAL] if "outage_patience" in error else []
    if task is TaskNow.WAITING:
        return [*first, f"{'Nothing else' if first else 'Nothing'}: {_RETRY_WAITS}"]
    if task is TaskNow.OVER:
        return [*first, f"Airflow does not run it again. {resume}"]
    later = f"Otherwise: {resume[:1].lower()}{resume[1:]}"
    return [*first, f"If the task has retries left, Airflow resumes by itself. {later}"]


def _after_a_failure(record: Record, counts: Counts, since: Since, refused: int) -> list[str]:
    if not record.rejected and not record.unknown:
        return [
            f"{_CHECK_SOURCE} Nothing but opt-outs was sent.",
            "If the number of rows is meant, change the guard in the DAG for this run.",
            "Clear the task: the source is read again.",
        ]
    steps = []
    if owed := counts.opt_outs_rejected + counts.opt_outs_unknown:
        steps.append(f"First the {plural(owed, 'row')} with an opt-out: these people must not be contacted any more.")
    if record.rejected:
        steps += _about_rejected(record, counts, refused)
    if record.unknown:
        steps += _about_unknown(record, since.unknown)
    return steps


def _about_rejected(record: Record, counts: Counts, refused: int) -> list[str]:
    look = "Read the reasons; each row is listed with its place in the source."
    # A redelivery sends rows as they were read: invalid rows would be rejected again.
    redeliver = (
        [
            f"If Regal would take the {plural(refused, 'row')} now that it refused, redeliver them "
            f"({redeliver_command(record.id, conn_id_of(record))}): rows are sent as they were read."
        ]
        if refused
        else []
    )
    if record.sender is not None:  # rows of a plan
        again = (
            "Clearing the task sends no row again. Plan the corrected rows in a new run, or redeliver them with a fix."
        )
        return [look, again, *redeliver]
    if record.plan is not None:
        return [
            f"{look} Nothing but opt-outs was sent, and the plan is dropped.",
            "Fix the data or the options, or allow for these rows (max_rejected).",
            "Clear the task to plan again.",
        ]
    if counts.plan:
        return [look, "Fix the rows in the source: the next run of the sync reads them again."]
    if record.call == "identify":
        return [
            look,
            _FIX_DATA,
            "Clear the task: it reads the source again and sends what is not known to be at Regal unchanged. "
            + _AGAIN[counts.only_changed],
            *redeliver,
        ]
    return [
        look,
        "If an option is wrong (mapping, types), fix it and clear the task: rejected rows are tried again as they were "
        "read, and no other row is.",
        "If the data is wrong, fix the source; the next run reads it. This run's clear does not: to send these rows "
        "corrected, redeliver them with a fix.",
        *redeliver,
    ]


def _about_unknown(record: Record, left: UnknownLeft | None) -> list[str]:
    risk = "A row that Regal did receive reaches the person twice."
    if record.call == "identify":
        risk = "A contact that Regal did receive stays as it is."
    rows = plural(record.unknown if left is None else left.rows, "unknown row")
    again = f"Redeliver those it does not have ({redeliver_command(record.id, conn_id_of(record), *_UNKNOWN)}). {risk}"
    if left is None:  # a redelivery has taken all of them, and did not end well
        return [f"Look in Regal for the {rows}.", again]
    which = "changes of contacts" if record.call == "identify" else "events"
    if left.event:
        which = f"{'events' if left.rows > 1 else 'event'} {left.event!r}"
    if left.events > 1:
        which += f" and {plural(left.events - 1, 'other name')}"
    return [
        f"Look in Regal for the {rows}: {which}, sent {_when(left)} UTC. The list of rows tells who they are about.",
        f"Mark those that Regal has (airflow regal settle {record.id} --rows ..., or the buttons below the list).",
        again,
    ]


def _when(left: UnknownLeft) -> str:
    first, last = left.first_at[:19].replace("T", " "), left.last_at[:19].replace("T", " ")
    if first == last:
        return f"at about {first}"
    return f"between {first} and {last[11:] if first[:10] == last[:10] else last}"


def _about_tolerated(record: Record, counts: Counts) -> list[str]:
    rows = plural(record.rejected, "rejected row")
    then = "the next sync sends them" if counts.plan else "the next run reads it"
    return [f"Nothing has to be done now. To deliver the {rows}, correct the source: {then}."]


# -- is that normal ----------------------------------------------------------------------------------------------


def normal_here(record: Record, runs: Sequence[Record]) -> str:
    """Compare a delivery with the finished ones before it.

    :param runs: the last deliveries of the same task, newest first; those of the same run do not count.
    """
    same_run = {one.id for one in runs if one.id == record.id or (one.dag_id and one.run_id == record.run_id)}
    others = [one for one in runs if one.id not in same_run and one.state in (FINISHED, FAILED) and one.read_rows]
    if len(others) < _RUNS_NEEDED:
        return f"There are too few earlier runs to say what is normal ({len(others)})."
    rows = [one.read_rows for one in others]
    told = f"Usually {median(rows):,.0f} rows ({min(rows):,} to {max(rows):,})"
    unusual = [] if min(rows) <= record.read_rows <= max(rows) else ["the number of rows"]
    for name in ("rejected", "unknown"):
        counts = [getattr(one, name) for one in others]
        told += f", {median(counts):,.0f} {name} (at most {max(counts):,})"
        unusual += [f"{name} rows"] if getattr(record, name) > max(counts) else []
    this = f"{record.read_rows:,} rows, {record.rejected:,} rejected, {record.unknown:,} unknown"
    if left := left_of(record):
        told, this = f"{told}, none left", f"{this}, {left:,} left"
        unusual += ["rows left"] if record.state not in (READING, SENDING) else []
    verdict = f"Not usual: {', '.join(unusual)}." if unusual else "As usual."
    return f"{verdict} {told}: the last {len(others)} runs. This one: {this}."
