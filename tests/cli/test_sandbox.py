"""``sandbox``: a local Regal, started from the command line."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from airflow_provider_regal.cli import build_parser, main
from airflow_provider_regal.cli.commands import SANDBOX
from tests.cli.front_ends import airflow_parser

ROOT = str(Path(__file__).parents[2])
ENVIRONMENT = os.environ | {"PYTHONPATH": ROOT, "PYTHONUNBUFFERED": "1"}
Start = Callable[..., tuple[subprocess.Popen[str], list[str]]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Run the command as a user would; it is gone when the test is."""
    running: list[subprocess.Popen[str]] = []

    def run(*options: str) -> tuple[subprocess.Popen[str], list[str]]:
        command = [sys.executable, "-m", "airflow_provider_regal", "sandbox", *options]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT, cwd=ROOT
        )
        running.append(process)
        lines = []
        for line in process.stdout:
            lines.append(line.rstrip("\n"))
            if line.startswith("Ctrl-C"):
                break
        return process, lines

    yield run
    for process in running:
        process.kill()
        process.communicate()


def port_of(lines: list[str]) -> int:
    return int(re.search(r"http://127\.0\.0\.1:(\d+)/events", "\n".join(lines)).group(1))


def post(port: int, key: str = "sandbox-key", timeout: float = 5) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    headers = {"Authorization": key, "Content-Type": "application/json", "Connection": "close"}
    try:
        connection.request("POST", "/events", '{"userId": "a"}', headers)
        reply = connection.getresponse()
        reply.read()
        return reply
    finally:
        connection.close()


def test_it_says_where_it_is_and_gives_the_line_to_copy(start):
    process, lines = start("--port", "0", "--api-key", "it's mine")
    port = port_of(lines)
    assert f"  Pages    http://127.0.0.1:{port}/" in lines
    assert f"  Events   http://127.0.0.1:{port}/events" in lines
    assert "  API key  it's mine" in lines
    (line,) = [line for line in lines if line.startswith("AIRFLOW_CONN_REGAL_DEFAULT=")]
    shell = subprocess.run(
        ["sh", "-c", f'{line}; printf %s "$AIRFLOW_CONN_REGAL_DEFAULT"'], capture_output=True, text=True, check=True
    )
    assert json.loads(shell.stdout) == {
        "conn_type": "regal",
        "host": f"http://127.0.0.1:{port}",
        "password": "it's mine",
    }
    assert post(port, "it's mine").status == 200
    assert post(port).status == 401
    assert process.poll() is None


def test_the_line_to_copy_has_the_documented_form_and_a_rate_limit_of_zero_means_none(start):
    _, lines = start("--port", "0", "--rate-limit", "0")
    assert "  Limit    none" in lines
    port = port_of(lines)
    connection = f'{{"conn_type": "regal", "host": "http://127.0.0.1:{port}", "password": "sandbox-key"}}'
    assert f"AIRFLOW_CONN_REGAL_DEFAULT='{connection}'" in lines


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_at_once_and_cleanly_with_a_hanging_request_open(start, number, tmp_path):
    faults = tmp_path / "faults.json"
    faults.write_text('[{"on": {"requests": [2]}, "do": {"hang": true}}]')
    process, lines = start("--port", "0", "--faults", str(faults))
    assert post(port_of(lines)).status == 200
    with pytest.raises(TimeoutError):
        post(port_of(lines), timeout=0.2)
    begin = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert time.monotonic() - begin < 3
    assert (process.returncode, err) == (0, "")
    assert out.strip() == "Stopped: 2 requests, 1 events stored."


def test_every_option_is_honoured(start, tmp_path):
    faults = tmp_path / "faults.json"
    faults.write_text('[{"on": {"requests": [1]}, "do": {"status": 418}}]')
    _, lines = start(
        "--port", "0", "--rate-limit", "1", "--retry-after", "7", "--latency-ms", "150", "--wrong-key-status", "403",
        "--lookup-order", "email,phone,userId", "--faults", str(faults), "--host", "127.0.0.1",
    )  # fmt: skip
    port = port_of(lines)
    assert "  Limit    1 requests in any second" in lines
    begin = time.monotonic()
    assert post(port).status == 418
    assert time.monotonic() - begin >= 0.15
    assert post(port, "wrong").status == 403
    statuses = [post(port) for _ in range(2)]
    assert [(reply.status, reply.headers["Retry-After"]) for reply in statuses] == [(200, None), (429, "7")]


def test_a_taken_port_is_one_clear_line_and_exit_code_2(capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["sandbox", "--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"sandbox: cannot listen on 127.0.0.1:{port}: Address already in use"
        "; give another --port, or 0 for any free one\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--faults", "no-such-file.json"], "cannot read the faults file no-such-file.json"),
        (["--latency-ms", "-1"], "latency"),
        (["--lookup-order", "phone"], "lookup order"),
        (["--api-key", ""], "API key"),
        (["--allow-host", "http://regal"], "'http://regal' is not a host name"),
        (["--host", "no.such.host.invalid", "--port", "0"], "cannot listen on no.such.host.invalid:0"),
        (["--host", "192.0.2.1", "--port", "0"], "cannot listen on 192.0.2.1:0"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(capsys, options, words):
    assert main(["sandbox", *options]) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "words"),
    [('[{"on": {"evry": 3}, "do": {"drop": true}}]', "rule 1: unknown key 'evry' in 'on'"), ("{", "is not JSON")],
)
def test_a_mistake_in_the_faults_file_is_named(capsys, tmp_path, text, words):
    path = tmp_path / "faults.json"
    path.write_text(text)
    assert main(["sandbox", "--port", "0", "--faults", str(path)]) == 2
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("port", ["70000", "-1", "x"])
def test_a_port_that_is_none_is_refused(capsys, port):
    with pytest.raises(SystemExit) as caught:
        main(["sandbox", "--port", port])
    assert caught.value.code == 2
    assert "port" in capsys.readouterr().err


def test_help_shows_every_option_and_an_example(capsys):
    with pytest.raises(SystemExit) as caught:
        main(["sandbox", "--help"])
    assert caught.value.code == 0
    text = capsys.readouterr().out
    for option in (
        "--host",
        "--port",
        "--api-key",
        "--rate-limit",
        "--latency-ms",
        "--faults",
        "--retry-after",
        "--allow-host",
    ):
        assert option in text
    assert "example:\n  python -m airflow_provider_regal sandbox --port 8010\n" in text


def test_the_documentation_names_every_option():
    documentation = (Path(ROOT) / "docs" / "sandbox.md").read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `(--[a-z-]+)`", documentation, re.MULTILINE))
    assert documented == {argument.flags[0] for argument in SANDBOX.arguments}


def test_reaching_it_from_other_machines_is_warned_about(start):
    _, lines = start("--port", "0", "--host", "0.0.0.0")
    assert any("Other machines can reach this" in line for line in lines)
    assert post(port_of(lines)).status == 200


def test_it_answers_to_the_names_it_is_given(start):
    _, lines = start("--port", "0", "--host", "localhost", "--allow-host", "regal", "--allow-host", "regal.internal")
    port = int(re.search(r"http://\S+:(\d+)/events", "\n".join(lines)).group(1))
    statuses = {}
    for name in ("localhost", "regal", "regal.internal", "evil.example"):
        connection = http.client.HTTPConnection("localhost", port, timeout=5)
        connection.request("GET", "/sandbox/stats", headers={"Host": f"{name}:{port}"})
        statuses[name] = connection.getresponse().status
        connection.close()
    assert statuses == {"localhost": 200, "regal": 200, "regal.internal": 200, "evil.example": 403}


def test_airflow_and_the_module_take_the_same_options():
    options = ["sandbox", "--port", "0", "--rate-limit", "5", "--latency-ms", "2.5", "--allow-host", "regal"]
    own = vars(build_parser().parse_args(options))
    theirs = vars(airflow_parser().parse_args(["regal", *options]))
    for name in (
        "host",
        "port",
        "api_key",
        "rate_limit",
        "retry_after",
        "latency_ms",
        "wrong_key_status",
        "faults",
        "allow_host",
    ):
        assert own[name] == theirs[name]


def test_a_failure_under_airflow_ends_with_its_exit_code(capsys):
    args = airflow_parser().parse_args(["regal", "sandbox", "--lookup-order", "phone"])
    with pytest.raises(SystemExit) as caught:
        args.func(args)
    assert caught.value.code == 2
    assert "lookup order" in capsys.readouterr().err
