"""Send a plan: the rows that a task with ``plan=True`` has read, checked and kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_regal._compat import BaseOperator
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.operators._failing import failing_for_good
from airflow_provider_regal.operators._link import LINKS

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context

AsPlanned = Literal["as_planned"]
_AS_PLANNED: Final = "as_planned"


class RegalSendPlanOperator(BaseOperator):
    """Send exactly the rows of a plan, for example after approval.

    .. code-block:: python

        plan = SqlToRegalOperator(
            task_id="plan", sql="SELECT ...", sql_conn_id="warehouse", call="track", event="Rate Dropped", plan=True
        )
        approve = ApprovalOperator(task_id="approve", subject="Send {{ ti.xcom_pull('plan')['left'] }} events?")
        send = RegalSendPlanOperator(task_id="send", plan=plan.output)
        plan >> approve >> send

    The rows are sent with the plan's options, even if its task's options have changed since. Newer opt-outs, suppressed
    people, message ids that were sent in the meantime and ``max_event_age`` still apply. A retry resumes; a plan is
    sent only once.

    :param plan: output of the task with ``plan=True``, or the id of its delivery (templated).
    :param regal_conn_id: connection of the plan's account (templated).
    :param ledger_conn_id: the ledger with the plan; by default the configured one (templated).
    :param max_rejected: overrides the option of the plan, which is the default (``"as_planned"``). ``max_unknown``,
        ``max_refused``, ``rate``, ``max_connections`` and ``outage_patience`` work in the same way.
    :raises PlanError: the plan can't be sent: it does not exist, or was sent, replaced or expired. Not retried.
    """

    template_fields: Sequence[str] = ("plan", "regal_conn_id", "ledger_conn_id")
    ui_color = "#d9efe6"
    operator_extra_links = LINKS

    def __init__(
        self,
        *,
        plan: Any,
        regal_conn_id: str = "regal_default",
        ledger_conn_id: str | None = None,
        max_rejected: float | AsPlanned = _AS_PLANNED,
        max_unknown: float | AsPlanned | None = _AS_PLANNED,
        max_refused: float | AsPlanned | None = _AS_PLANNED,
        rate: int | AsPlanned | None = _AS_PLANNED,
        max_connections: int | AsPlanned = _AS_PLANNED,
        outage_patience: timedelta | float | AsPlanned = _AS_PLANNED,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.plan = plan
        self.regal_conn_id = regal_conn_id
        self.ledger_conn_id = ledger_conn_id
        options: dict[str, Any] = {
            "max_rejected": max_rejected,
            "max_unknown": max_unknown,
            "max_refused": max_refused,
            "rate": rate,
            "max_connections": max_connections,
            "outage_patience": outage_patience,
        }
        self._options = {name: value for name, value in options.items() if value != _AS_PLANNED}
        DeliverySettings.of(call="identify", **self._options)  # report invalid options when the DAG is parsed
        self._stop = Stop()

    def execute(self, context: Context) -> dict[str, Any]:
        """Send the plan; return the report."""
        from airflow_provider_regal.hooks._delivering import REPORT_KEY, TaskDelivery
        from airflow_provider_regal.hooks.regal import RegalHook

        self._stop = Stop()  # Airflow may run the same object again
        with failing_for_good():
            hook = RegalHook(self.regal_conn_id)
            if hook.dry_run:
                from airflow_provider_regal.delivery.report import DeliveryReport

                self.log.info("Dry run: the plan is not sent")
                report = DeliveryReport(status="dry_run").as_dict()
                context["ti"].xcom_push(key=REPORT_KEY, value=report)
                return report
            return (
                TaskDelivery(
                    hook,
                    context=context,
                    settings=DeliverySettings.of(call="identify", **self._options),
                    rows=lambda held: (),
                    source=(),
                    ledger_conn_id=self.ledger_conn_id,
                    stop=self._stop,
                    plan=_number(self.plan),
                    changes=["outage_patience_s" if name == "outage_patience" else name for name in self._options],
                )
                .run()
                .as_dict()
            )

    def on_kill(self) -> None:
        """Stop; unsettled rows are kept."""
        self._stop.request()


def _number(plan: Any) -> int:
    """Return the delivery id of a plan, given as its task's report or as an id.

    :raises ValueError: it contains no id.
    """
    number = plan.get("delivery") if isinstance(plan, Mapping) else plan
    text = str(number).strip()
    if isinstance(number, bool) or not text.isdecimal():
        raise ValueError(
            "plan must be the output of a task with plan=True, or the id of its delivery, such as 17. That task may "
            "not have run, or was a dry run."
        )
    return int(text)
