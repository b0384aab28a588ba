"""What docs/celery.md states about Airflow's settings matches the installed Airflow and its Celery provider."""

from __future__ import annotations

import pytest

from scripts.check_docs import PROJECT

pytestmark = pytest.mark.distributed
PAGE = (PROJECT / "docs" / "celery.md").read_text()


def said(setting):
    """Return the default that the page's table gives a setting."""
    line = next(line for line in PAGE.splitlines() if line.startswith(f"| `{setting}`"))
    return line.split("|")[2].strip()


def test_the_settings_of_celery_are_those_of_its_provider():
    from airflow.providers.celery.executors.default_celery import get_default_celery_config
    from airflow.providers.common.compat.sdk import conf

    config = get_default_celery_config(conf)
    visible_s = config["broker_transport_options"]["visibility_timeout"]
    assert said("[celery] task_acks_late") == str(config["task_acks_late"])
    assert said("[celery_broker_transport_options] visibility_timeout") == f"{visible_s:,} seconds"
    assert said("[celery] worker_prefetch_multiplier") == str(config["worker_prefetch_multiplier"])
    assert f"default `worker_concurrency` of {config['worker_concurrency']}" in PAGE
    assert said("[celery] operation_timeout") == f"{conf.getfloat('celery', 'operation_timeout'):g} second"


def test_the_settings_of_airflow_are_those_that_are_installed():
    from airflow.providers.common.compat.sdk import conf
    from airflow.sdk import BaseOperator

    task = BaseOperator(task_id="one")
    timeout_s = conf.getint("scheduler", "task_instance_heartbeat_timeout")
    assert said("[scheduler] task_instance_heartbeat_timeout") == f"{timeout_s} seconds"
    assert said("retries`, `retry_delay") == f"{task.retries}, {task.retry_delay.total_seconds():.0f} seconds"
