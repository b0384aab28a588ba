"""Open the rows of a task of a DAG, of a query, or of a file, outside a task.

::

    --dag, --task ─▶ process the DAG file ─▶ the task ─▶ render its templates for a run ─┐
    --sql, --file ─▶ the operator a DAG would have ──────────────────────────────────────┴▶ RowSource
"""

from __future__ import annotations

import argparse
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sized
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import StringIO
from math import prod
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal._compat import (
    dag_folders,
    parse_dags,
    render_templates,
    stored_dag_file,
    stored_run,
    stored_xcom,
    template_tools,
    timetable_of,
)
from airflow_provider_regal.cli.opening import CommandError
from airflow_provider_regal.hooks._delivering import given_rows, read_file
from airflow_provider_regal.operators._event import RegalEventOperator
from airflow_provider_regal.operators.bulk import RegalBulkOperator
from airflow_provider_regal.operators.redeliver import RegalRedeliverOperator
from airflow_provider_regal.sources import SourceError
from airflow_provider_regal.transfers.file_to_regal import FileToRegalOperator
from airflow_provider_regal.transfers.sql_to_regal import SqlToRegalOperator

if TYPE_CHECKING:
    from airflow_provider_regal.delivery.settings import DeliverySettings

RegalOperator = RegalBulkOperator | RegalEventOperator
_RUN: Final = "try"
_OF_RUN: Final = (
    "run_id", "run_type", "conf", "logical_date", "data_interval_start", "data_interval_end", "run_after",
    "start_date", "end_date", "queued_at", "state",
)  # fmt: skip


@dataclass(frozen=True)
class RowSource:
    """Rows, and how they are delivered.

    :param name: its name, for people.
    :param open: opens the rows; they are read on demand.
    :param conn_id: connection of type ``regal``.
    :param ledger_conn_id: the ledger's database; None for the configured one.
    :param dag_id: of the task; None for a query or a file.
    :param task_id: of the task; None for a query or a file.
    """

    name: str
    open: Callable[[], Iterator[Any]] = field(repr=False)
    settings: DeliverySettings = field(repr=False)
    conn_id: str
    ledger_conn_id: str | None
    dag_id: str | None = None
    task_id: str | None = None


def source_of(args: argparse.Namespace, *, checks_contract: bool = True) -> RowSource:
    """Find the source that arguments name.

    :param checks_contract: load the contract of the task, so that rows are checked against it.
    :raises CommandError: there is none, or its templates can't be rendered.
    :raises ValueError: an option is invalid.
    """
    if args.dag is not None:
        moment = args.logical_date.moment if args.logical_date else None
        source = of_task(args.dag, args.task, run_id=args.run_id, logical_date=moment, map_index=args.map_index)
        how, contract = source.settings.mapping, source.settings.contract
        if contract is not None and checks_contract:
            contract.load(read_file, call=how.call, event=how.event)
        return source
    options = {
        "event": args.event,
        "mapping": json_object("--mapping", args.mapping),
        "regal_conn_id": args.conn_id or "regal_default",
        "ledger_conn_id": args.ledger_conn_id,
    }
    if args.sql is not None:
        return of_query(args.sql, args.sql_conn_id, call=args.call, **options)
    return of_file(args.file, args.format, call=args.call, **options)


def json_object(option: str, text: str | None) -> dict[str, Any] | None:
    """Parse an option that is a JSON object.

    :raises CommandError: it is not a JSON object.
    """
    if text is None:
        return None
    try:
        found = json.loads(text)
    except ValueError as error:
        raise CommandError(f"{option} is not JSON: {error}. Quote it for the shell: '{{\"name\": 1}}'") from None
    if not isinstance(found, dict):
        raise CommandError(f"{option} must be an object of JSON, such as '{{\"name\": 1}}'")
    return found


def of_query(sql: str, sql_conn_id: str, **options: Any) -> RowSource:
    """Return the rows of a query.

    :param options: see :class:`~airflow_provider_regal.transfers.sql_to_regal.SqlToRegalOperator`.
    """
    operator = SqlToRegalOperator(task_id=_RUN, sql=sql, sql_conn_id=sql_conn_id, **options)
    return _of_operator(operator, f"the query on {sql_conn_id}", {})


def of_file(path: str, file_format: Any = None, **options: Any) -> RowSource:
    """Return the rows of files.

    :param path: a path, URI or glob.
    :param file_format: by default that of the path's ending, such as ``.csv.gz``, else ``jsonl``.
    :param options: see :class:`~airflow_provider_regal.transfers.file_to_regal.FileToRegalOperator`.
    """
    name = path
    if "://" not in path:
        path = str(Path(path).absolute())
    if file_format is None:
        ending = Path(path.removesuffix(".gz")).suffix.removeprefix(".")
        file_format = ending if ending in ("csv", "parquet") else "jsonl"
    return _of_operator(FileToRegalOperator(task_id=_RUN, path=path, format=file_format, **options), name, {})


def of_task(
    dag_id: str, task_id: str, *, run_id: str | None = None, logical_date: datetime | None = None, map_index: int = -1
) -> RowSource:
    """Return the rows of a task, with its templates rendered for a run.

    :param run_id: a run in Airflow's database; None renders them as for a run triggered by hand.
    :param logical_date: of such a run; None for now.
    :param map_index: which instance of a mapped task.
    :raises CommandError: there is no such task or run, it has no rows of its own, or its templates need more.
    """
    dag = _find_dag(dag_id)
    task = _regal_task(dag, task_id)
    if (_class_of(task) is not type(task)) != (map_index >= 0):
        raise CommandError(
            f"{task_id} is not mapped: leave --map-index out"
            if map_index >= 0
            else f"{task_id} is a mapped task: name one of its instances with --map-index, such as --map-index 0"
        )
    if map_index >= 0 and (count := _instances(task)) is not None and map_index >= count:
        raise CommandError(f"{task_id} has the instances 0 to {count - 1}, and no {map_index}")
    run = _stored(dag_id, run_id) if run_id else _imagined(dag, logical_date or datetime.now(UTC))
    context = _context(dag, task, run, map_index, is_stored=run_id is not None)
    try:
        with _quiet():
            render_templates(task, context)
    except CommandError:
        raise
    except Exception as error:  # noqa: BLE001 - a template may raise anything
        hint = "" if run_id else f" Name a run that has what it needs with --run-id: airflow dags list-runs {dag_id}"
        raise CommandError(
            f"The templates of {dag_id}.{task_id} can't be rendered: {type(error).__name__}: {error}.{hint}"
        ) from None
    return _of_operator(context["task"], f"the task {dag_id}.{task_id}, run {run.run_id}", context)


def _of_operator(operator: RegalOperator, name: str, context: Any) -> RowSource:
    return RowSource(
        name=name,
        open=lambda: _rows_of(operator, context),
        settings=operator.settings(),
        conn_id=operator.regal_conn_id,
        ledger_conn_id=operator.ledger_conn_id,
        dag_id=context["dag"].dag_id if context else None,
        task_id=operator.task_id if context else None,
    )


def _rows_of(operator: RegalOperator, context: Any) -> Iterator[Any]:
    """Return the rows; report any error of their source as one error for people, as a delivery does.

    :raises CommandError: the source can't be read.
    """
    try:
        yield from given_rows(lambda: operator.open_rows(context), passing=(CommandError,))
    except SourceError as error:
        raise CommandError(f"The source can't be read: {error}") from None


# -- the DAG ----------------------------------------------------------------------------------------------------------


def _find_dag(dag_id: str) -> Any:
    """Process DAG files until one has the DAG, starting with the one in Airflow's database."""
    known = None
    with suppress(Exception):  # the database may be unreachable; the folders are authoritative
        known = stored_dag_file(dag_id)
    wrong: dict[str, str] = {}
    looked = []
    with _quiet():
        for path in (*([known] if known and Path(known).exists() else ()), *dag_folders()):
            looked.append(path)
            dags, errors = parse_dags(path)
            wrong.update(errors)
            if dag_id in dags:
                return dags[dag_id]
    raise CommandError(
        f"There is no DAG {dag_id!r} in {', '.join(looked)}. Check the id, AIRFLOW_HOME and [core] dags_folder."
        + "".join(f"\n{file} can't be imported: {why.strip().splitlines()[-1]}" for file, why in wrong.items())
    )


def _regal_task(dag: Any, task_id: str) -> Any:
    ours = [one.task_id for one in dag.tasks if _is_ours(one)]
    task = dag.task_dict.get(task_id)
    if task is not None and _is_ours(task):
        return task
    there = f"Tasks of it with rows for Regal: {', '.join(ours)}" if ours else "None of its tasks has rows for Regal"
    if task is None:
        raise CommandError(f"The DAG {dag.dag_id} has no task {task_id!r}. {there}.")
    if issubclass(_class_of(task), RegalRedeliverOperator):
        raise CommandError(
            f"{task_id} sends dead letters again. Look at them with: airflow regal redeliver DELIVERY --dry-run"
        )
    raise CommandError(f"{dag.dag_id}.{task_id} is a {_class_of(task).__name__}, which has no rows for Regal. {there}.")


def _class_of(task: Any) -> type:
    mapped: Any = getattr(task, "operator_class", None)
    return mapped if isinstance(mapped, type) else type(task)


def _is_ours(task: Any) -> bool:
    kind = _class_of(task)
    return issubclass(kind, RegalOperator) and not issubclass(kind, RegalRedeliverOperator)


def _instances(task: Any) -> int | None:
    """Return how many instances a mapped task has; None if that is only known in a run."""
    given = task._get_specified_expand_input().value
    lengths = [given] if isinstance(given, Sized) and not isinstance(given, Mapping) else [*given.values()]
    return prod(map(len, lengths)) if all(isinstance(one, Sized) for one in lengths) else None


# -- the run ----------------------------------------------------------------------------------------------------------


def _imagined(dag: Any, logical_date: datetime) -> SimpleNamespace:
    """Return the run that a trigger by hand would create now."""
    moment = _for_templates(logical_date)
    interval = timetable_of(dag).infer_manual_data_interval(run_after=moment)
    run: dict[str, Any] = {
        **dict.fromkeys(_OF_RUN),
        "dag_id": dag.dag_id,
        "run_id": f"{_RUN}__{moment.isoformat()}",
        "run_type": "manual",
        "conf": {},
        "logical_date": moment,
        "data_interval_start": interval.start,
        "data_interval_end": interval.end,
        "run_after": moment,
        "start_date": _for_templates(datetime.now(UTC)),
    }
    return SimpleNamespace(**run)


def _stored(dag_id: str, run_id: str) -> SimpleNamespace:
    with _quiet():
        found = stored_run(dag_id, run_id)
    if found is None:
        raise CommandError(
            f"Airflow's database has no run {run_id!r} of {dag_id}. List them with: airflow dags list-runs {dag_id}"
        )
    return SimpleNamespace(dag_id=dag_id, **{name: _for_templates(getattr(found, name, None)) for name in _OF_RUN})


def _for_templates(value: Any) -> Any:
    """Return a time with the methods that templates may call."""
    import pendulum

    return pendulum.instance(value) if isinstance(value, datetime) else value


def _context(dag: Any, task: Any, run: SimpleNamespace, map_index: int, *, is_stored: bool) -> dict[str, Any]:
    """Build the template context as Airflow does for a task, except for what only a running task has."""
    ti = _Instance(task, run, map_index, is_stored=is_stored)
    at = run.logical_date
    times: dict[str, Any] = {}
    if at is not None:
        day, moment = at.strftime("%Y-%m-%d"), at.isoformat()
        times = {
            "logical_date": at,
            "execution_date": at,
            "ds": day,
            "ds_nodash": day.replace("-", ""),
            "ts": moment,
            "ts_nodash": at.strftime("%Y%m%dT%H%M%S"),
            "ts_nodash_with_tz": moment.replace("-", "").replace(":", ""),
            "data_interval_start": run.data_interval_start,
            "data_interval_end": run.data_interval_end,
        }
    return {
        **template_tools(dag, task, run.conf or {}),
        **times,
        "dag": dag,
        "task": task,
        "ti": ti,
        "task_instance": ti,
        "task_instance_key_str": f"{dag.dag_id}__{task.task_id}__{run.run_id}",
        "run_id": run.run_id,
        "dag_run": run,
        "expanded_ti_count": None,
        "inlets": task.inlets,
        "outlets": task.outlets,
    }


class _Instance(SimpleNamespace):
    """Replaces the task instance; reads the XComs of a stored run, and pushes none."""

    def __init__(self, task: Any, run: SimpleNamespace, map_index: int, *, is_stored: bool) -> None:
        super().__init__(
            dag_id=run.dag_id,
            task_id=task.task_id,
            run_id=run.run_id,
            map_index=map_index,
            try_number=1,
            max_tries=task.retries or 0,
            task=task,
            dag_run=run,
        )
        self._is_stored = is_stored

    def xcom_pull(
        self,
        task_ids: Any = None,
        dag_id: str | None = None,
        key: str = "return_value",
        *,
        map_indexes: Any = None,
        **_: Any,
    ) -> Any:
        """Return what a task pushed.

        :raises CommandError: there is no run, or the task pushed nothing.
        """
        if task_ids is not None and not isinstance(task_ids, str):
            return [self.xcom_pull(one, dag_id, key, map_indexes=map_indexes) for one in task_ids]
        wanted = (
            f"the output of the task {task_ids!r}" if key == "return_value" else f"the XCom {key!r} of {task_ids!r}"
        )
        if not self._is_stored:
            raise CommandError(
                f"{self.task_id} needs {wanted}, which only a run has. Name one in which it succeeded with --run-id: "
                f"airflow dags list-runs {self.dag_id}"
            )
        index = map_indexes if isinstance(map_indexes, int) else -1
        found = stored_xcom(dag_id or self.dag_id, self.run_id, task_ids or self.task_id, key, index)
        if not found:
            raise CommandError(
                f"{self.task_id} needs {wanted}, and the run {self.run_id} has none: has that task succeeded in it?"
            )
        return found[0]

    def get_relevant_upstream_map_indexes(self, *_: Any, **__: Any) -> None:
        """Return None, which selects all of them."""


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress what DAG files and Airflow print while they are loaded."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        # Airflow 3 logs with structlog, which ignores logging.disable.
        with redirect_stdout(StringIO()), redirect_stderr(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
