"""``redeliver``: exit codes, the report, and resuming after a stop or kill."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from tests.cli.conftest import track_rows
from tests.cli.front_ends import airflow_parser, program
from tests.ledger_file import dead_letters, deliveries, outcomes

REFUSE = {"on": {"from": 1}, "do": {"status": 400}}
BREAK = {"on": {"from": 1}, "do": {"status": 500}}


@pytest.fixture
def refused(deliver, regal):
    """Deliver rows that Regal refuses; returns the id of the delivery."""

    def run(count, fault=REFUSE, first=100, **options):
        report = deliver(track_rows(*range(first, first + count)), [fault], **options)
        return report.delivery

    return run


def arrivals(regal):
    return Counter(event["body"]["userId"] for event in regal.events(stored=True))


def test_it_sends_the_letters_and_shows_the_report(run, refused, regal, ledger_path):
    number = refused(3)
    code, out, err = run("redeliver", number)
    assert code == 0
    assert "acknowledged             3\n" in out
    assert out.endswith("Delivery 2\n")
    assert err == "Delivery 2: read 3 rows, 3 to send\n"
    assert set(arrivals(regal).values()) == {1}
    assert {one["redelivered_by"] for one in dead_letters(ledger_path, number)} == {2}

    code, out, err = run("redeliver", number)  # no letter is left
    assert code == 1
    assert "3 dead letters stay where they are: delivery 2 has taken them" in err
    assert set(arrivals(regal).values()) == {1}


def test_nothing_matched_is_an_error_that_says_what_was_asked_for(run, refused, regal, ledger_path):
    refused(1)
    code, out, err = run("redeliver", 7, "--dag", "x", "--since", "2d", "--status", "unknown")
    assert (code, out) == (1, "")
    assert "error: No dead letter matches (delivery 7, dag x, since 2d, status unknown); nothing was sent." in err
    assert "add --allow-empty" in err
    assert run("redeliver", "--task", "x", "--allow-empty") == (0, "No dead letter matches; nothing was sent.\n", "")
    assert len(deliveries(ledger_path)) == 1  # deliveries that did nothing are not listed


def test_letters_are_chosen_by_time_and_reason(run, refused, regal):
    refused(2)
    refused(2, BREAK, first=200, name="second")
    assert run("redeliver", "--reason", "HTTP 404")[0] == 1
    assert run("redeliver", "--since", "2d", "--until", "1d")[0] == 1
    assert run("redeliver", "--since", "1h", "--reason", "HTTP 400")[0] == 0
    assert set(arrivals(regal)) == {"u100", "u101"}
    assert run("redeliver", "--since", "1h", "--status", "unknown", "--status", "rejected")[0] == 0
    assert set(arrivals(regal)) == {"u100", "u101", "u200", "u201"}


def test_what_regal_refuses_again_is_exit_code_1_with_report_and_reason(run, refused, regal, ledger_path):
    number = refused(2)
    regal.set_faults([REFUSE])
    code, out, err = run("redeliver", number)
    assert code == 1
    assert "rejected                 2\n" in out
    assert "error: Of 2 rows, 2 rejected, more than max_rejected=0" in err
    assert "Traceback" not in err
    assert len(dead_letters(ledger_path, 2)) == 2


def test_a_dry_run_takes_and_sends_nothing(run, refused, regal, ledger_path):
    number = refused(2)
    code, out, _ = run("redeliver", number, "--dry-run")
    assert code == 0
    assert "dry run                2\n" in out
    assert out.endswith("Dry run: nothing was sent or taken\n")
    assert {one["redelivered_by"] for one in dead_letters(ledger_path, number)} == {None}
    assert arrivals(regal) == Counter()
    assert len(deliveries(ledger_path)) == 1


def test_unknown_letters_are_sent_only_when_asked_for(run, refused, regal):
    number = refused(2, BREAK)
    code, _, err = run("redeliver", number)
    assert code == 1
    assert arrivals(regal) == Counter()
    code, _, err = run("redeliver", number, "--status", "unknown")
    assert code == 0
    assert "2 unknown rows are sent again, as asked: people may be reached twice" in err
    assert len(arrivals(regal)) == 2


def test_so_many_at_most_and_not_faster(run, refused, regal):
    number = refused(5)
    began = time.monotonic()
    assert run("redeliver", number, "--limit", 3, "--rate", 2)[0] == 0
    assert time.monotonic() - began > 0.9
    assert set(arrivals(regal)) == {"u100", "u101", "u102"}
    assert run("redeliver", number, "--limit", 3)[0] == 0  # another three: two are left
    assert len(arrivals(regal)) == 5


def test_the_age_of_events_is_checked_again(run, deliver, regal):
    rows = [{"user_id": "u1", "timestamp": "2020-01-01T00:00:00Z"}]
    number = deliver(rows, [REFUSE], max_event_age=None).delivery
    code, out, _ = run("redeliver", number)
    assert code == 1
    assert "older than max_event_age" in out
    assert run("redeliver", number, 2, "--max-event-age-days", 0)[0] == 0
    assert arrivals(regal) == Counter({"u1": 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--conn-id", "nowhere", "1"], "nowhere"),
        (["--ledger-conn-id", "nowhere", "1"], "nowhere"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(run, refused, airflow_db, options, words):
    refused(1)
    code, out, err = run("redeliver", *options)
    assert (code, out) == (1, "")
    assert words in err
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_airflow_runs_it_too(refused, regal):
    number = refused(1)
    args = airflow_parser().parse_args(["regal", "redeliver", str(number), "--max-event-age-days", "0"])
    args.func(args)
    assert len(arrivals(regal)) == 1


# -- resuming ---------------------------------------------------------------------------------------------------------


def begin(regal, *options, sent=10):
    """Begin it in a process of its own, and wait until it has sent some."""
    before = len(regal.events(stored=True))
    process = program("redeliver", *options)
    deadline = time.monotonic() + 60
    while len(regal.events(stored=True)) - before < sent and time.monotonic() < deadline:
        time.sleep(0.02)
    return process


@pytest.mark.parametrize(
    ("how", "code", "words"),
    [("kill", -9, ""), ("terminate", 1, "error: "), ("interrupt", 130, "Interrupted. The same command resumes.\n")],
)
@pytest.mark.slow
def test_the_same_command_resumes(run, refused, regal, ledger_path, how, code, words):
    number = refused(60)
    process = begin(regal, str(number), "--rate", "20")
    process.send_signal({"kill": 9, "terminate": 15, "interrupt": 2}[how])
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert words in err
    assert "Traceback" not in err

    code, out, err = run("redeliver", number)

    assert code == 0, err
    assert "Resuming delivery 2" in err
    assert out.endswith("Delivery 2\n")
    assert set(arrivals(regal).values()) == {1}
    status = Counter(one["status"] for one in outcomes(ledger_path, 2))
    assert status.total() == 60
    assert set(status) <= {"acknowledged", "unknown"}
    assert len(deliveries(ledger_path)) == 2
    if how != "kill":
        assert status == {"acknowledged": 60}


@pytest.mark.slow
def test_the_same_command_does_not_take_over_from_one_that_runs(run, refused, regal):
    number = refused(100)
    process = begin(regal, str(number), "--rate", "10")
    try:
        code, _, err = run("redeliver", number)
        assert code == 1
        assert "error: The same command is running now: delivery 2. Wait until it has ended." in err
        assert process.poll() is None
    finally:
        process.terminate()
        process.communicate(timeout=60)


@pytest.mark.slow
def test_another_selection_is_another_delivery(run, refused, regal, ledger_path):
    number = refused(40)
    process = begin(regal, str(number), "--rate", "20", "--limit", "30")
    process.terminate()
    process.communicate(timeout=60)
    assert run("redeliver", number)[0] == 0  # the ten that are not taken
    assert [(one["id"], one["read_rows"], one["state"]) for one in deliveries(ledger_path)] == [
        (1, 40, "failed"),
        (2, 30, "stopped"),
        (3, 10, "finished"),
    ]
    assert run("redeliver", number, "--limit", 30)[0] == 0
    assert set(arrivals(regal).values()) == {1}
    assert len(arrivals(regal)) == 40
