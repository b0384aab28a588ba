"""A notifier that sends a track event when a task or DAG fails or succeeds, or misses a deadline.

::

    callback ─▶ Airflow renders templates ─▶ notify, async_notify ─▶ RegalHook.track ─▶ ledger, Regal
                                                     └─ any error ─▶ one ERROR line, without values
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from copy import copy
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_regal._compat import BaseNotifier, in_thread
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.operators._rendering import render_as_text

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_regal._compat import Context

_log = logging.getLogger(__name__)


class RegalNotifier(BaseNotifier):
    """Send one track event about a person when something happens to a task or DAG.

    .. code-block:: python

        RegalNotifier(
            event="Nightly Sync Failed",
            user_id="on-call",
            properties={"dag": "{{ dag.dag_id }}", "run": "{{ run_id }}"},
        )

    The event is never sent twice (``at_most_once``). If it can't be sent, the reason is logged in one ERROR line and
    nothing is raised: a notifier never fails a task or DAG.

    :param event: the event's name, case sensitive in Regal's triggers (templated).
    :param user_id: your own id of the person (templated). At least one of ``user_id``, ``phone`` and ``email`` is
        needed.
    :param phone: the person's phone, any spelling, region US (templated).
    :param email: the person's email (templated).
    :param properties: details of the event (templated). Rendered values are text.
    :param message_id: sends the event once per account, however often the callback runs (templated).
    :param regal_conn_id: connection of type ``regal`` (templated).
    :param ledger_conn_id: connection of the ledger's database; by default that of ``[regal] ledger_conn_id``, else an
        SQLite file in Airflow's home (templated).
    :param outage_patience: seconds or ``timedelta`` for which the event is retried while Regal is unavailable.
    :raises ValueError: no person or event is named, or an option is invalid.
    """

    template_fields: Sequence[str] = (
        "event", "user_id", "phone", "email", "properties", "message_id", "regal_conn_id", "ledger_conn_id",
    )  # fmt: skip

    def __init__(
        self,
        *,
        event: str,
        user_id: str | None = None,
        phone: str | None = None,
        email: str | None = None,
        properties: Mapping[str, Any] | None = None,
        message_id: str | None = None,
        regal_conn_id: str = "regal_default",
        ledger_conn_id: str | None = None,
        outage_patience: timedelta | float = 60.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(event, str) or not event.strip():
            raise ValueError("event must be the name of an event")
        if user_id is None and phone is None and email is None:
            raise ValueError("name the person: user_id, phone or email")
        settings = DeliverySettings.of(call="track", outage_patience=outage_patience)
        self.event = event
        self.user_id = user_id
        self.phone = phone
        self.email = email
        self.properties = properties
        self.message_id = message_id
        self.regal_conn_id = regal_conn_id
        self.ledger_conn_id = ledger_conn_id
        self.outage_patience_s = settings.outage_patience_s

    def __call__(self, *args: Any) -> None:
        """Send the event, as an Airflow callback.

        Renders a copy: rendering overwrites the templates, and one notifier may serve many tasks.
        """
        super(RegalNotifier, copy(self)).__call__(*args)

    def _render(self, template: jinja2.Template, context: Context, dag: Any = None) -> str:
        return render_as_text(template, context)

    def notify(self, context: Context) -> None:
        """Send the event. Never raises: if a deadline callback fails, Airflow logs its arguments."""
        from airflow_provider_regal.hooks.regal import RegalHook

        written: dict[str, Any] = {
            "user_id": self.user_id,
            "phone": self.phone,
            "email": self.email,
            "message_id": self.message_id,
        }
        try:
            hook = RegalHook(
                self.regal_conn_id, outage_patience_s=self.outage_patience_s, ledger_conn_id=self.ledger_conn_id
            )
            hook.context = context if "ti" in context else None
            hook.track(
                self.event,
                properties=dict(self.properties or {}),
                **{name: value for name, value in written.items() if value is not None},
            )
        except RegalError as error:
            _log.error("The event of this notification was not delivered: %s", error)
        except Exception as error:  # noqa: BLE001 - whatever it is, its text may hold values
            _log.error("The event of this notification was not delivered (%s)", type(error).__name__)

    async def async_notify(self, context: Context) -> None:
        """Send the event from a trigger, such as a deadline's, in a thread: other triggers share the event loop."""
        await in_thread(self.notify, context)


#: Like Airflow's own notifiers, this one also has a function name.
send_regal_notification = RegalNotifier
