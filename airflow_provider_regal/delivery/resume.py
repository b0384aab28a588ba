"""What a try has to do, given what is on record of the tries before it. Pure.

============================  ==========================================  =================================
on record                     named events (track, page, screen)          contacts and opt-ins
============================  ==========================================  =================================
nothing                       start                                       start
a try of this run, unfinished resume with the rows that are not settled   the same
a try of this run, finished   nothing                                     nothing
cleared, had finished         nothing                                     read again: a new delivery
cleared, had failed           resume, rejected rows again                 read again: a new delivery
a run deleted, made again     ended: a new delivery; else resume          ended or not: read again
source changed, rows sent     fail: restore it, or ``restart``            fail on a retry, else read again
``restart=True``              start: a new delivery, once                 the same
============================  ==========================================  =================================

A delivery whose source was not read to its end has sent nothing: it is read again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_regal.ledger.deliveries import FAILED, FINISHED, REPLACED, Record, Try
from airflow_provider_regal.ledger.retention import DROPPED


class Work(StrEnum):
    """What a try does."""

    START = "start"  #: a new delivery
    READ_AGAIN = "read_again"  #: the same delivery, of which nothing was sent
    RESUME = "resume"
    RESUME_WITH_REJECTED = "resume_with_rejected"
    NOTHING = "nothing"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and what to tell the user about it."""

    work: Work
    message: str = ""
    restarted: bool = False


def plan_try(
    record: Record | None, this: Try, *, named: bool, restart: bool, fingerprint: str, may_have_sent: bool
) -> Plan:
    """Decide what this try does.

    :param record: the last delivery of this task instance.
    :param named: the events are named: a repeat may reach a person.
    :param may_have_sent: rows of it may have been sent.
    """
    if record is None:
        return Plan(Work.START, restarted=restart)
    ended = record.state in (FINISHED, FAILED)
    same_epoch = record.epoch == this.epoch
    retry = same_epoch and record.try_number < this.number
    if restart and not (retry and record.restarted):
        return Plan(Work.START, "restart=True: everything is sent again.", restarted=True)
    if record.state == REPLACED:
        return Plan(Work.START)
    if same_epoch and not retry and ended:
        return Plan(
            Work.START,
            f"Delivery {record.id} of the same run id has ended, and this is not a retry: this is a new delivery.",
        )
    same_source = record.source == fingerprint
    if record.source == DROPPED and may_have_sent and named and record.state != FINISHED:
        return Plan(
            Work.FAIL,
            f"The rows of delivery {record.id} were dropped after dead_letter_days, so it can't be resumed. Look at "
            f"what was sent (airflow regal outcomes {record.id}); then set restart=True to send everything again.",
        )
    if not same_source and may_have_sent and (named or retry) and record.state != FINISHED:
        return Plan(
            Work.FAIL,
            "The source (connection, SQL or path) has changed since rows were sent. Restore it, or set restart=True to "
            "send everything again.",
        )
    if record.state == FINISHED and retry:
        return Plan(Work.NOTHING, f"Delivery {record.id} had finished: nothing is sent again.")
    if named:
        return _named(record, retry=retry, ended=ended, same_source=same_source)
    if retry and not ended:
        return _resume(record, same_source=same_source)
    return Plan(Work.START, "The task was cleared: the source is read again, in a new delivery.")


def _named(record: Record, *, retry: bool, ended: bool, same_source: bool) -> Plan:
    if record.state == FINISHED:
        return Plan(
            Work.NOTHING,
            f"The task was cleared, and delivery {record.id} had finished: events are not sent twice. To send them "
            "again, set restart=True.",
        )
    plan = _resume(record, same_source=same_source)
    if plan.work is not Work.RESUME or (retry and not ended):
        return plan
    return Plan(
        Work.RESUME_WITH_REJECTED,
        "The task was cleared: rejected rows are tried again; acknowledged and unknown rows are not.",
    )


def _resume(record: Record, *, same_source: bool) -> Plan:
    if record.kept_rows is None or not same_source:
        return Plan(Work.READ_AGAIN)
    settled = record.acknowledged + record.rejected + record.unknown + record.skipped
    return Plan(Work.RESUME, f"Resuming delivery {record.id}: {settled:,} of {record.read_rows:,} rows are settled.")
