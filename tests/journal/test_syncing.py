"""What the disk holds if the machine loses its power at any moment: no row counts as dead without its letter.

The disk is modelled on top of the real files: what a call to ``fsync`` found when it began is surely there once it
has ended; anything written before it ended may be there as well.
"""

from __future__ import annotations

import os
import random
import threading
import time
from pathlib import Path

import pytest

from airflow_provider_regal.journal.progress import Outcome, Progress
from airflow_provider_regal.journal.run_folder import FolderReplacedError, RunFolder
from tests.journal.test_dead_letters import letter


class Disk:
    """Watches what is forced to disk, takes its time over it, and looks for rows that are dead without a letter."""

    def __init__(self, folder, takes_s):
        self._letters, self._log = folder / "dead_letters.jsonl", folder / "progress.log"
        self._takes_s = takes_s
        self._with_letter = set()
        self._fsync, self._fdatasync = os.fsync, os.fdatasync
        self.order = []
        self.dead_without_letter = set()

    def fsync(self, file):
        name = str(Path(f"/proc/self/fd/{file}").readlink())
        surely = self._positions() if name == str(self._letters) else set()
        self._take_time()
        self._fsync(file)
        self._with_letter |= surely
        if name == str(self._letters):
            self.order.append("letters")

    def fdatasync(self, file):
        self._take_time()
        self._fdatasync(file)
        self._take_time()  # what comes while it runs may get there, too
        self.order.append("progress")
        self.dead_without_letter |= self._dead() - self._with_letter

    def _take_time(self):
        time.sleep(self._takes_s)

    def _positions(self):
        text = self._letters.read_text() if self._letters.exists() else ""
        return {int(line.split('"position": ')[1].split(",")[0]) for line in text.splitlines() if '"payload"' in line}

    def _dead(self):
        return {int(line[2:]) for line in self._log.read_text().splitlines() if line[:1] in "JU"}


@pytest.fixture
def disk(tmp_path, monkeypatch):
    """Slow enough for much to be written meanwhile."""
    watched = Disk(tmp_path / "run", takes_s=0.002)
    monkeypatch.setattr(os, "fsync", watched.fsync)
    monkeypatch.setattr(os, "fdatasync", watched.fdatasync)
    return watched


def bury(folder, position, outcome=Outcome.REJECTED):
    folder.dead_letters.write(letter(position))
    folder.progress.settle(position, outcome)


def test_letters_go_to_disk_before_what_refers_to_them_and_only_if_there_are_new_ones(tmp_path, disk):
    folder = RunFolder(tmp_path / "run")
    folder.sync()
    for position in range(50):
        bury(folder, position)
        folder.progress.flush()
    folder.sync()
    folder.sync()
    assert disk.order == ["progress", "letters", "progress", "progress"]
    assert disk.dead_without_letter == set()
    folder.close()


def test_rows_that_die_during_a_sync_wait_for_the_next(tmp_path, disk):
    folder = RunFolder(tmp_path / "run")
    moments = random.Random(1)
    syncing = True

    def sync_on_and_on():
        while syncing:
            folder.sync()

    folder.dead_letters  # noqa: B018 - opened by the thread that writes
    folder.progress.flush()
    threads = [threading.Thread(target=sync_on_and_on) for _ in range(2)]  # reservations and checkpoints
    for thread in threads:
        thread.start()
    for position in range(300):
        bury(folder, position, moments.choice([Outcome.REJECTED, Outcome.UNKNOWN]))
        folder.progress.settle(1_000 + position, Outcome.ACKNOWLEDGED)
        folder.progress.flush()
        time.sleep(moments.random() * 0.003)
    syncing = False
    for thread in threads:
        thread.join()

    assert disk.order.count("progress") > 20
    assert disk.dead_without_letter == set()
    folder.close()
    assert disk.dead_without_letter == set()
    again = Progress(tmp_path / "run" / "progress.log")
    assert (again.count(Outcome.ACKNOWLEDGED), again.count(Outcome.REJECTED) + again.count(Outcome.UNKNOWN)) == (
        300,
    ) * 2
    again.close()


def test_only_what_is_noted_of_dead_rows_waits_and_in_its_order(tmp_path):
    log = tmp_path / "progress.log"
    progress = Progress(log)

    def note_meanwhile():
        progress.settle(1, Outcome.ACKNOWLEDGED)
        progress.settle(2, Outcome.UNKNOWN)
        progress.release(2)
        progress.release(3)
        progress.settle(3, Outcome.REJECTED)
        progress.flush()
        assert log.read_text() == "A 1\nN 3\n"

    progress.sync(note_meanwhile)
    progress.flush()
    assert log.read_text() == "A 1\nN 3\nU 2\nN 2\nJ 3\n"
    progress.close()


@pytest.mark.parametrize("how", ["removed", "emptied", "replaced"])
def test_a_folder_that_is_not_the_one_that_was_opened_is_noticed_and_its_successor_left_alone(how, tmp_path):
    folder = RunFolder(tmp_path / "run")
    bury(folder, 1)
    folder.sync()
    if how == "emptied":
        for file in folder.path.iterdir():
            file.unlink()
    else:
        folder.path.rename(tmp_path / "elsewhere")
    if how == "replaced":
        successor = RunFolder(tmp_path / "run")
        bury(successor, 2)
        successor.write_report({"of": "the successor"})

    with pytest.raises(FolderReplacedError, match="was removed, emptied or replaced"):
        folder.sync()
    with pytest.raises(FolderReplacedError):
        folder.write_report({"of": "the one before"})
    folder.close()

    if how == "replaced":
        assert successor.read_report() == {"of": "the successor"}
        successor.close()
        assert '"position": 2' in (tmp_path / "run" / "dead_letters.jsonl").read_text()
