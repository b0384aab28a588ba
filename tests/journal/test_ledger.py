"""The ledger in a file of its own; what it does in every database stands in ``ledger_behaviour``."""

from __future__ import annotations

import multiprocessing
import sqlite3
import stat
import subprocess
import sys
import traceback
from datetime import timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, text
from sqlalchemy.pool import StaticPool

from airflow_provider_regal.journal import ledger_store
from airflow_provider_regal.journal.ledger import Claim, Ledger, LedgerError, Verdict, sqlite_engine
from airflow_provider_regal.journal.ledger_engine import transaction, writing
from airflow_provider_regal.journal.ledger_rules import from_ledger_time, to_ledger_time
from airflow_provider_regal.journal.ledger_schema import bring_up_to_date, types
from tests.events.hostile import many
from tests.journal import ledger_behaviour as behaviour
from tests.journal import ledger_crowd
from tests.journal.ledger_words import PHONE, START, Clock, Ledgers, at, one, opt_in, opt_out, sent, track


@pytest.fixture
def path(tmp_path):
    return tmp_path / "of its own" / "ledger.db"


@pytest.fixture
def ledgers(path):
    made = Ledgers(lambda: sqlite_engine(path))
    yield made
    made.close()


@pytest.mark.parametrize("check", behaviour.CHECKS, ids=behaviour.NAMES)
def test_in_sqlite(check, ledgers):
    check(ledgers)


@pytest.mark.parametrize("check", behaviour.CHECKS, ids=behaviour.NAMES)
def test_with_nothing_but_standard_sql(check, ledgers, monkeypatch):
    monkeypatch.setattr(ledger_store, "_BULK_UPDATES", {})
    ledger_store._update_of.cache_clear()
    check(ledgers)
    ledger_store._update_of.cache_clear()


def _work(path, number, rounds, failures):
    return ledger_crowd.work_beside_others(sqlite_engine(path), number, rounds, failures)


def _in_process(path, number, rounds, results):
    failures = []
    results.put((_work(path, number, rounds, failures), failures))


def test_processes_that_work_at_once_lose_nothing(path):
    context, processes, rounds = multiprocessing.get_context("spawn"), 3, 12
    results = context.Queue()
    started = [context.Process(target=_in_process, args=(path, n, rounds, results)) for n in range(processes)]
    for process in started:
        process.start()
    told = [results.get(timeout=120) for _ in started]
    for process in started:
        process.join()
    assert [failures for _, failures in told] == [[]] * processes
    gone = [key for keys, _ in told for key in keys]
    opened = Ledger(sqlite_engine(path), account="acme", run="after")
    ledger_crowd.see_that_nothing_was_lost(opened, gone, processes=processes, rounds=rounds)
    opened.close()


def test_the_file_is_for_its_owner_only(path, ledgers):
    ledgers().mark_phones([("somebody", "+12125550100")])
    files = list(path.parent.iterdir())
    assert len(files) > 1, "the log beside the file holds rows, too"
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(LedgerError, match=r"file/ledger\.db cannot be made"):
        sqlite_engine(tmp_path / "file" / "ledger.db")


def test_a_ledger_of_a_newer_version_is_refused(ledgers, path):
    ledgers()
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE regal_ledger_version SET version = 99")
    with pytest.raises(LedgerError, match=r"version 99.*Upgrade airflow-provider-regal"):
        ledgers()


def test_an_older_ledger_is_changed_to_the_newest_version_once(ledgers, path):
    ledgers().mark_phones([("somebody", "+12125550100")])
    made = []
    steps = (lambda c: made.append(1), lambda c: made.append(2), lambda c: made.append(3))
    engine = sqlite_engine(path)
    for _ in range(2):
        with transaction(engine) as connection:
            bring_up_to_date(connection, steps)
    engine.dispose()
    assert made == [2, 3]


def test_a_step_that_fails_leaves_the_ledger_as_it_was(ledgers, path):
    ledgers().mark_phones([("somebody", "+12125550100")])
    steps = (
        lambda c: None,
        lambda c: c.execute(text("ALTER TABLE regal_ledger ADD COLUMN more INTEGER")),
        lambda c: c.execute(text("no SQL")),
    )
    with pytest.raises(LedgerError):
        writing(sqlite_engine(path), lambda connection: bring_up_to_date(connection, steps))
    assert ledgers().phones_of(["somebody"]) == {"somebody": ["+12125550100"]}


@pytest.mark.parametrize("hidden", [True, False])
def test_an_error_names_nobody(hidden, path, ledgers):
    ledgers()
    opened = Ledger(create_engine(f"sqlite:///{path}", hide_parameters=hidden), account="acme", run="r")
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE regal_ledger")
    with pytest.raises(LedgerError, match=r"nothing of this step was recorded.*then run the task again") as caught:
        opened.claim([opt_in(5)])
    told = "".join(traceback.format_exception(caught.value))
    assert "no such table" in told
    assert caught.value.__cause__ is not None
    assert PHONE not in told
    opened.close()


def test_a_row_that_is_there_already_is_not_quoted(ledgers, path):
    ledgers()
    engine = sqlite_engine(path)
    row = {"account": "acme", "name": PHONE, "type": "str"}
    with pytest.raises(LedgerError) as caught:
        writing(engine, lambda connection: connection.execute(types.insert(), [row, row]), tries=2)
    assert PHONE not in "".join(traceback.format_exception(caught.value))
    engine.dispose()


def test_a_closed_ledger_leaves_no_connection_open(ledgers, path):
    opened = ledgers()
    opened.mark_phones([("somebody", "+12125550100")])
    opened.close()
    assert [file.name for file in path.parent.iterdir()] == ["ledger.db"]


def test_the_package_is_imported_without_sqlalchemy():
    code = "import sys, airflow_provider_regal.journal; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_times_sort_as_text_in_utc():
    moment = START.replace(microsecond=7).astimezone(timezone(timedelta(hours=-5)))
    assert to_ledger_time(moment) == "2026-11-24T02:00:00.000007Z"
    assert from_ledger_time("2026-11-24T02:00:00.000007Z") == moment
    with pytest.raises(ValueError, match="time zone"):
        to_ledger_time(START.replace(tzinfo=None))


@given(st.datetimes(), st.datetimes())
def test_times_sort_as_they_follow_each_other(one, other):
    utc = [moment.replace(tzinfo=START.tzinfo) for moment in (one, other)]
    assert (to_ledger_time(utc[0]) < to_ledger_time(utc[1])) == (one < other)
    assert from_ledger_time(to_ledger_time(utc[0])) == utc[0]


@pytest.mark.parametrize(
    "wrong",
    [
        {"call": "opt_in", "channel": "sms", "at": at(1)},
        {"call": "opt_in", "channel": "sms", "subscribed": True},
        {"call": "opt_in", "channel": "sms", "subscribed": True, "at": "2026-11-24"},
        {"call": "identify"},
    ],
)
def test_a_claim_that_cannot_be_decided_on_is_refused(wrong):
    with pytest.raises(ValueError, match="claim"):
        Claim(key=PHONE, **wrong)


consents = st.builds(lambda make, minute, once: make(minute, once=once), st.sampled_from([opt_in, opt_out]),
                     st.integers(0, 4), st.booleans())  # fmt: skip
steps = st.lists(
    st.tuples(
        st.sampled_from(["claim", "acknowledged", "unknown", "released", "bar", "wait"]), st.integers(0, 1), consents
    ),
    max_size=25,
)


@many
@given(steps=steps)
def test_no_opt_in_ever_goes_that_an_opt_out_bars(steps):
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    clock, barred, newest = Clock(), "", ""
    runs = [Ledger(engine, account="acme", run=f"run-{n}", now=clock) for n in range(2)]
    for step, number, claim in steps:
        if step == "claim":
            if one(runs[number], claim) is Verdict.GO:
                assert not claim.subscribed or claim.at > barred
                if not claim.subscribed:
                    barred = max(barred, claim.at)
        elif step == "bar":
            runs[number].bar([(claim.key, claim.channel, claim.at)])
            barred = max(barred, claim.at)
        elif step == "wait":
            clock.wait(100)
        else:
            runs[number].settle(**{step: [claim]})
            if step != "released" and not claim.subscribed:
                barred = max(barred, claim.at)
        for _, _, _, evidence, opted_out, state, _, pending, *_ in runs[0].consents():
            assert (opted_out or "") == barred
            assert (evidence or "") >= newest, "evidence never gets older"
            assert (pending is not None) == (state in ("sending", "unknown"))
            newest = evidence or ""
    engine.dispose()


@many
@given(steps=steps)
def test_no_event_goes_twice_that_must_go_once(steps):
    engine = create_engine("sqlite://", poolclass=StaticPool, connect_args={"check_same_thread": False})
    runs = [Ledger(engine, account="acme", run=f"run-{n}", now=Clock()) for n in range(2)]
    claim, may_have = track(once=True), None  # which run may have sent it
    for step, number, _ in steps:
        if step == "claim":
            went = one(runs[number], claim) is Verdict.GO
            assert went == (may_have in (None, number))
            may_have = number if went else may_have
        elif step in ("acknowledged", "unknown") and may_have == number:
            runs[number].settle(**{step: [claim]})
            may_have = "somebody"
        elif step == "released" and may_have == number:
            break  # it was surely not sent: the model starts anew
    engine.dispose()


def test_an_opt_out_is_not_kept_waiting_by_a_run_that_died(ledgers):
    assert one(ledgers(), opt_in(5)) is Verdict.GO
    ledgers.clock.wait(121)
    sent(ledgers("run-2"), opt_out(6))
    assert one(ledgers("run-3"), opt_in(6)) is Verdict.STALE
