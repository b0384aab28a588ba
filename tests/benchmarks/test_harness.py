"""The benchmarks still run, and reject a run whose counts are wrong."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

pytest.importorskip("httptools")  # Airflow 3 installs it, and uvloop

import airflow_provider_regal
from benchmarks import contacts, pacing, report, sync_unchanged, where_it_goes
from benchmarks.running import run_on_a_core, server
from benchmarks.senders.work import WARM_UP, Work
from benchmarks.stages import OTHER, STAGES, stage_of
from benchmarks.whole_path import CANDIDATES, Setting, WrongCountError, check, one_run

ROWS = 120


@pytest.fixture(scope="module")
def running():
    with server() as sink:
        yield sink


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmarks") / "contacts.db"
    contacts.make_table(path, WARM_UP + ROWS)
    return path


@pytest.mark.slow
def test_a_delivery_is_measured(running, database, tmp_path):
    share = ROWS / CANDIDATES["regal"][0]
    ran = one_run("regal", running, Setting(False, 0), database=database, folder=tmp_path, share=share)
    assert (ran["rows"], ran["acknowledged"]) == (ROWS, ROWS)
    assert ran["cpu_s"] > 0
    assert ran["peak_mb"] > 50


@pytest.mark.parametrize(
    ("innermost", "stage"),
    [
        ("post (/x/site-packages/aiohttp/client.py:3)", "send: aiohttp"),
        (f"read ({Path(airflow_provider_regal.__file__).parent}/events/quick.py:90)", "validate"),
        ("loads (/usr/lib/python3.11/json/decoder.py:337)", "event loop"),  # for its caller
    ],
)
def test_a_stack_is_given_to_the_stage_of_its_innermost_frame_that_has_one(innermost, stage):
    assert stage_of(f"main (run.py);_run_once (/usr/lib/python3.11/asyncio/base_events.py:1922);{innermost}") == stage
    assert stage_of("main (run.py:1)") == OTHER


def test_the_cpu_of_a_run_is_given_to_the_stages_by_how_often_each_was_seen():
    spent = where_it_goes.microseconds({"cpu_s": 0.02, "rows": 100, "stages": {"map": 1, "ledger": 3}})
    assert (set(spent), spent["map"], spent["ledger"]) == (set(STAGES), 50.0, 150.0)


def test_a_sender_that_is_refused_does_not_count(running, database, tmp_path):
    running.reset()
    work = Work(str(database), WARM_UP, ROWS, running.url, "a wrong key", 8, str(tmp_path))
    ran = run_on_a_core(["benchmarks.senders", "bare_loop", work.as_json()])
    counts = running.stats()
    assert counts["bad"] == WARM_UP + ROWS
    with pytest.raises(WrongCountError):
        check("bare_loop", sent=WARM_UP + ROWS, acknowledged=ran["acknowledged_in_all"], counts=counts)


@pytest.mark.parametrize(
    ("acknowledged", "counts"),
    [
        (99, {"ok": 100, "bad": 0, "different": 100}),
        (100, {"ok": 101, "bad": 0, "different": 100}),
        (100, {"ok": 100, "bad": 1, "different": 100}),
        (100, {"ok": 100, "bad": 0, "different": 99}),
    ],
)
def test_a_run_with_wrong_counts_does_not_count(acknowledged, counts):
    check("x", sent=100, acknowledged=100, counts={"ok": 100, "bad": 0, "different": 100})
    with pytest.raises(WrongCountError, match="x: 100 rows"):
        check("x", sent=100, acknowledged=acknowledged, counts=counts)


def test_what_others_send_is_what_this_package_sends(database):
    from datetime import UTC, datetime

    from airflow_provider_regal.delivery.reading.prepare import Preparer
    from airflow_provider_regal.delivery.settings import DeliverySettings

    preparer = Preparer(DeliverySettings.of(call="identify"), event_source="airflow")
    for row in contacts.rows(database, 0, 20):
        ready = preparer.prepare(0, row, datetime.now(UTC))
        assert ready.body == contacts.encoded(contacts.body_of(row))


def test_the_worst_second_and_the_share_are_those_of_the_arrivals():
    steady = [number / 128 for number in range(512)]  # floats without rounding errors
    assert pacing.judge(steady, 128) == {
        "worst": 128,
        "share": pytest.approx(1.0, abs=0.01),
        "share_whole": pytest.approx(1.0, abs=0.01),
        "burst": 2,
    }
    bunched = sorted([*steady, *[2.5] * 7])
    assert pacing.judge(bunched, 128)["worst"] == 135
    assert pacing.judge(bunched, 128)["burst"] == 9
    late = [at for at in steady if at < 2 or at >= 3]
    assert pacing.judge(late, 128)["share"] == pytest.approx(0.6, abs=0.01)


def test_every_table_of_the_page_is_made_of_results_and_none_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    page = report.PAGE.read_text()
    assert set(re.findall(r"<!-- table: (\w+) -->", page)) == set(report.TABLES)
    assert report.filled(page) == page, "without results nothing changes"
    run = {"rows": 1_000_000, "changed_every": 100, "cpu_s": 31.5, "reading_cpu_s": 4.0, "peak_mb": 150.0}
    rounds = [{"round": number, **run, "acknowledged": 10_000} for number in range(2)]
    (tmp_path / "unchanged_contacts.json").write_text(json.dumps({"rounds": rounds}))
    assert "| 1,000,000 | 10,000 | 31.5 (31.5-31.5) |" in report.filled(page)
    with pytest.raises(ValueError, match="which nothing makes"):
        report.filled("<!-- table: speed -->\n<!-- end -->")


def test_the_sync_that_is_measured_sends_what_changed_and_no_more(tmp_path):
    sync_unchanged.fill(tmp_path / "ledger.db", 500)
    assert sync_unchanged.one_round(tmp_path / "ledger.db", 500)[1] == 0
    assert sync_unchanged.one_round(tmp_path / "ledger.db", 500, changed=True)[1] == 5
