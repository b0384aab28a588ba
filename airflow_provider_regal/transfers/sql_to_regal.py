"""A query's rows to Regal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, Final

from airflow_provider_regal._compat import AirflowFailException, BaseHook
from airflow_provider_regal.delivery.run import Rows
from airflow_provider_regal.operators._bulk import RegalBulkOperator

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_regal._compat import Context

_ROWS_A_FETCH: Final = 1_000


class SqlToRegalOperator(RegalBulkOperator):
    """Deliver the rows of a query: contacts by identify, events by track, page or screen.

    .. code-block:: python

        SqlToRegalOperator(
            task_id="contacts",
            sql="SELECT id AS user_id, phone, first_name, plan FROM customers",
            sql_conn_id="warehouse",
            call="identify",
        )

    The column names say what becomes of each column; see :mod:`airflow_provider_regal.events.mapping`. The result is
    read with a server-side cursor where the driver has one, completely, before the first event is sent.

    :param sql: one query, or the path of a ``.sql`` file (templated).
    :param sql_conn_id: connection of any database with a DB-API hook (templated).
    :param parameters: of the query, as the driver takes them (templated).
    :param sql_hook_params: passed to the database's hook.
    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators._bulk.RegalBulkOperator`, and of any
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
        # Before rendering: afterwards nobody can tell an empty interval from a query that never used one.
        if parent is self and "data_interval" in f"{self.sql}{self.parameters}":
            check_interval(context)
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    def source(self) -> tuple[str, ...]:
        """Name the query."""
        return ("sql", self.sql_conn_id, self.sql, repr(self.parameters))

    def open_rows(self, context: Context) -> Rows:
        """Run the query."""
        connection: Any = BaseHook.get_connection(self.sql_conn_id)
        hook = connection.get_hook(hook_params=dict(self.sql_hook_params or {}))
        if not hasattr(hook, "get_conn") or not hasattr(hook, "run"):
            raise TypeError(f"The connection {self.sql_conn_id!r} is not one of a database: {type(hook).__name__}")
        return read_query(hook.get_conn(), self.sql, self.parameters)


def check_interval(context: Context) -> None:
    """Refuse a data interval that holds nothing.

    :raises AirflowFailException: with the explanation.
    """
    start, end = context.get("data_interval_start"), context.get("data_interval_end")
    if start is not None and end is not None and start < end:
        return
    why = "has none, as manual runs on Airflow 3 do" if start is None or end is None else "has an empty one"
    raise AirflowFailException(
        f"The query uses the data interval, but this run {why}. Give the DAG "
        "schedule=CronDataIntervalTimetable('0 0 * * *', timezone='UTC') - on Airflow 3 a plain cron schedule has "
        "intervals without length - and trigger it by hand with a logical date, or backfill it."
    )


def read_query(connection: Any, sql: str, parameters: Any = None) -> Iterator[Mapping[str, Any]]:
    """Give the rows of a query as dictionaries, a thousand at a time.

    :param connection: of the database's driver; closed in the end.
    :raises ValueError: the query gives no rows, or two columns of one name.
    """
    with closing(connection), closing(streaming_cursor(connection)) as cursor:
        cursor.arraysize = _ROWS_A_FETCH
        cursor.execute(sql, parameters) if parameters is not None else cursor.execute(sql)
        fetched = cursor.fetchmany(_ROWS_A_FETCH)
        if cursor.description is None:
            raise ValueError("The SQL gives no rows; it must be one query.")
        columns = [column[0] for column in cursor.description]
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise ValueError(f"The query gives two columns named {', '.join(map(repr, twice))}; name each with AS.")
        while fetched:
            for row in fetched:
                yield dict(zip(columns, row, strict=True))
            fetched = cursor.fetchmany(_ROWS_A_FETCH)


def streaming_cursor(connection: Any) -> Any:
    """Make a cursor that leaves the result on the server, where the driver's usual one would fetch all of it."""
    driver = type(connection).__module__.partition(".")[0]
    if driver in ("psycopg2", "psycopg"):
        return connection.cursor(name="airflow_provider_regal")
    if driver in ("MySQLdb", "pymysql"):
        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()
