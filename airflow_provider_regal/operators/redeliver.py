"""Dead letters, sent again."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.operators._bulk import RegalBulkOperator
from airflow_provider_regal.operators._files import paths_of

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.sources.letters import Fix
    from airflow_provider_regal.hooks._redelivering import Redelivery

STATUSES: Final = ("rejected", "unknown")
_NOT_FOR_LETTERS: Final = ("call", "only_changed", "key", "sync")


class RegalRedeliverOperator(RegalBulkOperator):
    """Send the dead letters of run folders again, once they, or what refused them, are mended.

    .. code-block:: python

        RegalRedeliverOperator(
            task_id="again",
            path="contacts_and_events/*/events",
            fix=lambda row: {**row, "phone": row["phone"].replace("o", "0")},
        )

    Each letter is taken by one redelivery only, and every rule applies to it again: consent, age, the ledger. Beside
    the letter stands then what became of it; what is rejected anew is a dead letter of this task.

    :param path: of a run folder, of a folder of such, or a glob; or a list of them. Relative ones lie below
        ``[regal] storage_path``, which may be in a bucket; so may others: ``s3://conn_id@bucket/...`` (templated).
    :param status: ``rejected``, ``unknown``, or both. Naming ``unknown`` accepts that people are reached twice.
    :param fix: gets the payload of a letter, a row of its source where that could not be mapped, and gives what to
        send instead, or None to leave the letter where it is. It does not see the opt-ins of a sync.
    :param event: the name of track events whose rows do not hold it (templated).
    :param mapping: as in the delivery the letters are of, for rows that could not be mapped.
    :param types: likewise; so ``timezone``, ``send_nulls`` and ``column_names``.
    :param kwargs: every other parameter of :class:`~airflow_provider_regal.operators._bulk.RegalBulkOperator`, and of
        any task.
    """

    template_fields: Sequence[str] = (*RegalBulkOperator.template_fields, "path")

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        status: str | Collection[str] = "rejected",
        fix: Fix | None = None,
        event: str | None = None,
        mapping: Mapping[str, str | None] | None = None,
        types: Mapping[str, type] | None = None,
        **kwargs: Any,
    ) -> None:
        if odd := [name for name in _NOT_FOR_LETTERS if name in kwargs]:
            raise ValueError(f"{', '.join(odd)}: not for dead letters, which say themselves what they are")
        statuses = (status,) if isinstance(status, str) else tuple(status)
        if not statuses or not set(STATUSES).issuperset(statuses):
            raise ValueError(f"status must be of {', '.join(STATUSES)}, not {status!r}")
        super().__init__(call="track", event=event, mapping=mapping, types=types, **kwargs)
        self.path = path
        self.status = statuses
        self.fix = fix

    def delivery(self, context: Context, settings: DeliverySettings) -> Redelivery:
        """Prepare to deliver the letters."""
        from airflow_provider_regal.delivery.sources.letters import Choice
        from airflow_provider_regal.hooks._redelivering import Redelivery
        from airflow_provider_regal.hooks.regal import RegalHook

        return Redelivery(
            RegalHook(self.regal_conn_id),
            context=context,
            paths=paths_of(self.path),
            choice=Choice(self.status, self.fix),
            settings=settings,
            ledger_conn_id=self.ledger_conn_id,
        )
