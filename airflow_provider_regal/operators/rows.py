"""Deliver rows from Python: a list, the output of an upstream task, or the result of a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_regal.operators.bulk import RegalBulkOperator

if TYPE_CHECKING:
    from airflow_provider_regal._compat import BaseOperator, Context
    from airflow_provider_regal.delivery.delivery import Rows


class RegalRowsOperator(RegalBulkOperator):
    """Deliver a list of rows, or the output of an upstream task.

    .. code-block:: python

        RegalRowsOperator(task_id="lessons", call="track", event="Lesson Booked", rows=[{"user_id": "anne"}])

    :param rows: a list of dictionaries, one dictionary, or the output of an upstream task. Never rendered. Airflow
        stores what a DAG file contains and what tasks return, so read customer data from a source instead.
    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators.bulk.RegalBulkOperator`, and of any
        task.
    """

    def __init__(self, *, rows: Rows | Callable[[], Rows] | Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rows = rows
        set_upstream_of(self, rows)

    def source(self) -> tuple[str, ...]:
        """Identify the task: its rows have no other name."""
        return ("rows", self.task_id)

    def open_rows(self, context: Context) -> Rows:
        """Resolve what an upstream task returned, or call the function."""
        return resolved(self.rows, context)


def set_upstream_of(task: BaseOperator, rows: Any) -> None:
    """Set the task that returns the rows as upstream. ``rows`` is not a template field, since those are stored."""
    if hasattr(rows, "operator") and hasattr(rows, "resolve"):
        task.set_upstream(rows.operator)


def resolved(rows: Any, context: Context) -> Rows:
    """Return the rows, whatever their type."""
    if hasattr(rows, "resolve"):
        rows = rows.resolve(context)
    elif callable(rows):
        rows = rows()
    if rows is None:
        return []
    return [rows] if isinstance(rows, Mapping) else rows  # .expand(rows=...) passes a single dictionary
