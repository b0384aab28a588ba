"""The link of every operator to the page of its delivery."""

from __future__ import annotations

from importlib import import_module
from types import SimpleNamespace
from urllib.parse import parse_qs, urlsplit

import pytest

from airflow_provider_regal._compat import HAS_PAGES
from airflow_provider_regal.operators._link import LINKS, RegalDeliveryLink

OPERATORS = [
    ("operators.identify", "RegalIdentifyOperator"), ("operators.track", "RegalTrackOperator"),
    ("operators.page", "RegalPageOperator"), ("operators.screen", "RegalScreenOperator"),
    ("operators.rows", "RegalRowsOperator"), ("operators.opt_in", "RegalOptInSyncOperator"),
    ("operators.plan", "RegalSendPlanOperator"), ("operators.redeliver", "RegalRedeliverOperator"),
    ("transfers.sql_to_regal", "SqlToRegalOperator"), ("transfers.file_to_regal", "FileToRegalOperator"),
    ("decorators.regal", "_RegalDecoratedOperator"),
]  # fmt: skip
TI = SimpleNamespace(dag_id="crm sync", run_id="manual__2026-11-29T08:00:00+00:00", task_id="a&b", map_index=-1)


@pytest.mark.parametrize(("module", "name"), OPERATORS)
def test_every_operator_has_it_where_there_are_pages(module, name):
    operator = getattr(import_module(f"airflow_provider_regal.{module}"), name)
    links = [type(link) for link in operator.operator_extra_links]
    assert links == ([RegalDeliveryLink] if HAS_PAGES else [])


@pytest.mark.parametrize("base_url", ["", "https://airflow.example.com", "https://example.com/airflow/"])
def test_it_leads_below_airflows_base_url_to_the_task_instance(monkeypatch, base_url):
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", base_url)
    link = urlsplit(RegalDeliveryLink().get_link(None, ti_key=TI))
    assert f"{link.scheme}://{link.netloc}" == (base_url.removesuffix("/airflow/") or "://")
    assert link.path == ("/airflow/regal/task" if "/airflow/" in base_url else "/regal/task")
    assert parse_qs(link.query) == {
        "dag_id": ["crm sync"],
        "run_id": ["manual__2026-11-29T08:00:00+00:00"],
        "task_id": ["a&b"],
        "map_index": ["-1"],
    }


@pytest.mark.skipif(not HAS_PAGES, reason="there is no page to lead to")
def test_a_worker_stores_it_for_the_ui(run_dag, regal):
    from airflow import DAG
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    from airflow_provider_regal.operators.track import RegalTrackOperator

    with DAG("linked", schedule=None) as dag:
        RegalTrackOperator(task_id="one", event="Lesson Booked", user_id="anne")
    run = run_dag(dag)
    key = LINKS[0].xcom_key
    with create_session(scoped=False) as session:
        wanted = select(XComModel.value).where(XComModel.dag_id == "linked", XComModel.key == key)
        (value,) = session.scalars(wanted)
    assert f"/regal/task?dag_id=linked&run_id={run.run_id.replace('+', '%2B').replace(':', '%3A')}" in str(value)
