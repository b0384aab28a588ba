"""Sync opt-ins from any source: only changes are sent, opt-outs first."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal

from airflow_provider_regal.delivery.settings import DeliverySettings, SyncSettings
from airflow_provider_regal.delivery.sync.columns import check_columns
from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.events.options import Target, as_lists
from airflow_provider_regal.operators._files import check_csv, open_files, paths_of
from airflow_provider_regal.operators._query import check_interval, check_query, open_query
from airflow_provider_regal.operators.bulk import RegalBulkOperator
from airflow_provider_regal.operators.rows import resolved, set_upstream_of

if TYPE_CHECKING:
    import jinja2

    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.delivery import Rows
    from airflow_provider_regal.hooks._delivering import TaskDelivery

_FORMATS: Final = ("jsonl", "csv", "parquet")
_NOT_FOR_CONSENT: Final = (
    "call",
    "event",
    "types",
    "send_nulls",
    "on_invalid_phone",
    "on_invalid_email",
    "on_shared",
    "only_changed",
    "key",
    "suppress_named_events",
    "contract",
)


class RegalOptInSyncOperator(RegalBulkOperator):
    """Sync Regal's opt-ins with a table, file or list of consents; only changes are sent.

    .. code-block:: python

        RegalOptInSyncOperator(
            task_id="opt_ins",
            sql="SELECT phone, channel, subscribed, agreed_at AS timestamp, ip, wording AS text FROM consents",
            sql_conn_id="warehouse",
            initial="send",
        )

    A row is one consent: ``user_id, phone, email, channel, subscribed, timestamp, ip, text, source``; or several in the
    wide form ``sms_opt_in, sms_opt_in_at, sms_opt_in_ip, ...``. The newest decision for each phone or email and channel
    is compared with the ledger. Differences are sent, all opt-outs before the first opt-in.

    :param sql: one query, or the path of a ``.sql`` file (templated).
    :param sql_conn_id: connection of the database with the consents (templated).
    :param parameters: of the query (templated).
    :param sql_hook_params: passed to the database's hook.
    :param path: instead of ``sql``: a file, URI or glob, or a list of them (templated).
    :param format: of the files: ``jsonl``, ``csv`` or ``parquet``.
    :param delimiter: between the fields of CSV.
    :param encoding: of the text of CSV, such as ``cp1252`` or ``utf-16``.
    :param rows: instead of ``sql``: a list of rows, or the output of an upstream task. Never rendered.
    :param mapping: column -> what it holds (``timestamp``, ``sms_opt_in_at``), a list if it holds several of them, or
        None to ignore it.
    :param initial: what to do when no consent is on record yet: ``send`` sends all, ``baseline`` only records it;
        without it such a run fails. If an earlier run of the task left consents on record, the ledger was lost: the run
        then fails regardless of ``initial``, unless ``restart=True``.
    :param as_event: send opt-ins as a track event with this name, which Regal's team has set up as an opt-in. It needs
        a phone in the row, or one that Regal acknowledged for the contact. Opt-outs are always sent by identify.
    :param on_removed: ``opt_out`` withdraws consent that vanished from the source; by default it is only reported.
    :param full_resync: also send what did not change.
    :param max_change_ratio: send only opt-outs, and fail, if a larger share of the account's consents (and more than
        ten) would flip.
    :param known_to_regal: the rows come from Regal, for example from its webhooks: nothing is sent, and they are
        recorded so that nothing older is sent later. ``initial``, ``as_event``, ``on_removed`` and ``full_resync`` do
        not apply.
    :param kwargs: every other parameter of :class:`~airflow_provider_regal.operators.bulk.RegalBulkOperator`, and of
        any task.
    """

    template_fields: Sequence[str] = (*RegalBulkOperator.template_fields, "sql", "sql_conn_id", "parameters", "path")
    template_ext: Sequence[str] = (".sql",)
    template_fields_renderers: ClassVar[dict[str, str]] = {"sql": "sql", "parameters": "json"}

    def __init__(
        self,
        *,
        sql: str | None = None,
        sql_conn_id: str | None = None,
        parameters: Mapping[str, Any] | Sequence[Any] | None = None,
        sql_hook_params: Mapping[str, Any] | None = None,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None = None,
        format: Literal["jsonl", "csv", "parquet"] = "jsonl",  # noqa: A002 - the word users know
        delimiter: str = ",",
        encoding: str = "utf-8",
        rows: Any = None,
        mapping: Mapping[str, Target] | None = None,
        initial: Literal["send", "baseline"] | None = None,
        as_event: str | None = None,
        on_removed: Literal["opt_out"] | None = None,
        full_resync: bool = False,
        max_change_ratio: float | None = 0.5,
        known_to_regal: bool = False,
        **kwargs: Any,
    ) -> None:
        _check_source(sql, sql_conn_id, path, rows, {"parameters": parameters, "sql_hook_params": sql_hook_params})
        if format not in _FORMATS:
            raise ValueError(f"format must be one of {', '.join(_FORMATS)}, not {format!r}")
        check_csv(format if path is not None else None, delimiter, encoding)
        if as_event is not None and not as_event.strip():
            raise ValueError("as_event must be the name of an event, or None to send opt-ins by identify")
        check_columns(mapping or {})
        if odd := [name for name in _NOT_FOR_CONSENT if name in kwargs]:
            raise ValueError(f"{', '.join(odd)}: not for consents; a sync sends opt-ins and nothing else")
        super().__init__(call="identify" if as_event is None else "track", **kwargs)
        self._sync = SyncSettings(
            columns=as_lists(mapping or {}),
            initial=initial,
            as_event=as_event,
            on_removed=on_removed,
            full_resync=full_resync,
            max_change_ratio=max_change_ratio,
            known_to_regal=known_to_regal,
        )
        DeliverySettings.of(call=self.call, sync=self._sync, **self._options)  # report conflicting options immediately
        self._on_removed = on_removed
        self.sql = sql
        self.sql_conn_id = sql_conn_id
        self.parameters = parameters
        self.sql_hook_params = sql_hook_params
        self.path = path
        self.format = format
        self.delimiter = delimiter
        self.encoding = encoding
        self.rows = rows
        set_upstream_of(self, rows)

    def _do_render_template_fields(
        self,
        parent: Any,
        template_fields: Iterable[str],
        context: Context,
        jinja_env: jinja2.Environment,
        seen_oids: set[int],
    ) -> None:
        if parent is self:
            check_interval(context, self.sql, self.parameters, self.path)
        super()._do_render_template_fields(parent, template_fields, context, jinja_env, seen_oids)

    def delivery(self, context: Context, settings: DeliverySettings) -> TaskDelivery:
        """Prepare the delivery of the changes.

        :raises FixSourceError: with these options, removed consents can't be detected.
        """
        index = context["ti"].map_index
        if self._on_removed is not None and index is not None and index >= 0:
            raise FixSourceError(
                "on_removed='opt_out' is not for a mapped task: its parts may be others in the next run, and would opt "
                "out each other's people. Sync all of them in one task, such as with a list as path=; nothing was sent."
            )
        return super().delivery(context, settings)

    def source(self) -> tuple[str, ...]:
        """Identify the query, the files, or the task."""
        if self.sql is not None:
            return ("sql", str(self.sql_conn_id), self.sql, repr(self.parameters))
        if self.path is not None:
            return ("file", self.format, *paths_of(self.path))
        return ("rows", self.task_id)

    def lineage_inputs(self) -> list[Any]:
        """Return the tables of the query, or the files."""
        from airflow_provider_regal.assets._lineage import files_of, tables_of

        if self.sql is not None and self.sql_conn_id is not None:
            return tables_of(self.sql_conn_id, self.sql, self.sql_hook_params)
        return [] if self.path is None else files_of(paths_of(self.path))

    def open_rows(self, context: Context) -> Rows:
        """Run the query, find the files, or resolve what an upstream task returned."""
        if self.sql is not None and self.sql_conn_id is not None:
            return open_query(self.sql_conn_id, self.sql, self.parameters, self.sql_hook_params)
        if self.path is not None:
            return open_files(self.path, self.format, delimiter=self.delimiter, encoding=self.encoding)
        return resolved(self.rows, context)


def _check_source(sql: object, sql_conn_id: object, path: object, rows: object, of_sql: Mapping[str, object]) -> None:
    given = [name for name, value in (("sql", sql), ("path", path), ("rows", rows)) if value is not None]
    if len(given) != 1:
        raise ValueError(f"give one of sql, path and rows; here is {' and '.join(given) or 'none'}")
    if (sql is None) != (sql_conn_id is None):
        raise ValueError("sql and sql_conn_id belong together")
    check_query(sql)
    if sql is None and (odd := [name for name, value in of_sql.items() if value is not None]):
        raise ValueError(f"{', '.join(odd)}: for sql only")
