"""OpenLineage events of a bulk task: the tables or files it read, what it changed in Regal, and counts.

Imported only when Airflow's OpenLineage provider asks. Contains no rows, no values, and no SQL: its literals may be
personal.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import attrs

from airflow_provider_regal._compat import BaseHook, openlineage_classes

if TYPE_CHECKING:
    from airflow_provider_regal.assets.regal import Data
    from airflow_provider_regal.delivery.report import DeliveryReport

_log = logging.getLogger(__name__)
_MAGIC: Final = re.compile(r"[*?\[]")
_BIGQUERY: Final = ("google_cloud_platform", "gcpbigquery")
_COUNTS: Final = ("read", "acknowledged", "rejected", "unknown", "skipped", "left", "requests", "outages")
FACET: Final = "regal_delivery"


def lineage_of(inputs: Iterable[Any], outputs: Sequence[Data], report: DeliveryReport | None) -> Any:
    """Return what Airflow's OpenLineage provider expects from an operator.

    :param inputs: datasets, as :func:`tables_of` and :func:`files_of` return them.
    :param outputs: what the task changes in Regal.
    :param report: of the delivery, once it has ended.
    """
    operator_lineage, _ = openlineage_classes()
    facets = {} if report is None else {FACET: _counts_facet(report)}
    rows = None if report is None or len(outputs) != 1 else report.acknowledged
    return operator_lineage(
        inputs=list(inputs), outputs=[_output(data, rows) for data in outputs], run_facets=facets, job_facets={}
    )


def tables_of(conn_id: str, sql: str, hook_params: Mapping[str, Any] | None) -> list[Any]:
    """Return the tables that a query reads, with names in the format of the database's own provider, if possible.

    If the query or the connection can't be understood, return an empty list and log a line at DEBUG.
    """
    try:
        return _tables_of(conn_id, sql, dict(hook_params or {}))
    except Exception as error:  # noqa: BLE001 - of Airflow, a driver or the parser: lineage must not fail a task
        _log.debug("The tables of the query are not known (%s)", type(error).__name__)
        return []


def _tables_of(conn_id: str, sql: str, hook_params: dict[str, Any]) -> list[Any]:
    _, sql_parser = openlineage_classes()
    connection: Any = BaseHook.get_connection(conn_id)
    hook: Any = connection.get_hook(hook_params=hook_params)
    info = hook.get_openlineage_database_info(connection) if hasattr(hook, "get_openlineage_database_info") else None
    if info is not None:
        parser = sql_parser(hook.get_openlineage_database_dialect(connection), hook.get_openlineage_default_schema())
        found = parser.generate_openlineage_metadata_from_sql(
            sql=sql, hook=hook, database_info=info, use_connection=False
        )
        return list(found.inputs)
    parsed = sql_parser("bigquery" if connection.conn_type in _BIGQUERY else "generic").parse(sql=[sql])
    if connection.conn_type in _BIGQUERY:
        namespace = "bigquery"
    else:
        port = f":{connection.port}" if connection.port else ""
        namespace = f"{connection.conn_type}://{connection.host or ''}{port}"
    return [_dataset("Dataset", namespace, table.qualified_name) for table in (parsed.in_tables if parsed else ())]


def files_of(paths: Iterable[str]) -> list[Any]:
    """Return the files at paths and URIs; for a glob, the folder above its first wildcard."""
    return [_dataset("Dataset", *_place_of(path)) for path in dict.fromkeys(paths)]


def _place_of(path: str) -> tuple[str, str]:
    fixed, *magic = _MAGIC.split(path, maxsplit=1)
    if magic:
        fixed = fixed.rpartition("/")[0]
    parts = urlsplit(fixed)
    if parts.scheme in ("", "file"):
        return "file", parts.path or "/"
    bucket = parts.netloc.rpartition("@")[2]  # without the connection
    return f"{parts.scheme}://{bucket}", parts.path.removeprefix("/") or "/"


def _output(data: Data, rows: int | None) -> Any:
    facets = {}
    if rows is not None:
        facets["outputStatistics"] = _client(
            "facet_v2"
        ).output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
    return _dataset("OutputDataset", data.namespace, data.name, outputFacets=facets)


def _dataset(kind: str, namespace: str, name: str, **facets: Any) -> Any:
    return getattr(_client("event_v2"), kind)(namespace=namespace, name=name, **facets)


def _counts_facet(report: DeliveryReport) -> Any:
    """Make the facet with the counts; its class is defined here because OpenLineage may not be installed."""
    counts = {name: getattr(report, name) for name in _COUNTS}
    fields = {name: attrs.field(default=None) for name in ("delivery", "status", *counts)}
    made: Any = attrs.make_class("RegalDeliveryRunFacet", fields, bases=(_client("facet_v2").RunFacet,), kw_only=True)
    return made(delivery=report.delivery, status=report.status, **counts)


def _client(module: str) -> Any:
    return import_module(f"openlineage.client.{module}")
