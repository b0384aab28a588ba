"""Both front ends: ``python -m airflow_provider_regal`` and ``airflow regal``."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.cli import build_parser, get_cli_commands, main
from airflow_provider_regal.cli.commands import COMMANDS, Group, When
from tests.cli.front_ends import ROOT, airflow_parser, program, run_airflow

ALL = [command for one in COMMANDS for command in (one.commands if isinstance(one, Group) else [one])]
LED_BY = {command.name: one.name for one in COMMANDS if isinstance(one, Group) for command in one.commands}


def words(command):
    return [LED_BY[command.name], command.name] if command.name in LED_BY else [command.name]


def help_of(capsys, *arguments):
    with pytest.raises(SystemExit) as caught:
        main([*arguments, "--help"])
    assert caught.value.code == 0
    return capsys.readouterr().out


def test_no_command_shows_the_help(capsys):
    with pytest.raises(SystemExit) as caught:
        main([])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    for name in ("sandbox", "check", "deliveries", "outcomes", "find", "redeliver", "ledger"):
        assert name in out


@pytest.mark.parametrize("command", ALL, ids=lambda command: command.name)
def test_the_help_of_a_command_shows_its_options_and_an_example_that_can_be_parsed(capsys, command):
    out = help_of(capsys, *words(command))
    for argument in command.arguments:
        if argument.flags[0].startswith("-"):
            assert argument.flags[0] in out
    assert f"  python -m airflow_provider_regal {' '.join(words(command))}" in out
    assert max(map(len, out.splitlines())) <= 115


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_no_help_has_what_airflow_takes_for_markup(command):
    """Airflow draws help with rich, which swallows ``[regal]``."""
    commands = command.commands if isinstance(command, Group) else [command]
    texts = [command.help, command.description, command.example]
    texts += [text for one in commands for text in (one.help, one.description, one.example)]
    texts += [argument.options.get("help", "") for one in commands for argument in one.arguments]
    assert not [text for text in texts if "[regal]" in text]


def test_airflow_offers_the_same_commands_and_options():
    (regal,) = get_cli_commands()
    assert {one.name for one in regal.subcommands} == {one.name for one in COMMANDS}
    arguments = ["deliveries", "--dag", "d", "--state", "failed", "--since", "2026-11-29", "--limit", "3", "--json"]
    own, theirs = vars(build_parser().parse_args(arguments)), vars(airflow_parser().parse_args(["regal", *arguments]))
    for name in ("dag", "state", "since", "limit", "json", "account", "ledger_conn_id", "delivery"):
        assert own[name] == theirs[name]
    nested = airflow_parser().parse_args(["regal", "ledger", "prune", "--history-days", "1.5"])
    assert nested.history_days == 1.5


def test_the_commands_of_the_metadata_are_light_to_import():
    code = (
        "import sys, airflow_provider_regal.cli\n"
        "heavy = ('aiohttp', 'phonenumbers', 'pydantic', 'jinja2', 'sqlalchemy', 'airflow')\n"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    ("text", "before_now"),
    [
        ("90m", timedelta(minutes=90)),
        ("12h", timedelta(hours=12)),
        ("2d", timedelta(days=2)),
        ("1w", timedelta(days=7)),
    ],
)
def test_how_long_ago_can_be_given_as_a_time(text, before_now):
    found = When.read(text)
    assert found.text == text
    assert abs(datetime.now(UTC) - before_now - found.moment) < timedelta(seconds=5)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-11-29", datetime(2026, 11, 29, tzinfo=UTC)),
        ("2026-11-29T08:00:00+01:00", datetime(2026, 11, 29, 7, tzinfo=UTC)),
        ("2026-11-29 08:00", datetime(2026, 11, 29, 8, tzinfo=UTC)),
    ],
)
def test_a_time_is_in_utc_unless_it_says_otherwise(text, moment):
    assert When.read(text).moment == moment


@pytest.mark.parametrize("text", ["", "yesterday", "2 d", "-2d", "999999w", "2026-13-01", "d"])
def test_what_is_no_time_is_refused(text):
    with pytest.raises(argparse.ArgumentTypeError, match="is not a time: write 2026-11-29"):
        When.read(text)


@pytest.mark.parametrize(
    "arguments",
    [
        ["deliveries", "--since", "yesterday"],
        ["deliveries", "--limit", "0"],
        ["deliveries", "--state", "lost"],
        ["deliveries", "seven"],
        ["outcomes"],
        ["outcomes", "1", "--status", "skipped"],
        ["find"],
        ["redeliver", "--max-event-age-days", "nan", "1"],
        ["redeliver", "--rate", "0", "1"],
        ["ledger"],
        ["ledger", "copy"],
        ["ledger", "prune", "--history-days", "-1"],
        ["nonsense"],
    ],
)
def test_wrong_usage_is_exit_code_2(capsys, arguments):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_redeliver_has_to_be_told_what(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["redeliver", "--status", "unknown", "--until", "2d"])
    assert caught.value.code == 2
    sentence = "name what to redeliver: a DELIVERY, or at least one of --dag, --task, --run, --since, --reason"
    assert sentence in capsys.readouterr().err
    args = airflow_parser().parse_args(["regal", "redeliver"])
    with pytest.raises(SystemExit) as caught:
        args.func(args)
    assert caught.value.code == 2
    assert sentence in capsys.readouterr().err


# -- connections ------------------------------------------------------------------------------------------------------


@pytest.fixture
def stored(airflow_db, regal_sandbox):
    """Keep a connection in Airflow's database, as its UI does."""
    told = json.loads(regal_sandbox.connection())
    added = run_airflow(
        "connections", "add", "made_in_the_ui", "--conn-type", "regal", "--conn-host", told["host"],
        "--conn-password", told["password"],
    )  # fmt: skip
    assert added.returncode == 0, added.stderr
    yield "made_in_the_ui"
    run_airflow("connections", "delete", "made_in_the_ui")


@pytest.mark.slow
def test_the_module_finds_connections_that_were_made_in_the_ui(stored):
    process = program("check", "--conn-id", stored)
    out, err = process.communicate(timeout=120)
    assert f"ok       connection   {stored}: http://127.0.0.1" in out, out + err
    assert process.returncode == 0


@pytest.mark.slow
def test_airflow_finds_connections_that_were_made_in_the_ui(stored):
    done = run_airflow("regal", "check", "--conn-id", stored)
    if "invalid choice" in done.stderr:
        pytest.skip("this Airflow has no commands of providers")
    assert f"ok       connection   {stored}: http://127.0.0.1" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0


def test_a_process_keeps_its_way_of_finding_connections(monkeypatch, capsys):
    monkeypatch.delenv("_AIRFLOW_PROCESS_CONTEXT", raising=False)
    main(["ledger", "stats", "--ledger-conn-id", "nowhere"])
    assert "_AIRFLOW_PROCESS_CONTEXT" not in os.environ
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "client")
    main(["ledger", "stats", "--ledger-conn-id", "nowhere"])
    assert os.environ["_AIRFLOW_PROCESS_CONTEXT"] == "client"


def test_a_connection_that_is_nowhere_is_one_clear_sentence(airflow_db, capsys):
    assert main(["ledger", "stats", "--ledger-conn-id", "nowhere"]) == 1
    err = capsys.readouterr().err
    assert "nowhere" in err
    assert "not as AIRFLOW_CONN_..., not in a secrets backend, and not in Airflow's database" in err
    assert "Run this where the scheduler runs, or set the variable." in err
