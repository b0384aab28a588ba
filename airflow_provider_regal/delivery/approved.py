"""A plan as seen by the task that sends it: whether it may be sent, and with which options."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import PlanError
from airflow_provider_regal.ledger.account import Account, age_s
from airflow_provider_regal.ledger.deliveries import (
    DROPPED,
    EXPIRED,
    FINISHED,
    PLANNED,
    REPLACED,
    Deliveries,
    Place,
    Record,
)
from airflow_provider_regal.ledger.formats import task_name


@dataclass(frozen=True, slots=True)
class Approved:
    """A plan to send.

    :param number: the id of its delivery.
    :param sender: the task instance that sends it. A plan has only one sender.
    :param plan_days: the maximum age of the plan, in days.
    """

    number: int
    sender: Place
    plan_days: float

    @property
    def sent_by(self) -> str:
        """The sender, in the form the ledger stores."""
        return json.dumps([self.sender.dag_id, self.sender.run_id, self.sender.task_id, self.sender.map_index])

    def find(self, account: Account) -> Record:
        """Load the plan's current state.

        :raises PlanError: it may not be sent.
        """
        record = Deliveries(account).find(self.number)
        if record is None:
            raise PlanError(
                f"Account {account.name!r} has no delivery {self.number} in this ledger. Check that regal_conn_id and "
                "ledger_conn_id are those of the task with plan=True; then clear that task to plan again."
            )
        if (why := why_not(record, self.sent_by, now=account.now(), plan_days=self.plan_days)) is not None:
            raise PlanError(f"Delivery {self.number} {why} Nothing was sent.")
        return record

    def settings(self, account: Account, given: DeliverySettings, changes: Collection[str]) -> DeliverySettings:
        """Return the options of the plan. Also makes the account write on behalf of the task that made the plan.

        :param given: options of the sending task; only those in ``changes`` are used.
        :raises PlanError: it may not be sent.
        """
        record = self.find(account)
        # A sync identifies its own consents by this source.
        account.source = str(Place(record.dag_id, record.run_id, record.task_id, record.map_index, record.name))
        changed = {name: getattr(given, name) for name in changes}
        return replace(DeliverySettings.from_json(record.plan or ""), plan=False, **changed)


def why_not(record: Record, sent_by: str, *, now: datetime, plan_days: float) -> str | None:
    """Return why a task may not send a delivery as a plan; None if it may, or if it is the task that began to. Pure."""
    again = "Clear the task with plan=True to plan again."
    if record.plan is None:
        return "is not a plan: the task that made it did not set plan=True."
    if record.state == REPLACED:
        return "was replaced: its task has read its source again since. Approve and send its newest plan."
    too_old = age_s(record.ended_at or record.started_at, now) > timedelta(days=plan_days).total_seconds()
    if record.state == EXPIRED or (record.state == PLANNED and too_old):
        return f"was not sent within {plan_days:g} days ([regal] plan_days), so it has expired. {again}"
    if record.state == PLANNED:
        return None
    if record.sender is None:
        return f"is not a complete plan: the task that makes it runs, was stopped or has failed. {again}"
    if record.sender != sent_by:
        dag_id, run_id, task_id, map_index = json.loads(record.sender)
        task = task_name(dag_id, task_id, map_index)
        return f"is sent by another task: {task} of run {run_id}. A plan is sent once. {again}"
    if record.source == DROPPED and record.state != FINISHED:
        return f"can't be resumed: its rows were dropped after dead_letter_days. {again}"
    return None
