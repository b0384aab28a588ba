"""The only file with Airflow's import paths: it provides the same names on Airflow 2.11 and on every 3.x.

Each block tries the paths of the Airflow version in its comment and falls back to those of earlier versions. Airflow's
own layer for this, ``airflow.providers.common.compat.sdk``, is newer than most released versions of Airflow: their
constraints pin a common-compat that lacks it, or lacks some of these names. What only commands need is imported when it
is called, because DAG files import this module.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from inspect import signature
from operator import attrgetter
from typing import Any
from urllib.parse import urlencode

from airflow import __version__ as _airflow_version

try:  # Airflow 3.0
    from airflow.sdk import BaseOperator, BaseOperatorLink, Context, ObjectStoragePath, get_current_context
    from airflow.sdk.bases.decorator import DecoratedOperator, task_decorator_factory
except ImportError:  # Airflow 2.11
    from airflow.decorators.base import DecoratedOperator, task_decorator_factory
    from airflow.io.path import ObjectStoragePath
    from airflow.models.baseoperator import BaseOperator
    from airflow.models.baseoperatorlink import BaseOperatorLink
    from airflow.operators.python import get_current_context
    from airflow.utils.context import Context

try:  # Airflow 3.0
    from airflow.sdk import BaseNotifier
except ImportError:  # Airflow 2.11
    from airflow.notifications.basenotifier import BaseNotifier

try:  # Airflow 3.1
    from airflow.sdk import BaseHook
    from airflow.sdk.definitions.context import context_merge
except ImportError:  # Airflow 2.11, 3.0
    from airflow.hooks.base import BaseHook
    from airflow.utils.context import context_merge

try:  # Airflow 3.2
    from airflow.sdk.bases.decorator import determine_kwargs
    from airflow.sdk.configuration import conf
    from airflow.sdk.exceptions import AirflowException, AirflowFailException
except ImportError:  # Airflow 2.11, 3.0, 3.1
    from airflow.configuration import conf
    from airflow.exceptions import AirflowException, AirflowFailException
    from airflow.utils.operator_helpers import determine_kwargs

try:  # Airflow 3.2
    from airflow.sdk.plugins_manager import AirflowPlugin
except ImportError:  # Airflow 2.11, 3.0, 3.1
    from airflow.plugins_manager import AirflowPlugin

try:  # Airflow 3.1, and the last of 3.0
    from airflow.sdk.log import mask_secret
except ImportError:
    try:  # Airflow 3.0
        from airflow.sdk.execution_time.secrets_masker import mask_secret
    except ImportError:  # Airflow 2.11
        from airflow.utils.log.secrets_masker import mask_secret


#: Airflow's UI shows plugin pages since 3.1.
HAS_PAGES = tuple(int(part) for part in _airflow_version.split(".")[:2]) >= (3, 1)


def openlineage_classes() -> tuple[Any, Any]:
    """Return ``OperatorLineage`` and ``SQLParser`` of Airflow's OpenLineage provider, which must be installed."""
    from airflow.providers.openlineage.extractors import OperatorLineage
    from airflow.providers.openlineage.sqlparser import SQLParser

    return OperatorLineage, SQLParser


def openlineage_dataset(namespace: str, name: str) -> Any:
    """Make an OpenLineage dataset; an empty one if OpenLineage is not installed."""
    from airflow.providers.common.compat.openlineage.facet import Dataset

    return Dataset(namespace=namespace, name=name)


async def in_thread(work: Callable[..., Any], *args: Any) -> Any:
    """Run work in a thread that may ask Airflow for connections: before 3.3, asyncio's own threads may not."""
    from asgiref.sync import sync_to_async  # a dependency of Airflow

    return await sync_to_async(work, thread_sensitive=False)(*args)


def airflow_stats() -> Any:
    """Return Airflow's metrics, as configured in the task process."""
    try:
        from airflow.sdk.observability.stats import Stats  # Airflow 3.2
    except ImportError:
        from airflow.stats import Stats
    return Stats


def dag_folders() -> Iterator[str]:
    """Return the folders of DAG files: the bundles of Airflow 3, the one folder of Airflow 2."""
    try:
        from airflow.dag_processing.bundles.manager import DagBundlesManager
    except ImportError:  # Airflow 2.11
        from airflow import settings

        yield str(settings.DAGS_FOLDER)
        return
    manager: Any = DagBundlesManager
    for bundle in manager().get_all_dag_bundles():
        bundle.initialize()
        yield str(bundle.path)


def parse_dags(path: str) -> tuple[dict[str, Any], dict[str, str]]:
    """Process the DAG files of a folder, or one file.

    :returns: DAG id -> DAG, and file -> why it could not be imported.
    """
    try:
        from airflow.dag_processing.dagbag import DagBag  # Airflow 3.1
    except ImportError:
        from airflow.models.dagbag import DagBag
    without_examples: Any = {"include_examples": False} if "include_examples" in signature(DagBag).parameters else {}
    bag = DagBag(path, **without_examples)
    return bag.dags, bag.import_errors


def timetable_of(dag: Any) -> Any:
    """Return the timetable of a parsed DAG, in the scheduler's form."""
    if hasattr(dag.timetable, "infer_manual_data_interval"):
        return dag.timetable
    from airflow.serialization import serialized_objects

    serialization: Any = getattr(
        serialized_objects, "DagSerialization", serialized_objects.SerializedDAG
    )  # from 3.2 on
    return serialization.from_dict(serialization.to_dict(dag)).timetable


def stored_dag_file(dag_id: str) -> str | None:
    """Return the file of a DAG, according to Airflow's database."""
    from airflow.models import DagModel

    found = DagModel.get_current(dag_id)
    return None if found is None else str(found.fileloc)


def stored_run(dag_id: str, run_id: str) -> Any:
    """Return a DAG run from Airflow's database; None if it does not exist."""
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session

    with create_session() as session:
        run = session.query(DagRun).filter_by(dag_id=dag_id, run_id=run_id).one_or_none()
        session.expunge_all()
        return run


def may_have_xcom(ti: Any, key: str) -> bool:
    """Return False if no run of a task has pushed an XCom: reading a missing one logs an error in Airflow 3."""
    try:
        from airflow.sdk.bases.xcom import BaseXCom
    except ImportError:  # Airflow 2.11 logs nothing
        return True
    if "include_prior_dates" not in signature(BaseXCom.get_all).parameters:  # Airflow 3.0
        return True
    # Without map_indexes it lists what exists, so nothing can be missing.
    return ti.xcom_pull(task_ids=ti.task_id, key=key, include_prior_dates=True) is not None


def stored_xcom(dag_id: str, run_id: str, task_id: str, key: str, map_index: int) -> list[Any]:
    """Return the value of an XCom in Airflow's database; an empty list if there is none."""
    from airflow.utils.session import create_session

    try:
        from airflow.models.xcom import XComModel as Stored
        from airflow.sdk.execution_time.xcom import XCom

        value_of: Any = XCom.deserialize_value
    except ImportError:  # Airflow 2.11
        from airflow.models.xcom import BaseXCom as Stored

        value_of = attrgetter("value")
    with create_session() as session:
        of_it = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "key": key, "map_index": map_index}
        return [value_of(one) for one in session.query(Stored).filter_by(**of_it)]


def template_tools(dag: Any, task: Any, conf_of_run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the part of the template context that does not depend on a run: macros, variables, connections, params."""
    try:
        from airflow.sdk.definitions.param import process_params
        from airflow.sdk.execution_time.context import ConnectionAccessor, MacrosAccessor, VariableAccessor

        macros: Any = MacrosAccessor()
    except ImportError:  # Airflow 2.11
        from airflow import macros
        from airflow.models.param import process_params
        from airflow.utils.context import ConnectionAccessor, VariableAccessor
    return {
        "macros": macros,
        "params": process_params(dag, task, dict(conf_of_run), suppress_exception=False),
        "conn": ConnectionAccessor(),
        "var": {"json": VariableAccessor(deserialize_json=True), "value": VariableAccessor(deserialize_json=False)},
    }


def render_templates(task: Any, context: Any) -> None:
    """Render the templates of a task outside a run; ``context["task"]`` of a mapped one is then its instance."""
    from importlib import import_module

    try:
        of_task: Any = import_module("airflow.utils.task_instance_session")
    except ImportError:
        task.render_template_fields(context)
        return
    from airflow.utils.session import create_session  # Airflow 2.11 looks for a session, or would keep its own open

    with create_session() as session, of_task.set_current_task_instance_session(session=session):
        task.render_template_fields(context)


# -- the API server, Airflow 3.1 and later ----------------------------------------------------------------------------


def signed_in_user() -> Any:
    """Return a FastAPI dependency for the user of a request; it answers 401 without a session."""
    from airflow.api_fastapi.core_api.security import get_user

    return get_user


def sign_in_url(back_to: str) -> str:
    """Return the sign-in page, which leads back afterwards."""
    from airflow.api_fastapi.app import get_auth_manager

    url = str(get_auth_manager().get_url_login())
    return f"{url}{'&' if '?' in url else '?'}{urlencode({'next': back_to})}"


def readable_dags(user: Any, dag_ids: Collection[str]) -> set[str]:
    """Return which of these DAGs a user may read; for deleted DAGs, by the permission for their id."""
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.models import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    wanted = {*dag_ids}
    readable: set[str] = get_auth_manager().get_authorized_dag_ids(user=user, method="GET")
    if (others := wanted - readable) and not conf.getboolean("core", "multi_team", fallback=False):
        with create_session(scoped=False) as session:
            known = {*session.scalars(select(DagModel.dag_id).where(DagModel.dag_id.in_(sorted(others))))}
        readable |= {one for one in others - known if may_use_dag(user, one, "GET")}
    return wanted & readable


def may_use_dag(user: Any, dag_id: str | None, method: Any, entity: str | None = None) -> bool:
    """Return whether a user may read (GET), change (PUT) or trigger (POST on RUN) a DAG.

    :param dag_id: None for the permission on all DAGs.
    :param entity: of the DAG, such as ``TASK_INSTANCE`` or ``RUN``.
    """
    from airflow.api_fastapi.app import get_auth_manager
    from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
    from airflow.models import DagModel

    details: Any = None
    if dag_id is not None:
        team_of: Any = getattr(DagModel, "get_team_name", None)  # from 3.2 on
        team = team_of(dag_id) if team_of and conf.getboolean("core", "multi_team", fallback=False) else None
        details = DagDetails(id=dag_id, **({"team_name": team} if team else {}))
    wanted = None if entity is None else DagAccessEntity[entity]
    allowed: bool = get_auth_manager().is_authorized_dag(
        method=method, access_entity=wanted, details=details, user=user
    )
    return allowed


def may_use_connections(user: Any, method: Any) -> bool:
    """Return whether a user may read (GET) or change (PUT) connections."""
    from airflow.api_fastapi.app import get_auth_manager

    allowed: bool = get_auth_manager().is_authorized_connection(method=method, user=user)
    return allowed


def is_paused(dag_id: str) -> bool | None:
    """Return whether a DAG is paused; None if it does not exist."""
    from airflow.models import DagModel

    found: Any = DagModel.get_current(dag_id)
    return None if found is None or getattr(found, "is_stale", False) else bool(found.is_paused)


#: DAG, run, task, map index.
TaskKey = tuple[str | None, str | None, str | None, int]


def task_states(keys: Collection[TaskKey]) -> dict[TaskKey, tuple[str | None, int]]:
    """Return the states of task instances and the numbers of their last tries, from Airflow's database."""
    from airflow.models.taskinstance import TaskInstance
    from airflow.utils.session import create_session
    from sqlalchemy import select, tuple_

    of_key = (TaskInstance.dag_id, TaskInstance.run_id, TaskInstance.task_id, TaskInstance.map_index)
    statement = select(*of_key, TaskInstance.state, TaskInstance.try_number).where(tuple_(*of_key).in_([*keys]))
    with create_session(scoped=False) as session:
        return {
            (dag_id, run_id, task_id, map_index): (None if state is None else str(state), int(try_number))
            for dag_id, run_id, task_id, map_index, state, try_number in session.execute(statement)
        }


def trigger_dag(dag_id: str, conf_of_run: Mapping[str, Any], user: Any) -> str:
    """Trigger a DAG on behalf of a user; return the id of the run.

    :raises ValueError: the DAG's params do not allow it.
    """
    from airflow.api.common.trigger_dag import trigger_dag as trigger
    from airflow.utils.types import DagRunTriggeredByType

    run: Any = trigger(
        dag_id, conf=dict(conf_of_run), triggered_by=DagRunTriggeredByType.UI, triggering_user_name=user.get_name()
    )
    return str(run.run_id)


def params_of_dag(dag_id: str) -> set[str]:
    """Return the names of a DAG's params, from Airflow's database."""
    from airflow.models.serialized_dag import SerializedDagModel

    dag: Any = SerializedDagModel.get_dag(dag_id)
    return set() if dag is None else set(dag.params)


def write_audit_log(user: Any, event: str, extra: Mapping[str, Any], **where: Any) -> None:
    """Write a line to Airflow's audit log.

    :param where: ``dag_id``, ``run_id``, ``task_id`` and ``map_index``, if known.
    """
    import json

    from airflow.models import Log
    from airflow.utils.session import create_session

    known = {name: value for name, value in where.items() if value is not None}
    with create_session(scoped=False) as session:
        session.add(Log(event=event, owner=user.get_name(), extra=json.dumps(dict(extra)), **known))


__all__ = [
    "HAS_PAGES",
    "AirflowException",
    "AirflowFailException",
    "AirflowPlugin",
    "BaseHook",
    "BaseNotifier",
    "BaseOperator",
    "BaseOperatorLink",
    "Context",
    "DecoratedOperator",
    "ObjectStoragePath",
    "TaskKey",
    "airflow_stats",
    "conf",
    "context_merge",
    "dag_folders",
    "determine_kwargs",
    "get_current_context",
    "in_thread",
    "is_paused",
    "mask_secret",
    "may_have_xcom",
    "may_use_connections",
    "may_use_dag",
    "openlineage_classes",
    "openlineage_dataset",
    "params_of_dag",
    "parse_dags",
    "readable_dags",
    "render_templates",
    "sign_in_url",
    "signed_in_user",
    "stored_dag_file",
    "stored_run",
    "stored_xcom",
    "task_decorator_factory",
    "task_states",
    "template_tools",
    "timetable_of",
    "trigger_dag",
    "write_audit_log",
]
