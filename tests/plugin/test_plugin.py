"""What Airflow finds of the pages, and its cost if no page is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution

from airflow_provider_regal.plugin import RegalPlugin


def test_airflow_finds_it_by_the_entry_point():
    (entry,) = distribution("airflow-provider-regal").entry_points.select(group="airflow.plugins")
    assert entry.load() is RegalPlugin


def test_workers_load_it_without_what_only_pages_need():
    code = (
        "import sys, json; from airflow_provider_regal._compat import AirflowPlugin; before = set(sys.modules);"
        "import airflow_provider_regal.plugin; print(json.dumps(sorted(set(sys.modules) - before)))"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout.splitlines()[-1]) == ["airflow_provider_regal.plugin"]


def test_its_pages_are_in_the_navigation_and_a_tab_of_task_instances():
    ((app,), views) = RegalPlugin.fastapi_apps, RegalPlugin.external_views
    assert app["url_prefix"] == "/regal"
    assert {view["destination"]: view["href"].partition("?")[0] for view in views} == {
        "nav": "/regal/",
        "task_instance": "/regal/task",
    }
    assert len({view["url_route"] for view in views}) == 2


def test_airflow_takes_both_views_as_they_are():
    from airflow.api_fastapi.core_api.datamodels.plugins import ExternalViewResponse

    for view in RegalPlugin.external_views:
        assert ExternalViewResponse(**view).href == view["href"]


def test_below_a_base_url_with_a_path_the_pages_are_asked_for_there():
    code = (
        "from airflow_provider_regal.plugin import RegalPlugin;"
        "print([view['href'].partition('?')[0] for view in RegalPlugin.external_views])"
    )
    import os

    env = {**os.environ, "AIRFLOW__API__BASE_URL": "https://example.com/airflow/"}
    ran = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, timeout=120, check=False
    )
    assert ran.stdout.splitlines()[-1] == "['/airflow/regal/', '/airflow/regal/task']"
