"""Deliver a query's rows to Regal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_regal.operators._query import check_interval, check_query, open_query
from airflow_provider_regal.operators.bulk import RegalBulkOperator

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.delivery import Rows


class SqlToRegalOperator(RegalBulkOperator):
    """Deliver the rows of a query: contacts by identify, events by track, page or screen.

    .. code-block:: python

        SqlToRegalOperator(
            task_id="contacts",
            sql="SELECT id AS user_id, phone, first_name, plan FROM customers",
            sql_conn_id="warehouse",
            call="identify",
        )

    The column names determine what becomes of each column: see the page *From SQL to Regal*. The result is read
    completely before the first event is sent, with a server-side cursor if the driver has one.

    :param sql: one query, or the path of a ``.sql`` file (templated).
    :param sql_conn_id: connection of any database with a DB-API hook (templated).
    :param parameters: of the query, in the driver's format (templated).
    :param sql_hook_params: passed to the database's hook.
    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators.bulk.RegalBulkOperator`, and of any
        task.
    """

    template_fields: Sequence[str] = (*RegalBulkOperator.template_fields, "sql", "sql_conn_id", "parameters")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json"}

    def __init__(
        self,
        *,
        sql: str,
        sql_conn_id: str,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        sql_hook_params: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_query(sql)
        super().__init__(**kwargs)
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.parameters = parameters
        self.sql_hook_params = sql_hook_params

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        # Before rendering: afterwards it can't be seen whether the query uses the interval.
        if parent is self:
            check_interval(context, self.sql, self.parameters)
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    def source(self) -> tuple[str, ...]:
        """Identify the query."""
        return ("sql", self.sql_conn_id, self.sql, repr(self.parameters))

    def lineage_inputs(self) -> list[Any]:
        """Return the tables of the query."""
        from airflow_provider_regal.assets._lineage import tables_of

        return tables_of(self.sql_conn_id, self.sql, self.sql_hook_params)

    def open_rows(self, context: Context) -> Rows:
        """Run the query."""
        return open_query(self.sql_conn_id, self.sql, self.parameters, self.sql_hook_params)
