"""The place of a task instance while Airflow's task state store fails: the delivery goes on, and says what is lost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_regal.hooks._place import place_of
from airflow_provider_regal.operators.rows import RegalRowsOperator


class FailingStore:
    """A task state store whose server is gone."""

    def get(self, key, default=None):
        raise ConnectionError("no API server")

    def set(self, key, value):
        raise ConnectionError("no API server")


class Store(dict):
    """A task state store that works, until it does not."""

    works = True

    def set(self, key, value):
        if not self.works:
            raise TimeoutError
        self[key] = value


class TaskInstance(SimpleNamespace):
    def xcom_push(self, key, value):
        self.pushed = {key: value}


def context(store, *, number=1, max_tries=0):
    ti = TaskInstance(dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=number, max_tries=max_tries)
    return {"ti": ti, "task": SimpleNamespace(retries=0, pool_slots=1), "task_state_store": store}


@pytest.fixture(autouse=True)
def storage(tmp_path, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(tmp_path / "runs"))


def warnings(caplog):
    ours = (record for record in caplog.records if record.name.startswith("airflow_provider_regal"))
    return [record.getMessage() for record in ours if record.levelname == "WARNING"]


def test_a_store_that_works_remembers_the_folder_and_shows_progress(caplog):
    store = Store()
    place = place_of(context(store), None)
    assert not place.lost
    place.started()
    place.progress("1/2")
    assert store == {"regal_run_folder": str(place.folder), "regal_progress": "1/2"}
    assert place_of(context(store, number=2), None).lost
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("number", "max_tries", "lost"), [(1, 0, False), (2, 0, True), (1, 1, True)], ids=["first", "retry", "cleared"]
)
def test_a_store_that_cannot_be_read_makes_every_later_try_doubt(number, max_tries, lost, caplog):
    assert place_of(context(FailingStore(), number=number, max_tries=max_tries), None).lost is lost
    (warning,) = warnings(caplog)
    assert "Airflow cannot tell whether an earlier try had a run folder" in warning


def test_a_store_that_fails_later_is_complained_of_once_for_the_folder_and_once_for_progress(caplog):
    store = Store()
    place = place_of(context(store), None)
    store.works = False
    place.started()
    for line in ("1/3", "2/3", "3/3"):
        place.progress(line)
    first, second = warnings(caplog)
    assert "If the run folder gets lost" in first
    assert "progress of this task is not shown" in second
    store.works = True
    place.progress("3/3")
    assert store == {"regal_progress": "3/3"}


def test_a_delivery_goes_on_without_the_store(regal, caplog):
    operator = RegalRowsOperator(task_id="t", call="track", event="Seen", rows=[{"user_id": "a"}, {"user_id": "b"}])
    assert operator.execute(context(FailingStore()))["acknowledged"] == 2
    assert regal.stats()["requests"] == 2
    assert len(warnings(caplog)) == 2
