"""The button that redelivers: who has it, what it triggers, and that nothing else does."""

from __future__ import annotations

import importlib.util
import json
import os
from pathlib import Path

import pytest

from tests.ledger.view import open_database
from tests.ledger.written import line, write
from tests.plugin.test_pages import NOW, audit_log, failed

DAG_FILE = Path(__file__).parents[2] / "dags" / "07_redeliver.py"


@pytest.fixture(scope="module")
def redeliver_dag(airflow_db):
    """Let Airflow have the shipped DAG, as its DAG processor stores it."""
    from airflow.dag_processing.bundles.manager import DagBundlesManager
    from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db

    spec = importlib.util.spec_from_file_location("redeliver", DAG_FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    DagBundlesManager().sync_bundles_to_db()
    bag = DagBag(dag_folder=os.devnull)
    bag.bag_dag(module.dag)
    sync_bag_to_db(bag, "dags-folder", None)


def runs():
    from airflow.models.dagrun import DagRun
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        wanted = select(DagRun).where(DagRun.dag_id == "regal_redeliver").order_by(DagRun.id)
        return [(run.run_id, run.conf, run.triggering_user_name) for run in session.scalars(wanted)]


def test_the_button_triggers_the_shipped_dag_with_what_was_chosen(site, regal_ledger, redeliver_dag, token_of, text_of):
    number, browser, before = failed(regal_ledger), site(), runs()
    path = f"/regal/deliveries/{number}"
    page = browser.get(path)
    assert "Start regal_redeliver" in page.text
    form = {"token": token_of(page), "status": "rejected", "reason": "phone:", "regal_conn_id": "regal_crm"}
    answer = browser.post(f"{path}/redeliver", data=form)
    assert answer.status_code == 303
    ((run_id, conf, by),) = runs()[len(before) :]
    assert conf == {"delivery": number, "status": "rejected", "reason": "phone:", "regal_conn_id": "regal_crm"}
    assert by == "ada"
    told = text_of(browser.get(answer.headers["location"]))
    assert f"The redelivery of 1 row was started: regal_redeliver , run {run_id} ." in told
    framed = browser.get(answer.headers["location"], headers={"sec-fetch-dest": "iframe"})
    assert "/dags/regal_redeliver" not in framed.text, "Airflow's frame would block it"
    assert "The DAG is paused: unpause it, or the run waits." in told


def test_the_button_is_not_offered_for_rows_that_would_be_rejected_again(site, regal_ledger, redeliver_dag, text_of):
    letter = {"reason": "invalid", "field": "phone", "message": "phone: holds letters", "payload": {"a": 1}}
    lines = [line(1), line(2, "rejected", **letter)]
    invalid = site().get(f"/regal/deliveries/{write(regal_ledger, lines=lines, state='failed', run='1', at=NOW)}")
    assert "Start regal_redeliver" not in invalid.text
    assert "airflow regal redeliver" not in text_of(invalid)
    assert 'name="row-2"' not in invalid.text
    lines += [line(3, "rejected", reason="HTTP 400", payload={"a": 1})]
    mixed = site().get(f"/regal/deliveries/{write(regal_ledger, lines=lines, state='failed', run='2', at=NOW)}")
    assert '<p class="happened">Rows are sent as they were read. The 1 invalid row would be rejected' in mixed.text
    assert "1 row that Regal refused can be redelivered" in text_of(mixed)
    assert ['name="row-2"' in mixed.text, 'name="row-3"' in mixed.text] == [False, True]


def test_without_a_choice_rejected_rows_of_the_account_are_meant(site, regal_ledger, redeliver_dag, token_of):
    number, browser = failed(regal_ledger), site()
    path, before = f"/regal/deliveries/{number}", len(runs())
    token = token_of(browser.get(path))
    assert browser.post(f"{path}/redeliver", data={"token": token, "status": "all"}).status_code == 303
    ((_, conf, _),) = runs()[before:]
    assert conf == {"delivery": number, "status": "rejected", "reason": None, "regal_conn_id": "acme"}


def test_the_connection_is_the_one_that_the_rows_were_sent_with(site, regal_ledger, redeliver_dag, token_of, text_of):
    number, browser = failed(regal_ledger), site()
    path, before = f"/regal/deliveries/{number}", len(runs())
    change(regal_ledger, "UPDATE regal_deliveries SET conn_id = 'regal_crm'")
    page = browser.get(path)
    assert '<input name="regal_conn_id" value="regal_crm">' in page.text
    assert f"airflow regal redeliver {number} --conn-id regal_crm" in text_of(page)
    assert browser.post(f"{path}/redeliver", data={"token": token_of(page)}).status_code == 303
    ((_, conf, _),) = runs()[before:]
    assert conf["regal_conn_id"] == "regal_crm"
    change(regal_ledger, "UPDATE regal_deliveries SET conn_id = 'regal_default'")
    assert "--conn-id" not in browser.get(path).text, "the command takes that by itself"
    change(regal_ledger, "UPDATE regal_deliveries SET conn_id = NULL")  # of a delivery before an upgrade
    assert '<input name="regal_conn_id" value="acme">' in browser.get(path).text


def change(regal_ledger, statement):
    database = open_database(regal_ledger)
    database.write(lambda connection: connection.exec_driver_sql(statement))
    database.close()


def test_rows_that_are_ticked_are_meant_alone(site, regal_ledger, redeliver_dag, token_of):
    lines = [line(position, "unknown", reason="HTTP 500", payload={"a": 1}) for position in (212, 215, 301)]
    number = write(regal_ledger, lines=lines, state="failed", at=NOW)
    path, browser, before = f"/regal/deliveries/{number}", site(), len(runs())
    page = browser.get(path)
    assert [f'form="chosen" name="row-{position}"' in page.text for position in (212, 213, 215)] == [1, 0, 1]
    form = {"token": token_of(page), "status": "unknown", "row-301": "on", "row-212": "on", "row-x": "on"}
    assert browser.post(f"{path}/redeliver", data=form).status_code == 303
    ((_, conf, _),) = runs()[before:]
    assert (conf["status"], conf["positions"]) == ("unknown", "212, 301")


def test_the_button_below_the_rows_redelivers_what_is_ticked_whatever_its_status(
    site, regal_ledger, redeliver_dag, token_of
):
    lines = [line(1, "rejected", reason="HTTP 400", payload={"a": 1}), line(2, "unknown", payload={"a": 1})]
    number = write(regal_ledger, lines=lines, state="failed", at=NOW)
    path, browser, before = f"/regal/deliveries/{number}", site(), runs()
    page = browser.get(path)
    assert '<button form="chosen" name="only" value="ticked">' in page.text
    form = {"token": token_of(page), "status": "rejected", "only": "ticked"}
    nothing = browser.post(f"{path}/redeliver", data=form)
    assert (nothing.status_code, len(runs())) == (400, len(before)), "not all rows"
    assert "No row is ticked" in nothing.text
    assert browser.post(f"{path}/redeliver", data={**form, "row-2": "on"}).status_code == 303
    ((_, conf, _),) = runs()[len(before) :]
    assert (conf["status"], conf["positions"]) == ("both", "2")


def test_an_old_copy_of_the_dag_that_would_send_all_rows_is_not_started(site, regal_ledger, redeliver_dag, token_of):
    from airflow.models.serialized_dag import SerializedDagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        stored = session.scalars(
            select(SerializedDagModel).where(SerializedDagModel.dag_id == "regal_redeliver")
        ).first()
        before, data = len(runs()), stored.data
        params = data["dag"]["params"]
        stored._data = {**data, "dag": {**data["dag"], "params": [one for one in params if one[0] != "positions"]}}
    number, browser = failed(regal_ledger), site()
    path = f"/regal/deliveries/{number}"
    try:
        token = token_of(browser.get(path))
        answer = browser.post(f"{path}/redeliver", data={"token": token, "row-211": "on"})
        assert answer.status_code == 400
        assert "Your copy of regal_redeliver" in answer.text
        assert len(runs()) == before
        assert browser.post(f"{path}/redeliver", data={"token": token}).status_code == 303, "all rows: it can do that"
    finally:
        with create_session(scoped=False) as session:
            wanted = select(SerializedDagModel).where(SerializedDagModel.dag_id == "regal_redeliver")
            session.scalars(wanted).first()._data = data


def test_who_may_not_trigger_it_has_no_button_and_no_way(site, regal_ledger, redeliver_dag, token_of):
    number, before = failed(regal_ledger), len(runs())
    path, viewer = f"/regal/deliveries/{number}", site("vera", "VIEWER")
    page = viewer.get(path)
    assert "airflow regal redeliver" in page.text
    assert "Start regal_redeliver" not in page.text
    assert viewer.post(f"{path}/redeliver", data={"token": "x"}).status_code == 403
    elsewhere = site("only-web+regal_redeliver", "USER")
    token = token_of(site("only-crm+regal_redeliver", "USER").get(path))
    assert elsewhere.post(f"{path}/redeliver", data={"token": token}).status_code == 403
    assert len(runs()) == before


def test_the_command_says_exactly_what_is_listed(site, regal_ledger, text_of):
    lines = [
        line(1, "rejected", reason="HTTP 400", message="no", payload={"a": 1}),
        line(2, "unknown", reason="HTTP 500", payload={"b": 1}),
    ]
    number = write(regal_ledger, lines=lines, state="failed", at=NOW)

    def command(query=""):
        return text_of(site().get(f"/regal/deliveries/{number}{query}"))

    assert f"airflow regal redeliver {number} Rows" in command() or f"airflow regal redeliver {number}" in command()
    assert f"airflow regal redeliver {number} --status unknown" in command("?status=unknown")
    assert f"airflow regal redeliver {number} --reason 'HTTP 400'" in command("?reason=HTTP%20400")
    done = write(regal_ledger, lines=[line(1)], run="done", at=NOW)
    assert "airflow regal redeliver" not in text_of(site().get(f"/regal/deliveries/{done}"))


# -- rows that Regal has -----------------------------------------------------------------------------------------------


def doubtful(regal_ledger, **more):
    lines = [line(1), *(line(position, "unknown", reason="HTTP 500", payload={"a": 1}) for position in (2, 3, 4))]
    return write(regal_ledger, lines=lines, at=NOW, **more)


def test_unknown_rows_are_marked_as_found_at_regal(site, regal_ledger, token_of, text_of):
    number, before = doubtful(regal_ledger, dag="crm"), len(audit_log())
    path, browser = f"/regal/deliveries/{number}", site()
    page = browser.get(path)
    told = text_of(page)
    assert "Look in Regal for the 3 unknown rows: events 'Lesson Booked', sent at about 2026-11-29 12:00:00" in told
    assert [f'form="chosen" name="row-{position}"' in page.text for position in (1, 2, 3, 4)] == [0, 1, 1, 1]
    form = {"token": token_of(page), "found": "ticked"}
    nothing = browser.post(f"{path}/settle", data=form)
    assert (nothing.status_code, "No row is ticked" in nothing.text) == (400, True)
    answer = browser.post(f"{path}/settle", data={**form, "row-2": "on", "row-4": "on", "row-1": "on"})
    assert answer.status_code == 303
    page = browser.get(answer.headers["location"])
    told = text_of(page)
    assert "2 rows are marked as found at Regal now: no redelivery sends them." in told
    assert "OK, CHECK 1" in told
    assert told.count("found at Regal") == 1 + 2 + 2, "the note, two sums, and the rows"
    assert [f'form="chosen" name="row-{position}"' in page.text for position in (2, 3, 4)] == [0, 1, 0]
    answer = browser.post(f"{path}/settle", data={"token": token_of(page), "found": "all"})
    told = text_of(browser.get(answer.headers["location"]))
    assert "OK, FOUND AT REGAL" in told
    assert "Of the unknown rows, 3 were found at Regal since." in told
    assert "What to do Nothing has to be done." in told
    logged = audit_log()[: len(audit_log()) - before]
    assert [one[:4] for one in logged] == [("regal.settle", "ada", "crm", "task")] * 2
    assert [json.loads(one[4]) for one in logged] == [{"delivery": number, "rows": rows} for rows in (1, 2)]


def test_nobody_marks_rows_who_may_not_change_the_task(site, regal_ledger, token_of):
    number = doubtful(regal_ledger, dag="crm")
    path = f"/regal/deliveries/{number}"
    viewer, editor = site("only-crm", role="VIEWER"), site("ada")
    page = viewer.get(path)
    assert '<button form="chosen"' not in page.text
    form = {"found": "all"}
    assert viewer.post(f"{path}/settle", data={**form, "token": token_of(editor.get(path))}).status_code == 403
    assert editor.post(f"{path}/settle", data=form).status_code == 403, "without a token"
    assert site("only-other").post(f"{path}/settle", data=form).status_code == 403
    assert editor.get(f"{path}?tick=all").text.count(" checked>") == 3
    assert viewer.get(f"{path}?tick=all").text.count(" checked>") == 0
