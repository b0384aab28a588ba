"""Decide what a try has to do, given what is on record of earlier tries. No I/O: the caller reads the ledger.

Named events are track, page and screen; contacts include opt-ins. A *retry* has the epoch of the last delivery, and a
higher try number; after a *clear*, the epoch is higher. The first line that applies counts:

========================================================  ============  ============  ===============  ===============
the last delivery of this task instance                   named: retry  named: clear  contacts: retry  contacts: clear
========================================================  ============  ============  ===============  ===============
none, or it was replaced                                  start         start         start            start
any, with ``restart=True`` (a retry of that resumes)      start         start         start            start
a plan; or any, if this try makes a plan                  see below     see below     see below        see below
sent rows, not finished; source changed, or rows dropped  fail          fail          fail             start
finished                                                  nothing       nothing       nothing          start
stopped by a guard, which would stop its rows again (1)   read again    read again
has no complete snapshot, or its source changed           read again    read again    read again       start
failed                                                    resume (2)    resume (2)    resume (3)       start
unfinished                                                resume        resume (2)    resume           start
========================================================  ============  ============  ===============  ===============

*Start* makes a new delivery; *read again* reads the source again for the same one. "Sent rows" means that some may have
been sent.

(1) Nothing was sent, and the rows of named events were kept. (2) With the rejected rows. (3) Nothing is left to send,
so it fails again.

Without a retry or a clear, the run was deleted and created again: a delivery that has ended is then followed by a new
one (start), and any other is treated as after a clear.

If the last delivery is a plan, or this try makes one:

================================================================  ======================================================
the last delivery of this task instance                           what the try does
================================================================  ======================================================
an unfinished plan                                                retry with ``plan=True``: as above; else start
a plan that waits to be sent, of the same source                  retry with ``plan=True``: nothing; else start
a plan that waits, of another source; that failed, or expired     start
any other (4) of named events that sent rows: finished            nothing
any other (4) of named events that sent rows: unfinished, failed  fail
any other (4)                                                     start
================================================================  ======================================================

(4) A plan that a task has begun to send; or a delivery without a plan. If the run was deleted and created again, the
try starts.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_regal.ledger.deliveries import (
    DROPPED,
    FAILED,
    FINISHED,
    PLANNED,
    READING,
    REPLACED,
    SENDING,
    STOPPED,
    Record,
    Try,
)


class Work(StrEnum):
    """What a try does."""

    START = "start"  #: a new delivery
    READ_AGAIN = "read_again"  #: the same delivery, which has sent nothing
    RESUME = "resume"
    RESUME_WITH_REJECTED = "resume_with_rejected"
    NOTHING = "nothing"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class ToDo:
    """What to do, and the message for the user."""

    work: Work
    message: str = ""
    restarted: bool = False


def what_to_do(
    record: Record | None,
    this: Try,
    *,
    named: bool,
    restart: bool,
    fingerprint: str,
    may_have_sent: bool,
    plans: bool = False,
    stopped_again: bool = False,
) -> ToDo:
    """Decide what this try does.

    :param record: the last delivery of this task instance.
    :param plans: this try makes a plan.
    :param named: the events are named, so a repeat may reach a person.
    :param may_have_sent: some of its rows may have been sent.
    :param stopped_again: a guard stopped it before anything was sent, and would stop its kept rows again.
    """
    if record is None:
        return ToDo(Work.START, restarted=restart)
    ended = record.state in (FINISHED, FAILED)
    same_epoch = record.epoch == this.epoch
    retry = same_epoch and record.try_number < this.number
    if restart and not (retry and record.restarted):
        return ToDo(Work.START, "restart=True: everything is sent again.", restarted=True)
    if record.state == REPLACED:
        return ToDo(Work.START)
    if plans or record.plan is not None:
        is_first = (this.epoch, this.number) == (0, 1)  # the run was deleted and created again
        sent = named and may_have_sent and not is_first
        return _with_a_plan(record, retry=retry, sent=sent, same_source=record.source == fingerprint, plans=plans)
    if same_epoch and not retry and ended:
        return ToDo(
            Work.START,
            f"Delivery {record.id} of the same run id has ended, and this is not a retry: this is a new delivery.",
        )
    same_source = record.source == fingerprint
    if record.source == DROPPED and may_have_sent and named and record.state != FINISHED:
        return ToDo(
            Work.FAIL,
            f"The rows of delivery {record.id} were dropped after dead_letter_days, so it can't be resumed. Look at "
            f"what was sent (airflow regal outcomes {record.id}); then set restart=True to send everything again.",
        )
    if not same_source and may_have_sent and (named or retry) and record.state != FINISHED:
        return ToDo(
            Work.FAIL,
            "The source (connection, SQL or path) has changed since rows were sent. Restore it, or set restart=True to "
            "send everything again.",
        )
    if record.state == FINISHED and retry:
        return ToDo(Work.NOTHING, f"Delivery {record.id} had finished: nothing is sent again.")
    if stopped_again:
        return ToDo(
            Work.READ_AGAIN, f"A guard stops the kept rows of delivery {record.id} again: the source is read again."
        )
    if named:
        return _named(record, retry=retry, ended=ended, same_source=same_source)
    if retry:
        return _resume(record, same_source=same_source)
    return ToDo(Work.START, "The task was cleared: the source is read again, in a new delivery.")


def _with_a_plan(record: Record, *, retry: bool, sent: bool, same_source: bool, plans: bool) -> ToDo:
    if record.plan is None or record.sender is not None:
        if sent and record.state == FINISHED:
            return _nothing_twice(record)
        if sent:
            return ToDo(
                Work.FAIL,
                f"Rows of delivery {record.id} were sent, and events are not sent twice. Clear the task that sends it "
                "to resume; or set restart=True to read the source again and send everything again.",
            )
    elif retry and plans and record.state in (READING, SENDING, STOPPED):
        return _resume(record, same_source=same_source)
    elif retry and plans and same_source and record.state == PLANNED:
        return ToDo(Work.NOTHING, f"Delivery {record.id} is planned, and waits until a task sends it.")
    return ToDo(Work.START)


def _nothing_twice(record: Record) -> ToDo:
    return ToDo(
        Work.NOTHING,
        f"The task was cleared, and delivery {record.id} had finished: events are not sent twice. To send them again, "
        "set restart=True.",
    )


def _named(record: Record, *, retry: bool, ended: bool, same_source: bool) -> ToDo:
    if record.state == FINISHED:
        return _nothing_twice(record)
    todo = _resume(record, same_source=same_source)
    if todo.work is not Work.RESUME or (retry and not ended):
        return todo
    return ToDo(
        Work.RESUME_WITH_REJECTED,
        "The task was cleared: rejected rows are tried again; acknowledged and unknown rows are not.",
    )


def _resume(record: Record, *, same_source: bool) -> ToDo:
    if record.kept_rows is None or not same_source:
        return ToDo(Work.READ_AGAIN)
    settled = record.acknowledged + record.rejected + record.unknown + record.skipped
    return ToDo(Work.RESUME, f"Resuming delivery {record.id}: {settled:,} of {record.read_rows:,} rows are settled.")
