"""Descriptions of a delivery, in every state."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.ledger.admin import words
from airflow_provider_regal.ledger.admin.monitoring import FixedBy, UnknownLeft
from airflow_provider_regal.ledger.admin.words import Since, TaskNow
from airflow_provider_regal.ledger.deliveries import Counts, Record
from airflow_provider_regal.ledger.text import to_ledger_time

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)


def ago(**span) -> str:
    return to_ledger_time(NOW - timedelta(**span))


def record(**more) -> Record:
    given = {
        "id": 7, "incarnation": 0, "account": "acme", "dag_id": "crm", "run_id": "r", "task_id": "t", "map_index": -1,
        "name": None, "call": "track", "source": "", "options": None, "epoch": 0, "try_number": 1, "restarted": 0,
        "holder": None, "held_at": ago(seconds=1), "hold_s": 60, "state": "finished", "kept_rows": 10, "read_rows": 10,
        "acknowledged": 10, "rejected": 0, "unknown": 0, "skipped": 0, "rate": 100, "counts": None, "error": None,
        "started_at": ago(hours=1), "ended_at": None,
    }  # fmt: skip
    return Record(**{**given, **more})


LIVE = {"holder": "h", "state": "sending", "acknowledged": 4}


@pytest.mark.parametrize(
    ("given", "counts", "word", "tone"),
    [
        ({}, {}, "OK", "good"),
        ({"unknown": 9}, {}, "OK, CHECK 9", "warn"),
        ({"rejected": 3}, {}, "OK", "good"),
        ({"state": "failed"}, {}, "FAILED", "bad"),
        ({"state": "stopped", "acknowledged": 4}, {}, "STOPPED, 6 LEFT", "bad"),
        (LIVE, {}, "SENDING 40 %", "busy"),
        ({**LIVE, "state": "reading", "kept_rows": None}, {}, "READING", "busy"),
        (LIVE, {"outage_since": ago(minutes=6)}, "OUTAGE 6 min", "bad"),
        ({**LIVE, "held_at": ago(hours=3)}, {"outage_since": ago(minutes=6)}, "STALLED 3 h", "bad"),
        ({**LIVE, "holder": None, "held_at": ago(minutes=4)}, {}, "STALLED 4 min", "bad"),
        ({"state": "planned", "acknowledged": 0}, {}, "WAITS FOR APPROVAL", "warn"),
        ({"state": "expired"}, {}, "EXPIRED", "none"),
        ({"state": "replaced"}, {}, "REPLACED", "none"),
    ],
)
def test_the_state_in_words(given, counts, word, tone):
    state = words.state_of(record(**given), Counts(**counts), NOW)
    assert (state.word, state.tone) == (word, tone)


GONE = {**LIVE, "held_at": ago(seconds=5)}
DYING = {**LIVE, "held_at": ago(seconds=2)}
STALLED = {**LIVE, "held_at": ago(hours=3)}


@pytest.mark.parametrize(
    ("given", "task", "word", "tone"),
    [
        (GONE, TaskNow.RUNNING, "SENDING 40 %", "busy"),
        (GONE, TaskNow.WAITING, "STOPPED, RETRY WAITING", "warn"),
        (GONE, TaskNow.OVER, "TASK DEAD", "bad"),
        (DYING, TaskNow.WAITING, "SENDING 40 %", "busy"),  # it commits, so it is running
        (DYING, TaskNow.OVER, "SENDING 40 %", "busy"),
        (STALLED, TaskNow.RUNNING, "STALLED 3 h", "bad"),
        (STALLED, TaskNow.WAITING, "STOPPED, RETRY WAITING", "warn"),
        (STALLED, TaskNow.OVER, "TASK DEAD", "bad"),
        ({**GONE, "state": "reading", "kept_rows": None}, TaskNow.OVER, "TASK DEAD", "bad"),
        ({"state": "stopped", "acknowledged": 4}, TaskNow.OVER, "STOPPED, 6 LEFT", "bad"),  # its own record says so
        ({}, TaskNow.OVER, "OK", "good"),
    ],
)
def test_the_state_where_airflow_knows_more_than_the_ledger(given, task, word, tone):
    state = words.state_of(record(**given), Counts(), NOW, Since(task))
    assert (state.word, state.tone) == (word, tone)


def test_of_a_task_that_is_gone_it_is_said_whether_somebody_has_to_act():
    waiting, dead = (
        (
            words.what_happened(record(**GONE), Counts(), NOW, Since(task)),
            words.next_steps(record(**GONE), Counts(), NOW, Since(task)),
        )
        for task in (TaskNow.WAITING, TaskNow.OVER)
    )
    for happened, _ in (waiting, dead):
        assert happened.startswith("The task's process is gone: it was killed, or its worker was lost.")
        assert happened.endswith("4 of 10 rows have an outcome.")
    assert waiting[1][0].startswith("Nothing: Airflow runs the task again. It resumes here,")
    assert dead[1][0].startswith("Airflow does not run it again: clear the task. It resumes here,")
    assert not words.is_alive(record(**GONE), NOW, TaskNow.OVER)
    assert words.is_alive(record(**GONE), NOW)


def test_the_command_names_the_connection_that_the_rows_were_sent_with():
    assert "(airflow regal redeliver 7 --status unknown --conn-id regal_crm)" in steps(unknown=3, conn_id="regal_crm")
    assert "(airflow regal redeliver 7 --status unknown)" in steps(unknown=3, conn_id="regal_default")
    assert "(airflow regal redeliver 7 --conn-id 'a b')" in steps(state="failed", rejected=2, conn_id="a b", refused=2)
    assert words.conn_id_of(record()) == "acme", "an account is called like its connection, if nobody said otherwise"


def test_a_reason_is_told_without_the_advice_in_it():
    drift = "price: type_drift: is text, which Regal keeps. Cast it, or accept it: airflow regal contract accept x text"
    assert words.without_advice(drift) == (
        "price: type_drift: is text, which Regal keeps",
        "Cast it, or accept it: airflow regal contract accept x text",
    )
    for reason in ("rejected, HTTP 400", "phone: not a phone. (x)", "v1.2: No", ""):
        assert words.without_advice(reason) == (reason, "")


def test_an_outage_and_a_failure_come_before_what_only_runs_or_is_fine():
    found = [
        words.state_of(record(**given), Counts(**counts), NOW).severity
        for given, counts in (
            (LIVE, {"outage_since": ago(minutes=6)}),
            ({"state": "stopped", "acknowledged": 4}, {}),
            ({"unknown": 1}, {}),
            (LIVE, {}),
            ({}, {}),
        )
    ]
    assert found == sorted(found)
    assert len({*found}) == 5


def steps(counts=None, refused=0, **given) -> str:
    return " ".join(words.next_steps(record(**given), Counts(**(counts or {})), NOW, refused=refused))


def test_what_to_do_is_true_for_the_call():
    assert "clear the task: rejected rows are tried again as they were read" in steps(state="failed", rejected=2)
    assert "Clear the task: it reads the source again" in steps(state="failed", rejected=2, call="identify")
    assert "the next run of the sync reads them again" in steps({"plan": {"sent": 1}}, state="failed", rejected=2)
    assert "Clear the task to plan again." in steps(state="failed", rejected=2, plan="{}")
    assert "the rows are sent as they were read" in steps({"guard": "The source has 9 rows"}, state="stopped")
    assert "Clearing the task sends no row again" in steps(state="failed", rejected=2, sender="[]")
    assert "reaches the person twice" in steps(unknown=3)
    assert "reaches the person twice" not in steps(unknown=3, call="identify")
    assert "correct the source: the next run reads it." in steps(rejected=2)
    tolerated = steps({"plan": {"sent": 1}}, rejected=2)
    assert "correct the source: the next sync sends them." in tolerated
    assert "redeliver" not in tolerated
    assert steps() == ""


@pytest.mark.parametrize("more", [{}, {"call": "identify"}, {"sender": "[]"}])
def test_rows_that_were_invalid_are_not_to_be_redelivered_as_they_are(more):
    failed = {"state": "failed", "rejected": 3, **more}
    assert "airflow regal redeliver" not in steps(**failed)
    assert "the 2 rows now that it refused, redeliver them (airflow regal redeliver 7" in steps(refused=2, **failed)
    if "call" in more:
        assert "Fix the data in the source, or the mapping. Clear the task" in steps(**failed)
        assert "With only_changed, only rows that are not acknowledged are sent" in steps(**failed)


@pytest.mark.parametrize(
    ("task", "step"),
    [
        (TaskNow.RUNNING, "If the task has retries left, Airflow resumes by itself. Otherwise: clear the task: it"),
        (TaskNow.WAITING, "Nothing: Airflow runs the task again. It resumes here, and sends no acknowledged row again"),
        (TaskNow.OVER, "Airflow does not run it again. Clear the task: it resumes with the 6 rows left"),
    ],
)
def test_a_stopped_delivery_needs_somebody_only_if_airflow_does_not_retry(task, step):
    stopped = record(state="stopped", acknowledged=4, error="The task was told to stop.")
    assert words.next_steps(stopped, Counts(), NOW, Since(task))[0].startswith(step)
    outage = stopped._replace(error="longer than outage_patience (300 s)")
    first, second = words.next_steps(outage, Counts(), NOW, Since(task))
    assert first.startswith("Ask Regal (its status page, its support) whether it takes events again.")
    assert second.startswith(step.replace("Nothing: ", "Nothing else: ").partition(" It resumes")[0].partition(",")[0])


@pytest.mark.parametrize(
    ("unknown", "step"),
    [
        (
            (1, "Moved", 1, ago(minutes=9), ago(minutes=9)),
            "1 unknown row: event 'Moved', sent at about 2026-11-29 11:",
        ),
        (
            (3, "Moved", 2, ago(hours=2), ago(minutes=9)),
            "3 unknown rows: events 'Moved' and 1 other name, sent between 2026-11-29 10:00:00 and 11:51:00 UTC.",
        ),
        (
            (3, None, 0, ago(days=1), ago()),
            "3 unknown rows: events, sent between 2026-11-28 12:00:00 and 2026-11-29 12:",
        ),
    ],
)
def test_what_to_look_for_in_regal(unknown, step):
    look, mark, again = words.next_steps(record(unknown=9), Counts(), NOW, Since(unknown=UnknownLeft(*unknown)))
    assert step in look
    contacts = record(unknown=9, call="identify")
    assert (
        "changes of contacts, sent"
        in words.next_steps(contacts, Counts(), NOW, Since(unknown=UnknownLeft(9, None, 0, ago(), ago())))[0]
    )
    assert "airflow regal settle 7 --rows" in mark
    assert "airflow regal redeliver 7 --status unknown" in again


def test_what_was_found_replaced_or_is_left_to_check_is_in_the_state():
    def state(since, **given):
        return words.state_of(record(**given), Counts(), NOW, since)

    left = UnknownLeft(2, None, 0, ago(), ago())
    found = FixedBy((), True)
    assert state(Since(unknown=left), unknown=9).word == "OK, CHECK 2"
    assert state(Since(fix=found), unknown=9).word == "OK, FOUND AT REGAL"
    assert state(Since(fix=found), unknown=9, state="failed").word == "FIXED"
    replaced = state(Since(replaced_by=8), state="replaced")
    assert (replaced.word, replaced.by) == ("REPLACED BY delivery 8", 8)


def test_the_advice_of_a_reason_replaces_the_general_one():
    failed = record(state="failed", rejected=3, call="identify")
    general, special = (words.next_steps(failed, Counts(), NOW, advice=advice) for advice in ((), ("Cast it.",)))
    assert general[1] == "Fix the data in the source, or the mapping."
    assert special == [general[0], "Cast it.", *general[2:]]
    fixed = words.next_steps(failed, Counts(), NOW, Since(fix=FixedBy((9,), False)), advice=("Cast it.",))
    assert fixed == []


def test_after_only_changed_a_clear_is_said_to_send_what_is_missing():
    failed = {"state": "failed", "rejected": 2, "call": "identify"}
    assert "has only_changed: rows that Regal acknowledged are not sent" in steps({"only_changed": True}, **failed)
    assert "has no only_changed: all rows are sent again" in steps({"only_changed": False}, **failed)
    assert "With only_changed, only rows that are not acknowledged" in steps(**failed), "before it was on record"


def test_what_to_do_is_true_for_how_it_ended():
    left = {"state": "stopped", "acknowledged": 4}
    assert steps(**left, error="Regal refused the API key (HTTP 401).").startswith("Enter the right API key")
    assert "resumes with the 6 rows left" in steps(**left, error="longer than outage_patience (300 s)")
    assert "Fix the data or the mapping" in steps(**left, error="max_refused=0.2 stops at 20 of 100")
    assert "has retries left" in steps(**left, error="The task was told to stop.")
    assert "Check the query or the files" in steps(state="failed", acknowledged=0, error="The source has 0 rows")
    assert steps({"opt_outs_rejected": 2}, state="failed", rejected=3).startswith("First the 2 rows with an opt-out")
    assert "Look at the task in Airflow" in steps(**{**LIVE, "held_at": ago(hours=3)})
    assert "resumes by itself" in steps({"outage_since": ago(minutes=6)}, **LIVE)


def test_of_a_task_that_is_gone_the_cause_is_told_too():
    gone = "The task's process is gone: it was killed, or its worker was lost"
    assert [words.cause(record(**GONE), Counts(), NOW, Since(task)) for task in TaskNow] == ["", gone, gone]


def test_the_next_try_is_left_to_the_steps():
    error = "Regal could not be reached. Remaining rows are saved; the next try resumes with them."
    stopped = record(state="stopped", acknowledged=4, error=error)
    told = "Regal could not be reached. Remaining rows are saved."
    assert words.what_happened(stopped, Counts(), NOW) == words.cause(stopped, Counts(), NOW) == told


def test_what_happened_names_the_threshold_as_it_was_written():
    error = (
        "Of 10 rows, 3 rejected, more than max_rejected=0.05. Top reasons:\n       3 x phone: wrong\nList them with: x"
    )
    failed = record(state="failed", rejected=3, error=error)
    assert words.what_happened(failed, Counts(), NOW) == "Of 10 rows, 3 rejected, more than max_rejected=0.05."
    assert words.cause(failed, Counts(), NOW) == "Of 10 rows, 3 rejected, more than max_rejected=0.05. 3 x phone: wrong"


def test_an_eta_needs_a_speed_and_no_outage():
    counts = {"requests": 8, "seconds": 4.0}
    assert words.eta_s(record(**LIVE), Counts(**counts)) == 3
    assert words.eta_s(record(**LIVE), Counts()) is None
    assert words.eta_s(record(**LIVE), Counts(**counts, outage_since=ago(minutes=1))) is None


def test_what_is_normal_is_said_only_of_enough_runs():
    few = [record(id=number, run_id=f"{number}") for number in range(2)]
    assert words.normal_here(record(), few) == "There are too few earlier runs to say what is normal (2)."
    runs = [record(id=number, run_id=f"{number}", read_rows=100 + number, rejected=number) for number in range(4)]
    told = words.normal_here(record(read_rows=500, acknowledged=410, rejected=90), runs)
    assert "Usually 102 rows (100 to 103), 2 rejected (at most 3), 0 unknown (at most 0): the last 4 runs." in told
    assert told.endswith("This one: 500 rows, 90 rejected, 0 unknown.")
    same_run = [record(id=99, state="failed", run_id="this", read_rows=7), *runs]
    assert "Usually 102 rows (100 to 103)" in words.normal_here(record(read_rows=500, run_id="this"), same_run)
    assert words.normal_here(record(read_rows=101, acknowledged=101), runs).startswith("As usual. Usually 102 rows")
    unusual = words.normal_here(record(read_rows=101, acknowledged=70, rejected=4, unknown=1), runs)
    assert unusual.startswith("Not usual: rejected rows, unknown rows, rows left. Usually")
    assert words.normal_here(record(read_rows=99, acknowledged=99), runs).startswith("Not usual: the number of rows.")
    live = record(**{**LIVE, "read_rows": 101})
    assert words.normal_here(live, runs).startswith("As usual."), "rows of a delivery that runs are still to come"
    told = words.normal_here(record(read_rows=500, acknowledged=100), runs)
    assert (
        "0 unknown (at most 0), none left: the last 4 runs. This one: 500 rows, 0 rejected, 0 unknown, 400 left."
        in told
    )


def test_what_was_put_right_since_needs_nobody_and_names_the_delivery():
    again, redelivered = FixedBy((9,), False), FixedBy((8, 12), True)
    failed, unknown = record(state="failed", rejected=2), record(unknown=9, acknowledged=1)
    states = [
        words.state_of(one, Counts(), NOW, Since(fix=fix))
        for one, fix in ((failed, again), (failed, redelivered), (unknown, redelivered))
    ]
    assert [(state.word, state.tone, state.by) for state in states] == [
        ("FIXED BY delivery 9", "good", 9),
        ("FIXED BY delivery 12", "good", 12),
        ("OK, REDELIVERED", "good", None),
    ]
    for one in (failed, unknown):
        assert words.next_steps(one, Counts(), NOW, Since(fix=again)) == []
