"""Read the rows of a query, from any database."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal._compat import AirflowException, AirflowFailException, BaseHook
from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.sources import BadSourceError

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context

_ROWS_A_FETCH: Final = 1_000
_BIGQUERY: Final = ("google_cloud_platform", "gcpbigquery")


def open_query(
    conn_id: str, sql: str, parameters: Any = None, hook_params: Mapping[str, Any] | None = None
) -> Iterator[Mapping[str, Any]]:
    """Run a query on an Airflow connection and return its rows.

    :param hook_params: passed to the database's hook.
    :raises BadSourceError: the connection is not a database connection.
    :raises RetryLaterError: the database can't be reached, or failed.
    """
    return read_query(_connect(conn_id, dict(hook_params or {})), sql, parameters)


def _connect(conn_id: str, hook_params: dict[str, Any]) -> Any:
    """Connect to the database, by its hook."""
    connection: Any = BaseHook.get_connection(conn_id)
    try:
        if connection.conn_type in _BIGQUERY:
            return _bigquery(conn_id, hook_params)
        hook = connection.get_hook(hook_params=hook_params)
        if hasattr(hook, "get_conn") and hasattr(hook, "run"):
            return hook.get_conn()
    except AirflowException:
        raise
    except Exception as error:  # noqa: BLE001 - whatever a hook or a driver raises
        from airflow_provider_regal.events.privacy import scrub

        kind = BadSourceError if isinstance(error, ValueError) else RetryLaterError
        # No row was read yet, so the text holds no value of one.
        why = f"{type(error).__name__}: {scrub(str(error), connection.password)}"
        raise kind(f"The connection {conn_id!r} can't be opened ({why}). Nothing was sent.") from None
    raise BadSourceError(f"The connection {conn_id!r} is not one of a database: {type(hook).__name__}")


def _bigquery(conn_id: str, hook_params: dict[str, Any]) -> Any:
    """Connect to BigQuery with Google's own driver: Airflow's cursor returns times as numbers, and raw lists.

    The type ``google_cloud_platform`` is shared by all Google services, and its hook does not support queries.
    """
    hooks: Any = import_module("airflow.providers.google.cloud.hooks.bigquery")
    driver: Any = import_module("google.cloud.bigquery.dbapi")
    hook = hooks.BigQueryHook(gcp_conn_id=conn_id, **hook_params)
    client = hook.get_client(project_id=hook.project_id, location=hook.location)
    return driver.connect(client=client, prefer_bqstorage_client=False)  # BigQuery Storage needs a separate permission


def check_query(sql: Any) -> None:
    """Reject a list of queries: each may return different columns.

    :raises ValueError: it is a list.
    """
    if isinstance(sql, (list, tuple, set)):
        raise ValueError("sql must be one query as text, not a list; combine them with UNION ALL")


def check_interval(context: Context, *templates: object) -> None:
    """Reject an empty data interval, if a template uses it.

    :raises AirflowFailException: with an explanation.
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
    """Return the rows of a query as dictionaries, fetched a thousand at a time.

    :param connection: of the database's driver; closed at the end.
    :raises BadSourceError: the query returns no rows, or two columns of one name.
    :raises RetryLaterError: the database failed.
    """
    try:
        yield from _read(connection, sql, parameters)
    except Exception as error:
        if not any(kind.__name__ == "Error" for kind in type(error).__mro__):  # the driver's, as defined in PEP 249
            raise
        from airflow_provider_regal.events.privacy import without_values

        problem = f"The query failed ({type(error).__name__}: {without_values(str(error))}). Nothing was sent."
    else:
        return
    raise RetryLaterError(problem)  # outside the handler, because its error contains values


def _read(connection: Any, sql: str, parameters: Any) -> Iterator[Mapping[str, Any]]:
    with closing(connection), closing(streaming_cursor(connection)) as cursor:
        cursor.arraysize = _ROWS_A_FETCH
        cursor.execute(sql, parameters) if parameters is not None else cursor.execute(sql)
        fetched = cursor.fetchmany(_ROWS_A_FETCH)
        if cursor.description is None:
            raise BadSourceError("The SQL returns no rows; it must be one query.")
        columns = [column[0] for column in cursor.description]
        twice = sorted({column for column in columns if columns.count(column) > 1})
        if twice:
            named = ", ".join(map(repr, twice))
            raise BadSourceError(f"The query returns two columns named {named}; name each with AS.")
        while fetched:
            if isinstance(fetched[0], Mapping):  # some connections make their driver return dictionaries
                yield from fetched
            else:
                yield from (dict(zip(columns, row, strict=True)) for row in fetched)
            fetched = cursor.fetchmany(_ROWS_A_FETCH)


def streaming_cursor(connection: Any) -> Any:
    """Make a server-side cursor, if the driver's usual one would fetch the whole result."""
    driver = type(connection).__module__.partition(".")[0]
    if driver in ("psycopg2", "psycopg"):
        return connection.cursor(name="airflow_provider_regal")
    if driver in ("MySQLdb", "pymysql"):
        return connection.cursor(import_module(f"{driver}.cursors").SSCursor)
    return connection.cursor()
