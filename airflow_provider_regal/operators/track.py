"""Send one track event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow_provider_regal.operators._event import RegalEventOperator


class RegalTrackOperator(RegalEventOperator):
    """Record that a person did something. In Regal this can start a journey, and therefore a call.

    .. code-block:: python

        RegalTrackOperator(
            task_id="approved",
            event="Loan Application Approved",
            user_id="anne-1",
            properties={"loanType": "Personal loan", "amount": 30000, "currency": "USD", "term": 12},
        )

    Never sent twice by default (``at_most_once``).

    :param event: the event's name, case sensitive in Regal's triggers (templated).
    :param properties: details of the event (templated).
    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators._event.RegalEventOperator`, and of any
        task.
    """

    call: ClassVar[str] = "track"
    payload_fields = (*RegalEventOperator.payload_fields, "properties")
    open_fields = (*RegalEventOperator.open_fields, "event")
    template_fields: Sequence[str] = ("regal_conn_id", "restart", "ledger_conn_id", *payload_fields, *open_fields)

    def __init__(self, *, event: str, properties: Mapping[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.event = event
        self.properties = properties
