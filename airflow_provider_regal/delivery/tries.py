"""What a try has to do, given what the run folder says of the tries before it. Pure.

========================  ==========================================  =================================
the folder                named events (track, page, screen)          contacts (identify)
========================  ==========================================  =================================
new                       start                                       start
of this run's last try    go on with the rows that are not settled    the same
cleared, had finished     nothing                                     read again, send all
cleared, had failed       go on, rejected rows again                  read again, send all
its rows are gone         fail, if any may have been sent             read again, send all
lost, rows may be sent    fail: needs shared storage or ``restart``   read again, send all, and say so
``restart=True``          start, once                                 start, once
========================  ==========================================  =================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from airflow_provider_regal.journal.marker import Marker


class Work(StrEnum):
    """What a try does."""

    START = "start"
    GO_ON = "go_on"
    GO_ON_WITH_REJECTED = "go_on_with_rejected"
    NOTHING = "nothing"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do, and what to tell the user about it."""

    work: Work
    say: str = ""


@dataclass(frozen=True, slots=True)
class Try:
    """Which try of which incarnation of a task instance this is.

    :param epoch: grows with every clear of a finished task; 0 through automatic retries.
    :param number: Airflow's try number, from 1.
    """

    epoch: int = 0
    number: int = 1


def plan_try(
    marker: Marker | None,
    this: Try,
    *,
    named: bool,
    restart: bool,
    fingerprint: str,
    snapshot_complete: bool,
    may_have_sent: bool,
    lost: bool,
) -> Plan:
    """Decide what this try does.

    :param named: the events are named: a repeat may reach a person.
    :param snapshot_complete: every row of the source is in the folder.
    :param may_have_sent: the folder knows of rows that may have been sent.
    :param lost: there is no folder, though an earlier try may have had one and sent rows.
    """
    if restart and (marker is None or not (_is_retry(marker, this) and marker.restarted)):
        return Plan(Work.START, "restart=True: everything is sent again" if marker else "")
    if marker is None:
        return _without_folder(named=named, lost=lost)
    same_source = marker.fingerprint == fingerprint
    retry = _is_retry(marker, this)
    if not same_source and may_have_sent and (named or retry):
        return Plan(
            Work.FAIL,
            "The source (connection, SQL or path) is another than in the try that already sent rows. Give it back, or "
            "set restart=True to send everything again.",
        )
    if named and may_have_sent and not snapshot_complete and marker.outcome != "finished":
        return Plan(
            Work.FAIL,
            "The rows of the try that already sent some are gone from the run folder, so nobody can tell which are "
            "left. Look in Regal; then set restart=True to send everything again, which may reach people twice.",
        )
    if not retry:
        return _after_clear(marker, named=named, snapshot_complete=snapshot_complete and same_source)
    if marker.outcome == "finished":
        return Plan(Work.NOTHING, "This delivery had finished already; nothing is sent again.")
    if not snapshot_complete or not same_source:
        return Plan(Work.START)
    return Plan(Work.GO_ON, "Going on where the last try stopped.")


def _is_retry(marker: Marker, this: Try) -> bool:
    # A folder whose last try is not below ours belongs to an earlier run of the same name.
    return marker.epoch == this.epoch and marker.try_number < this.number


def _without_folder(*, named: bool, lost: bool) -> Plan:
    if not lost:
        return Plan(Work.START)
    if named:
        return Plan(
            Work.FAIL,
            "The run folder of an earlier try cannot be found, so rows may have been sent that nobody remembers. "
            "[regal] storage_path must be a folder that every worker sees; or set restart=True to send everything "
            "again, which may reach people twice.",
        )
    return Plan(Work.START, "The run folder of an earlier try cannot be found; contacts are sent again from the start.")


def _after_clear(marker: Marker, *, named: bool, snapshot_complete: bool) -> Plan:
    if not named:
        return Plan(Work.START, "The task was cleared: the source is read again.")
    if marker.outcome == "finished":
        return Plan(
            Work.NOTHING,
            "The task was cleared, and had delivered everything: events are not sent twice. To send them again all "
            "the same, set restart=True.",
        )
    if not snapshot_complete:
        return Plan(Work.START)
    return Plan(
        Work.GO_ON_WITH_REJECTED,
        "The task was cleared: rejected rows are tried again, those acknowledged or unknown are not.",
    )
