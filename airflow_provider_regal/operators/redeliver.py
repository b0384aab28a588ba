"""Send dead letters again."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.delivery.settings import check_flag
from airflow_provider_regal.operators.bulk import RegalBulkOperator

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.delivery import OpenSource
    from airflow_provider_regal.delivery.settings import DeliverySettings
    from airflow_provider_regal.events.options import ColumnType, Target
    from airflow_provider_regal.sources.dead_letters import Fix

_STATUSES: Final = ("rejected", "unknown")
_NOT_FOR_LETTERS: Final = ("call", "only_changed", "key", "plan", "sync")


class RegalRedeliverOperator(RegalBulkOperator):
    """Send dead letters again, once their cause is fixed.

    .. code-block:: python

        RegalRedeliverOperator(
            task_id="again",
            from_dag="contacts_and_events",
            from_task="events",
            fix=lambda row: {**row, "phone": row["phone"].replace("o", "0")},
        )

    Name at least one of ``delivery``, ``from_dag``, ``from_task``, ``from_run``, ``since``, ``reason``; a letter has to
    match all that are named. Each letter is taken by only one redelivery, in a transaction, and all rules apply to it
    again: consent, age, the ledger. A letter that is rejected again becomes a dead letter of this task; the original
    stays on record.

    :param delivery: id of a delivery, or a list of them (templated).
    :param from_dag: only letters of this DAG; ``from_task`` and ``from_run`` work in the same way (templated).
    :param since: letters that first failed at this time or later: ISO 8601, UTC by default (templated).
    :param until: letters that first failed before this time (templated).
    :param reason: the reason of the letters, such as ``HTTP 400``, or the beginning of their message (templated).
    :param status: ``rejected`` (default), ``unknown``, or a list of both; as a string also ``both`` (templated). With
        ``unknown`` you accept that people may be reached twice.
    :param positions: numbers of the rows in ``delivery``, which must be a single one: a list, or a string such as
        ``212, 215``; empty for all (templated).
    :param fix: receives the payload of a letter (or the row of its source, if it could not be mapped), and returns what
        to send instead, or None to leave the letter where it is. Not called for the opt-ins of a sync.
    :param allow_empty: succeed if no letter matches; otherwise that fails the task.
    :param event: the name of track events whose rows do not hold it (templated).
    :param mapping: as in the letters' delivery, for rows that could not be mapped. ``types``, ``timezone``,
        ``send_nulls`` and ``column_names`` work in the same way.
    :param kwargs: every other parameter of :class:`~airflow_provider_regal.operators.bulk.RegalBulkOperator`, and of
        any task.
    """

    template_fields: Sequence[str] = (
        *RegalBulkOperator.template_fields, "delivery_ids", "from_dag", "from_task", "from_run", "since", "until",
        "reason", "status", "positions",
    )  # fmt: skip

    def __init__(
        self,
        *,
        delivery: int | str | Sequence[int | str] | None = None,
        from_dag: str | None = None,
        from_task: str | None = None,
        from_run: str | None = None,
        since: str | None = None,
        until: str | None = None,
        reason: str | None = None,
        status: str | Collection[str] = "rejected",
        positions: str | Sequence[int] = (),
        fix: Fix | None = None,
        allow_empty: bool = False,
        event: str | None = None,
        mapping: Mapping[str, Target] | None = None,
        types: Mapping[str, ColumnType] | None = None,
        **kwargs: Any,
    ) -> None:
        if odd := [name for name in _NOT_FOR_LETTERS if name in kwargs]:
            raise ValueError(f"{', '.join(odd)}: not for dead letters, each of which knows its own call; see dry_run")
        check_flag("allow_empty", allow_empty)
        if not _is_template(status):
            _statuses(status)
        if all(one is None for one in (delivery, from_dag, from_task, from_run, since, reason)):
            raise ValueError("name what to redeliver: delivery, from_dag, from_task, from_run, since or reason")
        if not _is_template(positions):
            _positions(positions, delivery)
        super().__init__(call="track", event=event, mapping=mapping, types=types, **kwargs)
        self.delivery_ids = delivery
        self.from_dag = from_dag
        self.from_task = from_task
        self.from_run = from_run
        self.since = since
        self.until = until
        self.reason = reason
        self.status = status if isinstance(status, str) else tuple(status)
        self.positions = positions
        self.fix = fix
        self.allow_empty = allow_empty

    def opener(self, context: Context, settings: DeliverySettings) -> OpenSource:
        """Return a function that takes over the letters."""
        from airflow_provider_regal.hooks.regal import RegalHook
        from airflow_provider_regal.ledger.outcomes import Selection
        from airflow_provider_regal.ledger.text import short
        from airflow_provider_regal.sources.dead_letters import Choice, read_dead_letters

        hook = RegalHook(self.regal_conn_id)
        selection = Selection(
            account=short(hook.target.account),
            deliveries=_ids(self.delivery_ids),
            dag_id=self.from_dag,
            task_id=self.from_task,
            run_id=self.from_run,
            since=_time(self.since),
            until=_time(self.until),
            reason=self.reason or None,
            status=_statuses(self.status),
            positions=_positions(self.positions, self.delivery_ids),
        )
        choice = Choice(selection, self.fix, self.allow_empty)
        looks_only = settings.dry_run or hook.dry_run
        return lambda held: read_dead_letters(
            held, choice, looks_only=looks_only, limit=settings.limit, restarts=settings.restart
        )

    def get_openlineage_facets_on_start(self) -> Any:
        """Return nothing: only the ledger knows the contacts and events of the letters."""
        return None

    def source(self) -> tuple[str, ...]:
        """Identify the letters: if they change between tries, rows can't be matched."""
        told = (self.delivery_ids, self.from_dag, self.from_task, self.from_run, self.since, self.until, self.reason)
        rows = map(str, sorted(_positions(self.positions, self.delivery_ids)))
        return ("dead letters", *map(str, told), *sorted(_statuses(self.status)), *rows)


def _is_template(given: object) -> bool:
    return isinstance(given, str) and "{{" in given


def _statuses(given: str | Collection[str]) -> tuple[str, ...]:
    """Return the requested statuses.

    :raises ValueError: a status does not exist.
    """
    several = _STATUSES if given == "both" else (given,) if isinstance(given, str) else tuple(given)
    if not several or not set(_STATUSES).issuperset(several):
        raise ValueError(f"status must be of {', '.join(_STATUSES)}, not {given!r}")
    return several


def _ids(given: int | str | Sequence[int | str] | None) -> tuple[int, ...]:
    if given is None:
        return ()
    many = [given] if isinstance(given, (int, str)) else given
    try:
        return tuple(int(one) for one in many)
    except (TypeError, ValueError):
        raise ValueError("delivery must be the id of a delivery, such as 17, or a list of them") from None


def _positions(given: str | Sequence[int], delivery: int | str | Sequence[int | str] | None) -> frozenset[int]:
    """Return the requested row numbers.

    :raises ValueError: they are not row numbers, or the letters are not of one delivery.
    """
    several = given.replace(",", " ").split() if isinstance(given, str) else given
    try:
        found = frozenset(int(one) for one in several)
    except (TypeError, ValueError):
        raise ValueError(f"positions must be numbers of rows, such as '212, 215', not {given!r}") from None
    if found and not _is_template(delivery) and len(_ids(delivery)) != 1:
        raise ValueError("positions are of one delivery: name it with delivery=")
    return found


def _time(given: str | None) -> str | None:
    from datetime import UTC, datetime

    from airflow_provider_regal.ledger.text import to_ledger_time

    if given is None:
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        raise ValueError("since and until must be times such as 2026-11-29 or 2026-11-29T08:00:00+00:00") from None
    return to_ledger_time(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
