"""The run folder: one holder, what it remembers, what it forgets."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time

import pytest

from airflow_provider_regal.journal.dead_letters import read_dead_letters
from airflow_provider_regal.journal.marker import Marker
from airflow_provider_regal.journal.progress import Outcome
from airflow_provider_regal.journal.run_folder import FolderInUseError, RunFolder, remove_old_folders
from tests.journal.test_dead_letters import letter

HOLD = """
import sys, time
from pathlib import Path
from airflow_provider_regal.journal.progress import Outcome
from airflow_provider_regal.journal.run_folder import RunFolder
folder = RunFolder(Path(sys.argv[1]))
folder.progress.reserve([0, 1])
folder.progress.settle(0, Outcome.ACKNOWLEDGED)
folder.progress.flush()
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path):
    with_lock = RunFolder(tmp_path / "run")
    yield with_lock
    with_lock.close()


def test_a_second_opener_is_kept_out_until_the_first_closes(tmp_path):
    first = RunFolder(tmp_path / "run")
    with pytest.raises(FolderInUseError, match="another try still sends"):
        RunFolder(tmp_path / "run")
    first.close()
    RunFolder(tmp_path / "run").close()


def test_the_lock_of_a_killed_process_is_free_and_what_it_flushed_is_known(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "run")], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(FolderInUseError):
            RunFolder(tmp_path / "run")
        holder.send_signal(signal.SIGKILL)
        holder.wait(10)
        folder = RunFolder(tmp_path / "run")
        assert folder.progress.outcome(0) is Outcome.ACKNOWLEDGED
        assert folder.progress.is_reserved(1)
        folder.close()
    finally:
        holder.kill()
        holder.wait(10)
        holder.stdout.close()


def test_an_error_while_closing_frees_the_lock_all_the_same(tmp_path):
    folder = RunFolder(tmp_path / "run")
    os.close(folder.progress._file)
    with pytest.raises(OSError, match="Bad file descriptor"):
        folder.close()
    RunFolder(tmp_path / "run").close()


def test_a_new_folder_knows_nothing(folder):
    assert folder.marker is None
    assert folder.row_count is None
    assert folder.read_report() == {}
    assert list(folder.rows()) == []
    assert not folder.progress.may_have_sent


@pytest.mark.parametrize("marker", [Marker("f", 0, 1), Marker("f", 2, 3, restarted=True, outcome="failed")])
def test_the_marker_comes_back(marker, folder):
    folder.marker = marker
    assert folder.marker == marker


def test_rows_count_only_once_all_are_there(folder):
    def broken():
        yield {"n": 1}
        raise ConnectionError

    with pytest.raises(ConnectionError):
        folder.take_snapshot(broken())
    assert folder.row_count is None
    folder.take_snapshot([{"n": 2}, {"n": 3}])
    assert folder.row_count == folder.source_rows == 2
    assert list(folder.rows()) == [(0, {"n": 2}), (1, {"n": 3})]
    assert list(folder.rows(without=lambda position: position == 0)) == [(1, {"n": 3})]


def test_a_shorter_snapshot_leaves_nothing_of_a_longer_one(folder):
    folder.take_snapshot([{"n": number} for number in range(12_000)])
    folder.take_snapshot([{"n": 1}])
    assert len(list(folder.rows())) == 1


def test_starting_over_forgets_everything_but_the_marker_and_other_deliveries_of_the_task(folder):
    other = RunFolder(folder.path / "deliveries" / "other")
    other.marker = Marker("other", 0, 1)
    folder.marker = Marker("f", 0, 1)
    folder.take_snapshot([{"n": 1}])
    folder.progress.settle(0, Outcome.REJECTED)
    folder.dead_letters.write(letter(0))
    folder.withheld(0, ["x"], {})
    folder.write_report({"read": 1})
    folder.start_over()
    assert {file.name for file in folder.path.iterdir()} == {"lock", "marker.json", "deliveries"}
    assert other.marker == Marker("other", 0, 1)
    assert folder.progress.length == 0
    other.close()


def test_all_files_are_for_the_owner_only_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        folder = RunFolder(tmp_path / "run")
        folder.marker = Marker("f", 0, 1)
        folder.take_snapshot([{"n": 1}])
        folder.progress.settle(0, Outcome.REJECTED)
        folder.dead_letters.write(letter(0))
        folder.withheld(0, ["no ip"], {"n": 1})
        folder.write_report({"read": 1})
        folder.close()
        assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert len(list(folder.path.iterdir())) == 8
    for file in folder.path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file.name
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700


def test_the_letter_of_a_row_that_was_delivered_after_all_goes_even_if_no_new_one_came(tmp_path):
    folder = RunFolder(tmp_path / "run")
    for position in (0, 1):
        folder.dead_letters.write(letter(position))
        folder.progress.settle(position, Outcome.REJECTED)
    folder.close()
    folder = RunFolder(tmp_path / "run")
    folder.progress.settle(0, Outcome.ACKNOWLEDGED)
    folder.close()
    assert [one.position for one in read_dead_letters(folder.path / "dead_letters.jsonl")] == [1]


class TestRemovingOldFolders:
    DAY = 86_400

    def old(self, path, days=40):
        RunFolder(path).close()
        folder = RunFolder(path)
        folder.marker = Marker("f", 0, 1)
        folder.take_snapshot([{"n": 1}])
        folder.close()
        for file in path.iterdir():
            os.utime(file, (time.time() - days * self.DAY,) * 2)
        return path

    def remove(self, storage):
        return remove_old_folders(storage, older_than_s=30 * self.DAY, now=time.time())

    def test_old_ones_go_and_others_stay(self, tmp_path):
        gone, kept = self.old(tmp_path / "a" / "b"), self.old(tmp_path / "a" / "c", days=20)
        (tmp_path / "a" / "stranger").mkdir()
        assert self.remove(tmp_path) == 1
        assert not gone.exists()
        assert kept.exists()
        assert (tmp_path / "a" / "stranger").exists()

    def test_not_while_it_is_in_use(self, tmp_path):
        path = self.old(tmp_path / "run")
        holder = RunFolder(path)
        assert self.remove(tmp_path) == 0
        holder.close()
        assert self.remove(tmp_path) == 1

    def test_not_while_another_delivery_of_the_task_is_younger(self, tmp_path):
        path = self.old(tmp_path / "run")
        self.old(path / "deliveries" / "other", days=1)
        assert self.remove(tmp_path) == 0

    def test_no_storage_is_nothing_to_remove(self, tmp_path):
        assert self.remove(tmp_path / "none") == 0
