"""Check who requests a page, what they may see and do, and whether a form is ours.

===================================================  ==================================================================
to see or do                                         a user needs, in Airflow
===================================================  ==================================================================
deliveries of a DAG                                  to read the DAG and its task instances
deliveries outside a task (the command line)         to read connections
the personal data of a delivery's rows               to change the DAG
a redelivery                                         to read the delivery, and to trigger the DAG ``regal_redeliver``
marking unknown rows as found at Regal               to change the task instances of the DAG, as for marking them failed
people                                               ``[regal] people_page``, and to change connections
health                                               to read connections
===================================================  ==================================================================
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Any, Final

from airflow_provider_regal import _compat as airflow
from airflow_provider_regal._compat import conf
from airflow_provider_regal.ledger.admin.monitoring import Wanted
from airflow_provider_regal.ledger.deliveries import Record

REDELIVER_DAG: Final = "regal_redeliver"
_TOKEN_S: Final = 12 * 3600
_READ, _CHANGE, _TRIGGER = "GET", "PUT", "POST"


class Forbidden(Exception):  # noqa: N818 - it is an answer
    """The user may not see or do this."""


@dataclass(frozen=True)
class Viewer:
    """The user who requests a page."""

    user: Any

    @property
    def name(self) -> str:
        """The user's name, for the audit log."""
        return str(self.user.get_name())

    @cached_property
    def reads_outside(self) -> bool:
        """Whether this user may see deliveries that belong to no DAG."""
        return airflow.may_use_connections(self.user, _READ)

    @cached_property
    def sees_people(self) -> bool:
        """Whether the page about one person is available to this user."""
        return conf.getboolean("regal", "people_page", fallback=False) and airflow.may_use_connections(
            self.user, _CHANGE
        )

    def readable(self, on_record: Callable[[], set[str]]) -> Wanted:
        """Return a filter for the deliveries that the user may see.

        :param on_record: returns the ids of the DAGs that have deliveries.
        """
        if not airflow.may_use_dag(self.user, None, _READ, "TASK_INSTANCE"):
            raise Forbidden
        return Wanted(frozenset(airflow.readable_dags(self.user, on_record())), outside=self.reads_outside)

    def check_dag(self, dag_id: str | None) -> None:
        """Check that the user may see the deliveries of a DAG; None means those outside a task.

        :raises Forbidden: the user may not.
        """
        allowed = (
            self.reads_outside
            if dag_id is None
            else dag_id in airflow.readable_dags(self.user, [dag_id])
            and airflow.may_use_dag(self.user, dag_id, _READ, "TASK_INSTANCE")
        )
        if not allowed:
            raise Forbidden

    def check_people(self) -> None:
        """Check that the page about one person is available to this user.

        :raises Forbidden: it is not.
        """
        if not self.sees_people:
            raise Forbidden

    def reveals(self, record: Record) -> bool:
        """Return whether the user may see personal data in a delivery's rows."""
        if record.dag_id is None:
            return airflow.may_use_connections(self.user, _CHANGE)
        return airflow.may_use_dag(self.user, record.dag_id, _CHANGE)

    def settles(self, record: Record) -> bool:
        """Return whether the user may mark unknown rows of a delivery as found at Regal."""
        if record.dag_id is None:
            return airflow.may_use_connections(self.user, _CHANGE)
        return airflow.may_use_dag(self.user, record.dag_id, _CHANGE, "TASK_INSTANCE")

    @cached_property
    def redelivers(self) -> bool:
        """Whether the DAG that redelivers exists, and the user may trigger it."""
        return airflow.is_paused(REDELIVER_DAG) is not None and airflow.may_use_dag(
            self.user, REDELIVER_DAG, _TRIGGER, "RUN"
        )

    # -- forms that change something ----------------------------------------------------------------------------------

    def token(self) -> str:
        """Return a token for our forms that pages of other sites can't know."""
        until = str(int(time.time()) + _TOKEN_S)
        return f"{until}.{self._signed(until)}"

    def check_token(self, token: str) -> None:
        """Check that a form is ours, was made for this user, and is not too old.

        :raises Forbidden: it is not.
        """
        until, _, signature = token.partition(".")
        if not until.isdecimal() or not hmac.compare_digest(signature.encode(), self._signed(until).encode()):
            raise Forbidden
        if int(until) < time.time():
            raise Forbidden

    def _signed(self, until: str) -> str:
        key = f"regal csrf {conf.get('api', 'secret_key')}".encode()
        return hmac.new(key, f"{until} {self.user.get_id()}".encode(), sha256).hexdigest()
