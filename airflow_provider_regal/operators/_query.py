"""Reading the rows of a query, whichever database it is of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal._compat import AirflowFailException, BaseHook

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context

_ROWS_A_FETCH: Final = 1_000


def open_query(
    conn_id: str, sql: str, parameters: Any = None, hook_params: Mapping[str, Any] | None = None
) -> Iterator[Mapping[str, Any]]:
    """Run a query on a connection of Airflow's and give its rows.

    :param hook_params: passed to the database's hook.
    :raises TypeError: the connection is not one of a database.
    """
    connection: Any = BaseHook.get_connection(conn_id)
    hook = connection.get_hook(hook_params=dict(hook_params or {}))
    if not hasattr(hook, "get_conn") or not hasattr(hook, "run"):
        raise TypeError(f"The connection {conn_id!r} is not one of a database: {type(hook).__name__}")
    return read_query(hook.get_conn(), sql, parameters)


def check_interval(context: Context, *templates: object) -> None:
    """Refuse a data interval that holds nothing, if a template uses it.

    :raises AirflowFailException: with the explanation.
    """
    if "data_interval" not in "".join(map(str, templates)):
        return
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
    """Return the rows of a query as dictionaries, a thousand at a time.

    :param connection: of the database's driver; closed in the end.
    :raises ValueError: the query gives no rows, or two columns of one name.
    """
    with closing(connection), closing(streaming_cursor(connection)) as cursor:
        cursor.arraysize = _ROWS_A_FETCH
        cursor.execute(sql, parameters) if parameters is not None else cursor.execute(sql)
        fetched = cursor.fetchmany(_ROWS_A_FETCH)
        if cursor.description is None:
            raise ValueError("The SQL returns no rows; it must be one query.")
        columns = [column[0] for column in cursor.description]
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            raise ValueError(f"The query returns two columns named {', '.join(map(repr, twice))}; name each with AS.")
        while fetched:
            if isinstance(fetched[0], Mapping):  # a connection can ask its driver for dictionaries
                yield from fetched
            else:
                yield from (dict(zip(columns, row, strict=True)) for row in fetched)
            fetched = cursor.fetchmany(_ROWS_A_FETCH)


def streaming_cursor(connection: Any) -> Any:
    """Make a cursor that leaves the result on the server, where the driver's usual one would fetch all of it."""
    driver = type(connection).__module__.partition(".")[0]
    if driver in ("psycopg2", "psycopg"):
        return connection.cursor(name="airflow_provider_regal")
    if driver in ("MySQLdb", "pymysql"):
        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()
