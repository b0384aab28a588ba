"""``@task.regal``: a function that returns or yields rows or events; the task delivers them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_regal._compat import (
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)
from airflow_provider_regal.operators.rows import RegalRowsOperator

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.delivery import Rows


class _RegalDecoratedOperator(DecoratedOperator, RegalRowsOperator):
    custom_operator_name = "@task.regal"
    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *RegalRowsOperator.template_fields)

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            rows=None,  # the function is called when the source is opened
            **kwargs,
        )

    def open_rows(self, context: Context) -> Rows:
        """Call the function. Its result is data and is never rendered."""
        context_merge(context, self.op_kwargs)
        self.rows = lambda: self.python_callable(
            *self.op_args, **determine_kwargs(self.python_callable, self.op_args, context)
        )
        return super().open_rows(context)

    def execute(self, context: Context) -> dict[str, Any]:
        """Deliver what the function returns or yields."""
        return RegalRowsOperator.execute(self, context)


def regal_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> Any:
    """Turn a function into a task that delivers the rows or events it returns or yields.

    .. code-block:: python

        @task.regal(call="track", event="Lesson Booked")
        def lessons():
            for lesson in booked_yesterday():
                yield {"user_id": lesson.student, "subject": lesson.subject}

    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators.bulk.RegalBulkOperator`, and of any
        task.
    """
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_RegalDecoratedOperator, **kwargs
    )
