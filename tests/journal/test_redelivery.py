"""Claims: of all who want a dead letter, one has it - and it stays known what became of it."""

from __future__ import annotations

import multiprocessing
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal.claim import Claim
from airflow_provider_regal.journal.dead_letters import DeadLetter, DeadLetters
from airflow_provider_regal.journal.folder_letters import FolderLetters, claims_in_folder, forget_claims
from airflow_provider_regal.journal.marker import Marker
from airflow_provider_regal.journal.progress import Outcome
from airflow_provider_regal.journal.redelivery import find_run_folders, since_when
from airflow_provider_regal.journal.run_folder import FolderInUseError, RunFolder
from airflow_provider_regal.journal.taken import Taken

LETTER = DeadLetter(
    "run", 0, None, "track", "rejected", "invalid", None, "", 0, "2026-01-02T03:04:05.000+00:00", "2026-01-03", {}
)


def letter(position, **more):
    fields = {name: getattr(LETTER, name) for name in LETTER.__slots__}
    return DeadLetter(**{**fields, "position": position, **more})


@pytest.fixture
def folder(tmp_path):
    return folder_of(tmp_path / "original", 3)


def folder_of(path, count):
    with closing(RunFolder(path)) as opened:
        for position in range(count):
            opened.dead_letters.write(letter(position, payload={"n": position}))
            opened.progress.settle(position, Outcome.REJECTED)
    return path


def take(folder, by, positions=range(3)):
    with closing(FolderLetters(folder)) as letters:
        return list(letters.take(positions, str(by), lambda claim: False).values())


def test_who_comes_first_has_it(folder):
    assert take(folder, "a") == [Claim("a", ours=True)] * 3
    assert take(folder, "b") == [Claim("a")] * 3
    assert take(folder, "a") == [Claim("a")] * 3


def test_claims_are_private_and_nothing_else_is_left(folder):
    take(folder, "a")
    files = list((folder / "redelivered").iterdir())
    assert sorted(file.name for file in files) == ["0.json", "1.json", "2.json"]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert (folder / "redelivered").stat().st_mode & 0o777 == 0o700


def _race(folder, by, results):
    won = 0
    for position in range(200):
        while True:
            try:
                won += take(folder, by, [position])[0].ours
                break
            except FolderInUseError:
                continue
    results.put(won)


def test_of_processes_that_race_one_gets_each_letter(tmp_path):
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    folder = folder_of(tmp_path / "original", 1)
    racers = [context.Process(target=_race, args=(folder, f"racer{number}", results)) for number in range(3)]
    for racer in racers:
        racer.start()
    won = [results.get(timeout=60) for _ in racers]
    for racer in racers:
        racer.join()
    assert sum(won) == 200
    assert len(claims_in_folder(folder)) == 200


def test_the_create_itself_is_atomic_where_a_file_system_does_not_lock(folder):
    letters = FolderLetters(folder)
    letters._link(folder / "redelivered" / "0.json", "other machine")
    assert letters.take([0], "b", lambda claim: False)[0].by == "other machine"
    with pytest.raises(FileExistsError):
        letters._link(folder / "redelivered" / "0.json", "b")
    letters.close()


def test_nobody_takes_letters_while_a_task_works_in_the_folder(folder):
    with closing(RunFolder(folder)), pytest.raises(FolderInUseError):
        FolderLetters(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"x"', '{"to": 1}'])
def test_a_claim_nobody_can_read_is_one_all_the_same(folder, text):
    take(folder, "a", [0])
    (folder / "redelivered" / "0.json").write_text(text)
    assert take(folder, "b", [0])[0].by not in ("a", "b")


def test_letters_come_in_the_order_of_rows_the_last_of_each(tmp_path):
    letters = DeadLetters(tmp_path / "dead_letters.jsonl")
    for position, n in ((5, 1), (2, 2), (5, 3)):
        letters.write(letter(position, payload={"n": n, "text": ', "position": 9, '}))
    letters.close()
    with closing(FolderLetters(tmp_path)) as found:
        assert [(one.position, one.payload["n"]) for one in found.read()] == [(2, 2), (5, 3)]
    assert since_when(tmp_path, Clock()) == LETTER.first_time
    assert since_when(tmp_path / "none", Clock()) is None


def redelivery(path, outcomes, *, rows=True, outcome=None):
    """A run folder of a redelivery, and what became of its rows."""
    with closing(RunFolder(path)) as folder:
        folder.marker = Marker("", 0, 1, outcome=outcome)
        if rows:
            folder.take_snapshot([{"n": number} for number, _ in enumerate(outcomes)])
        for position, what in enumerate(outcomes):
            if what == "reserved":
                folder.progress.reserve([position])
            elif what is not None:
                folder.progress.settle(position, what)
    return path


def noted(mine, folder):
    with opened(mine) as taken, closing(taken):
        taken.start()
        for row in range(3):
            taken.add(row, str(folder), row, "")


@contextmanager
def opened(mine):
    with closing(RunFolder(mine)) as folder:
        yield Taken(folder, Path, Clock())


def settle(mine):
    with opened(mine) as taken:
        taken.settle()


def test_what_became_of_rows_stands_beside_their_letters(folder, tmp_path):
    mine = redelivery(tmp_path / "mine", [Outcome.ACKNOWLEDGED, "reserved", None])
    take(folder, mine)
    noted(mine, folder)

    settle(mine)

    assert [claims_in_folder(folder)[n].outcome for n in range(3)] == ["acknowledged", "unknown", None]
    assert sorted(file.name for file in (folder / "redelivered").iterdir()) == ["0.json", "1.json", "2.json"]


def test_letters_nothing_was_to_be_sent_of_are_given_back(folder, tmp_path):
    mine = redelivery(tmp_path / "mine", [], rows=False)
    take(folder, mine)
    noted(mine, folder)
    (folder / "redelivered" / "1.json").unlink()
    take(folder, "another", [1])

    settle(mine)

    assert claims_in_folder(folder) == {1: Claim("another")}


def test_letters_are_not_given_back_by_a_redelivery_that_is_over(folder, tmp_path):
    mine = redelivery(tmp_path / "mine", [Outcome.REJECTED] * 3, rows=False, outcome="finished")
    take(folder, mine)
    noted(mine, folder)
    settle(mine)
    assert {claim.outcome for claim in claims_in_folder(folder).values()} == {"rejected"}


def test_claims_of_a_folder_that_is_gone_or_started_over_are_not_made_again(folder, tmp_path):
    mine = redelivery(tmp_path / "mine", [Outcome.ACKNOWLEDGED] * 3)
    take(folder, mine)
    noted(mine, folder)
    forget_claims(folder)
    settle(mine)
    assert claims_in_folder(folder) == {}


def test_folders_are_found_by_path_glob_and_file_each_once(tmp_path):
    root = tmp_path / "ru[n]s"
    for name in ("d/r1/t", "d/r2/t", "d/r2/t/deliveries/x"):
        folder_of(root / name, 1)
    every = [root / name for name in ("d/r1/t", "d/r2/t", "d/r2/t/deliveries/x")]

    def find(*paths):
        return sorted(path.relative_to(root).as_posix() for path in find_run_folders(paths, root))

    assert find("d/*/t") == find("d", "d/r1", "**") == [path.relative_to(root).as_posix() for path in every]
    assert find("d/r1/t/dead_letters.jsonl", str(root / "d/r1/t")) == ["d/r1/t"]
    assert find("nothing*") == []
    with pytest.raises(FileNotFoundError, match="There is no run folder"):
        find("d/r3")
