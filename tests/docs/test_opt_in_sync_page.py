"""The page about the opt-in sync: its example file results in the stated decisions."""

from __future__ import annotations

import re
import sqlite3
from contextlib import closing

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from tests.docs.blocks import blocks_of
from tests.operators.ways import context

PAGE = "docs/opt-in-sync.md"


def the_file_and_its_task(folder):
    (form,) = (block.code for block in blocks_of(PAGE) if block.language == "text")
    (folder / "form").mkdir()
    (folder / "form" / "2026.csv").write_text(form)
    (code,) = (block.code for block in blocks_of(PAGE) if "opt_ins_of_the_form" in block.code)
    return re.search(r"RegalOptInSyncOperator\(.*\)", code.replace("/data/", f"{folder}/"), re.DOTALL)[0]


def run(task):
    here = context()
    eval(task, {"RegalOptInSyncOperator": RegalOptInSyncOperator}).execute(here)
    return here["ti"].report


def consents(ledger):
    with closing(sqlite3.connect(ledger)) as connection:
        found = connection.execute("SELECT identifier, subscribed, evidence_at FROM regal_consents ORDER BY identifier")
        return [(identifier, subscribed, at[:19]) for identifier, subscribed, at in found]


def test_the_file_of_yes_and_no_is_sent_in_the_time_zone_of_the_task(regal, regal_ledger, tmp_path):
    report = run(the_file_and_its_task(tmp_path))
    assert (report["read"], report["acknowledged"], report["skipped"]) == (3, 2, 1)
    assert consents(regal_ledger) == [
        ("+12125550101", 1, "2026-03-02T19:05:09"),
        ("+12125550102", 0, "2026-04-01T13:30:00"),
    ]
    assert regal.stats()["contract_findings"] == {}


def test_a_time_without_a_zone_is_utc_where_no_time_zone_is_given(regal, regal_ledger, tmp_path):
    run(the_file_and_its_task(tmp_path).replace('timezone="America/New_York",', ""))
    assert consents(regal_ledger)[0] == ("+12125550101", 1, "2026-03-02T14:05:09")
