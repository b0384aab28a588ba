"""``redeliver`` on the command line: exit codes, the report, and going on after it was stopped or killed."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

import pytest

from airflow_provider_regal.cli import main
from airflow_provider_regal.errors import ReadDeadLettersError
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.journal.folder_letters import claims_in_folder
from tests.test_cli import airflow_parser

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}


@pytest.fixture
def storage(tmp_path, monkeypatch):
    path = tmp_path / "runs"
    monkeypatch.setenv("AIRFLOW__REGAL__STORAGE_PATH", str(path))
    return path


@pytest.fixture
def refused(regal, storage):
    """Deliver rows that Regal refuses; gives their run folder."""

    def run(count, name="first", fault=REFUSE, **row):
        regal.set_faults([fault])
        rows = [{"user_id": f"u{number}", **row} for number in range(count)]
        with suppress(ReadDeadLettersError):
            RegalHook().deliver(rows, call="track", event="Lesson Booked", name=name, max_unknown=1.0)
        regal.set_faults([])
        return storage / "outside-tasks" / name

    return run


def program(*options):
    return subprocess.Popen(
        [sys.executable, "-m", "airflow_provider_regal", "redeliver", *options],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2], env=dict(os.environ),
    )  # fmt: skip


def arrivals(regal):
    return Counter(event["body"]["userId"] for event in regal.events(stored=True))


def test_it_sends_the_letters_and_shows_the_report(refused, regal, capsys):
    refused(3)
    assert main(["redeliver", "outside-tasks/fir*"]) == 0
    out = capsys.readouterr().out
    assert "acknowledged             3" in out
    assert "Run folder: " in out
    assert set(arrivals(regal).values()) == {1}
    assert main(["redeliver", "outside-tasks/fir*"]) == 0  # a new redelivery: there is nothing left
    assert "read                     0" in capsys.readouterr().out


def test_what_regal_refuses_again_is_exit_code_1_with_the_reason(refused, regal, capsys):
    refused(2)
    regal.set_faults([REFUSE])
    assert main(["redeliver", "outside-tasks/first"]) == 1
    assert "2 rejected, more than max_rejected=0" in capsys.readouterr().err


def test_a_dry_run_takes_nothing(refused, regal, capsys):
    folder = refused(2)
    assert main(["redeliver", "--dry-run", "outside-tasks/first"]) == 0
    assert claims_in_folder(folder) == {}
    assert arrivals(regal) == Counter()


def test_options_are_honoured(refused, regal):
    refused(2, fault={"on": {"from": 1}, "do": {"status": 500}})
    assert main(["redeliver", "outside-tasks/first"]) == 0
    assert arrivals(regal) == Counter()
    started = time.monotonic()
    assert main(["redeliver", "--status", "unknown", "--status", "rejected", "--rate", "1", "outside-tasks/first"]) == 0
    assert time.monotonic() - started > 1
    assert len(arrivals(regal)) == 2


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["nowhere"], "FileNotFoundError: There is no run folder"),
        (["--rate", "0", "x*"], "rate must be above 0"),
        (["--conn-id", "nowhere", "x*"], "nowhere"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(regal, storage, airflow_db, capsys, options, words):
    assert main(["redeliver", *options]) == 1
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("days", ["-1", "nan", "1e12", "x"])
def test_days_that_are_none_are_refused(capsys, days):
    with pytest.raises(SystemExit) as caught:
        main(["redeliver", "--max-event-age-days", days, "x"])
    assert caught.value.code == 2
    assert "is not a number of days" in capsys.readouterr().err


def test_airflow_and_the_module_take_the_same_options(refused, regal):
    refused(1)
    args = airflow_parser().parse_args(["regal", "redeliver", "outside-tasks/first", "--max-event-age-days", "0"])
    args.func(args)
    assert len(arrivals(regal)) == 1


@pytest.mark.parametrize("how", ["kill", "terminate"])
def test_the_same_command_goes_on_where_it_was_stopped(refused, regal, how):
    folder = refused(60)
    before = regal.stats()["requests"]
    regal.set_faults([{"on": {"from": 1}, "do": {"delay_ms": 50}}])
    first = program("--rate", "20", "outside-tasks/first")
    deadline = time.monotonic() + 60
    while regal._ask(lambda account: account.stats()["requests"]) - before < 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    getattr(first, how)()
    _, err = first.communicate(timeout=60)
    assert first.returncode != 0
    assert "Traceback" not in err
    regal.set_faults([])

    code = main(["redeliver", "outside-tasks/first"])

    arrived = arrivals(regal)
    assert set(arrived.values()) == {1}
    outcomes = Counter(claim.outcome for claim in claims_in_folder(folder).values())
    assert outcomes.keys() <= {"acknowledged", "unknown"}
    assert outcomes.total() == 60
    assert code == 0
    assert len(arrived) >= outcomes["acknowledged"] >= 60 - 40
    if how == "terminate":
        assert outcomes == {"acknowledged": 60}
