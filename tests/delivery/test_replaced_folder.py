"""A run folder that disappears under a delivery: it stops soon, says so, and touches nothing of a successor."""

from __future__ import annotations

import shutil
import threading
import time

import pytest

from airflow_provider_regal.errors import DecideRestartError, RetryLaterError
from airflow_provider_regal.journal.run_folder import RunFolder

ROWS = 3_000


def people():
    return [{"user_id": f"u{number}"} for number in range(ROWS)]


def then(what, regal, requests=50):
    """Do something once Regal has got some requests."""

    def wait_and_do():
        while regal._ask(lambda account: account.requests) < requests:
            time.sleep(0.002)
        what()

    thread = threading.Thread(target=wait_and_do)
    thread.start()
    return thread


@pytest.mark.parametrize("call", ["track", "identify"])
def test_a_removed_folder_stops_the_delivery_within_a_checkpoint(call, deliver, folder, regal_sandbox):
    thread = then(lambda: shutil.rmtree(folder), regal_sandbox)
    with pytest.raises(RetryLaterError, match="was removed, emptied or replaced while rows were sent"):
        deliver(people(), call=call, rate=300, checkpoint_interval=0.2)
    thread.join()
    sent = regal_sandbox.stats()["requests"]
    assert 50 <= sent < 50 + 300
    assert deliver.last.report.status == "stopped"
    if call == "track":
        with pytest.raises(DecideRestartError, match="cannot be found"):
            deliver(people(), number=2, lost=True)
        assert regal_sandbox.stats()["requests"] == sent


def test_a_folder_made_anew_by_another_try_is_left_to_it(deliver, folder, regal_sandbox, tmp_path):
    successors = []

    def replace():
        folder.rename(tmp_path / "elsewhere")
        successors.append(RunFolder(folder))
        successors[0].write_report({"of": "the successor"})

    thread = then(replace, regal_sandbox)
    with pytest.raises(RetryLaterError, match="was removed, emptied or replaced"):
        deliver(people(), rate=300, checkpoint_interval=0.2)
    thread.join()
    assert successors[0].read_report() == {"of": "the successor"}
    assert sorted(file.name for file in folder.iterdir()) == ["lock", "report.json"]
    successors[0].close()
