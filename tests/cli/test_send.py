"""``send``: one event, files, the confirmation, Ctrl-C in a real process, and repeating the same command."""

from __future__ import annotations

import io
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from types import SimpleNamespace

import pytest

from airflow_provider_regal.cli.delivering import is_progress, with_bar
from tests.cli.front_ends import ROOT, airflow_parser, program
from tests.ledger_file import deliveries, outcomes

TRACK = ("send", "--call", "track", "--event", "Lesson Booked")


@pytest.fixture
def here(home, regal, monkeypatch):
    """A shell whose connection leads to the local Regal, with the default ledger."""
    monkeypatch.delenv("AIRFLOW__REGAL__LEDGER_CONN_ID")
    # After a kill, the next try waits for the request timeout.
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(timeout=2))
    return home


@pytest.fixture
def file(here):
    """Write lines into a file; returns its path."""

    def write(*lines, name="events.jsonl"):
        texts = (line if isinstance(line, str) else json.dumps(line) for line in lines)
        (here / name).write_text("".join(f"{text}\n" for text in texts))
        return here / name

    return write


def arrivals(regal):
    return Counter(event["body"].get("userId") for event in regal.events(stored=True))


def track(number):
    return {"call": "track", "event": "Lesson Booked", "user_id": f"u{number}", "properties": {"n": number}}


class TestOneEvent:
    def test_it_is_a_delivery_with_an_outcome(self, run, here, regal, ledger_path):
        properties = ("--properties", '{"price": 30}', "--traits", '{"plan": "gold"}')
        code, out, err = run(*TRACK, "--user-id", "anne", "--phone", "(212) 555-0100", *properties, "--yes")
        assert code == 0
        assert "acknowledged             1\n" in out
        assert out.endswith("Delivery 1\n")
        assert err == "Delivery 1: read 1 row, 1 to send\n"
        (event,) = regal.events()
        body = event["body"]
        assert (body["name"], body["userId"], body["properties"]) == ("Lesson Booked", "anne", {"price": 30})
        assert body["traits"]["plan"] == "gold"
        assert "+12125550100" in body["traits"]["phones"]
        assert outcomes(ledger_path, 1)[0]["status"] == "acknowledged"
        assert "anne" not in json.dumps([one["run_id"] for one in deliveries(ledger_path)])

    def test_every_call_has_its_fields(self, run, here, regal):
        assert run("send", "--call", "identify", "--email", "anne@example.com", "--traits", '{"plan": "x"}')[0] == 0
        assert run("send", "--call", "page", "--event", "Pricing", "--user-id", "anne", "--yes")[0] == 0
        assert run("send", "--call", "screen", "--user-id", "anne", "--yes")[0] == 0
        assert [event["name"] or "identify" for event in regal.events()] == ["identify", "pageview", "screen"]
        assert regal.stats()["contract_findings"] == {}

    def test_what_may_reach_people_is_asked_for_and_that_it_was_sent_before_is_told(self, run, here, regal):
        code, out, err = run(*TRACK, "--user-id", "anne")
        assert code == 2
        assert "This track event may start journeys, and so calls or texts to people." in out
        assert "Add --yes; nothing was sent." in err
        assert run(*TRACK, "--user-id", "anne", "--yes")[0] == 0
        code, out, _ = run(*TRACK, "--user-id", "anne")
        assert code == 2
        assert "Delivery 1 sent the same at 20" in out
        assert arrivals(regal) == {"anne": 1}
        assert run(*TRACK, "--user-id", "anne", "--yes")[0] == 0
        assert arrivals(regal) == {"anne": 2}

    def test_a_message_id_is_sent_once(self, run, here, regal):
        for _ in range(2):
            code, out, _ = run(*TRACK, "--user-id", "anne", "--message-id", "m-1", "--yes")
            assert code == 0
        assert "duplicate              1" in out
        assert arrivals(regal) == {"anne": 1}

    def test_an_old_event_is_rejected_unless_its_age_does_not_matter(self, run, here, regal):
        old = (*TRACK, "--user-id", "anne", "--timestamp", "2020-01-01T00:00:00Z", "--yes")
        code, _, err = run(*old)
        assert code == 1
        assert "older than max_event_age" in err
        assert run(*old, "--max-event-age-days", 0)[0] == 0

    def test_faults_are_said_before_anything_is_kept(self, run, here, ledger_path):
        code, out, err = run(*TRACK, "--phone", "123", "--yes")
        assert (code, out) == (1, "")
        assert "phone: not a valid phone number" in err
        assert "error: --traits is not JSON: Expecting" in run(*TRACK, "--user-id", "a", "--traits", "{plan}")[2]
        assert "--traits must be an object of JSON" in run(*TRACK, "--user-id", "a", "--traits", "[1]")[2]
        assert not ledger_path.exists()


class TestFiles:
    def test_lines_that_say_what_they_are_and_those_of_segment(self, run, file, regal):
        path = file(
            track(1),
            {"call": "identify", "user_id": "u2", "traits": {"plan": "gold"}},
            {"type": "track", "event": "Paid", "userId": "u3", "messageId": "m"},
            {"type": "group", "userId": "u4"},
        )
        code, out, _ = run("send", "--file", path, "--yes")
        assert code == 0
        assert arrivals(regal) == {"u1": 1, "u2": 1, "u3": 1}
        assert "not included           1" in out

    def test_plain_rows_need_a_call(self, run, file, regal):
        path = file({"user_id": "u1", "price": 3}, {"user_id": "u2", "price": 4})
        code, _, err = run("send", "--file", path, "--yes")
        assert code == 1
        assert "events.jsonl line 1: rejected, call: is missing: write one of identify, track" in err
        assert run("send", "--file", path, "--call", "track", "--event", "Paid", "--yes")[0] == 0
        assert {event["name"] for event in regal.events()} == {"Paid"}
        assert run("send", "--file", path, "--call", "identify")[0] == 0  # asks no question

    def test_a_line_that_is_no_json_is_named_with_its_file_and_line_and_the_others_are_sent(self, run, file, regal):
        path = file(track(1), '{"call": "track", ', {"call": "dial"}, track(2))
        code, _, err = run("send", "--file", path, "--yes")
        assert code == 1
        assert "events.jsonl line 2: rejected, the line: is not JSON" in err
        assert "events.jsonl line 3: rejected, call: must be one of identify, track, page, screen, not 'dial'" in err
        assert "All of them: airflow regal outcomes 1. Send them again: airflow regal redeliver 1" in err
        assert "Traceback" not in err
        assert arrivals(regal) == {"u1": 1, "u2": 1}

    def test_stdin(self, run, here, regal, monkeypatch):
        text = "".join(f"{json.dumps(track(number))}\n" for number in range(3))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(text.encode()), isatty=lambda: False))
        assert run("send", "--file", "-", "--yes")[0] == 0
        assert arrivals(regal) == {"u0": 1, "u1": 1, "u2": 1}

    def test_what_regal_refuses_is_exit_code_1(self, run, file, regal, ledger_path):
        regal.set_faults([{"on": {"every": 2}, "do": {"status": 400}}])
        code, out, err = run("send", "--file", file(track(1), track(2)), "--yes")
        assert code == 1
        assert "rejected                 1\n" in out
        assert "HTTP 400" in err
        assert deliveries(ledger_path)[0]["state"] == "finished"
        regal.set_faults([])
        assert run("redeliver", 1)[0] == 0
        assert set(arrivals(regal).values()) == {1}

    def test_a_dry_run_and_the_rate(self, run, file, regal, ledger_path):
        path = file(*map(track, range(4)))
        code, out, _ = run("send", "--file", path, "--dry-run")
        assert code == 0
        assert out.endswith("Dry run: nothing was sent or kept\n")
        assert regal.stats()["requests"] == 0
        assert deliveries(ledger_path) == []
        began = time.monotonic()
        assert run("send", "--file", path, "--rate", 2, "--yes")[0] == 0
        assert time.monotonic() - began > 1

    def test_what_may_have_arrived_is_sent_again_only_if_asked_for(self, run, file, regal):
        broken = [{"on": {"from": 1, "to": 1}, "do": {"status": 500}}]
        for guarantee, code in (("at_most_once", 1), ("at_least_once", 0)):
            regal.set_faults(broken)
            path = file(track(1), name=f"{guarantee}.jsonl")
            assert run("send", "--file", path, "--guarantee", guarantee, "--yes")[0] == code

    def test_a_file_that_is_not_there_is_one_sentence(self, run, here):
        code, out, err = run("send", "--file", "/nothing.jsonl", "--yes")
        assert (code, out) == (1, "")
        assert err.startswith("error: There is no file /nothing.jsonl.")


class TestStopped:
    def test_ctrl_c_saves_the_rest_and_the_same_command_resumes(self, file, regal, run, ledger_path):
        path = file(*map(track, range(60)))
        arguments = ("send", "--file", str(path), "--rate", "10", "--yes")
        process = program(*arguments)
        wait_for(lambda: regal.stats()["stored"] >= 3, process)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)

        assert process.returncode == 130
        assert "Traceback" not in err
        assert "left, and saved: the same command resumes with them." in err
        sent = regal.stats()["stored"]
        assert 3 <= sent < 60
        assert f"acknowledged{sent:>14}" in out
        assert f"left{60 - sent:>22}" in out

        path.write_text("")  # the rows sent are those that were read
        code, out, err = run("send", "--file", path, "--yes")
        assert code == 0
        assert "acknowledged            60\n" in out
        assert arrivals(regal) == {f"u{number}": 1 for number in range(60)}
        assert len(deliveries(ledger_path)) == 1

    def test_a_command_that_runs_already_is_not_started_twice(self, file, regal, run):
        arguments = ("send", "--file", str(file(*map(track, range(60)))), "--rate", "5", "--yes")
        process = program(*arguments)
        wait_for(lambda: regal.stats()["stored"] >= 1, process)
        try:
            code, _, err = run(*arguments)
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)
        assert code == 1
        assert "error: The same command is running now: delivery 1." in err

    def test_an_outage_is_one_error_and_the_same_command_resumes(self, file, regal, run):
        regal.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 600}}])
        path = file(track(1))
        code, _, err = run("send", "--file", path, "--yes")
        assert code == 1
        assert "1 row left, and saved: the same command resumes with them." in err
        assert "error: Regal could not be reached, or asked to wait" in err
        regal.set_faults([])
        assert run("send", "--file", path, "--yes")[0] == 0
        assert arrivals(regal) == {"u1": 1}


def wait_for(condition, process, most_s=60.0):
    ends = time.monotonic() + most_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_progress_is_one_line_that_is_written_anew_on_a_terminal(file, regal, here):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "airflow_provider_regal", "send", "--file", str(file(*map(track, range(30))))]
    process = subprocess.Popen(
        [*command, "--rate", "10", "--yes"], stdout=subprocess.PIPE, stderr=theirs, cwd=ROOT, env=dict(os.environ)
    )
    os.close(theirs)
    written = b""
    while True:
        try:
            piece = os.read(ours, 65_536)
        except OSError:  # the process has ended
            break
        if not piece:
            break
        written += piece
    os.close(ours)
    out, _ = process.communicate()
    assert process.returncode == 0
    lines = [part for part in written.decode().split("\r\x1b[K") if "% ·" in part]
    assert len(lines) >= 3
    assert all(line.startswith("[") and "/30 " in line for line in lines)
    assert b"read                    30" in out


def test_the_bar_is_drawn_of_a_line_of_progress():
    line = "12,000/50,000 24 % · 298/s · 3 rejected · ETA 2m07s"
    assert is_progress(line)
    assert not is_progress("Delivery 1: read 3 rows, 3 to send")
    assert with_bar(line) == "[#####...................] 12,000/50,000 24 % · 298/s · 3 rejected · ETA 2m07s"
    assert with_bar("0/0 - · 0/s").startswith("[" + "." * 24 + "]")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "name what to send"),
        (["--call", "track"], "--call track needs --event"),
        (["--call", "identify", "--event", "X"], "--event: not for identify"),
        (["--file", "f", "--phone", "1"], "--phone: of one event, not with --file"),
        (["--file", "f", "--event", "X"], "--event: with --file, only with --call track"),
    ],
)
def test_wrong_usage_is_exit_code_2_in_both_front_ends(run, capsys, arguments, told):
    with pytest.raises(SystemExit) as stopped:
        run("send", *arguments)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err
    args = airflow_parser().parse_args(["regal", "send", *arguments])
    with pytest.raises(SystemExit) as stopped:
        args.func(args)
    assert stopped.value.code == 2
