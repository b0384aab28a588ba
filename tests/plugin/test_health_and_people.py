"""The pages Health and People."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from airflow_provider_regal.ledger.states import RowState
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.ledger.view import open_database
from tests.ledger.written import line, write
from tests.plugin.test_pages import NOW, audit_log, failed, fine, held

PHONE = "+12125550100"


def test_health_says_what_check_says_without_asking_regal_or_writing(site, regal_ledger, regal, text_of):
    fine(regal_ledger)
    write(regal_ledger, lines=[line(1, "unknown", reason="HTTP 500", payload={"a": 1}, at=NOW)], run="u", at=NOW)
    before, size = regal.stats()["requests"], regal_ledger.stat().st_mtime_ns
    answer = site().get("/regal/health")
    text = text_of(answer)
    assert answer.status_code == 200
    assert "LOOK unknown rows it can't be known whether Regal received 1 row" in text
    assert text.index("LOOK unknown rows") < text.index("OK versions")
    assert "OK ledger connection regal_test_ledger: read, sqlite, schema version 3" in text
    assert "OK owed Regal has acknowledged every opt-out that could be sent" in text
    assert "OK opt-outs the last runs rejected none" in text
    assert "OK last runs the last delivery of no task failed or stopped" in text
    assert "OK accounts acme (2 deliveries)" in text
    assert "What this page cannot know" in text
    assert "Regal's host" in text
    assert regal.stats()["requests"] == before
    assert regal_ledger.stat().st_mtime_ns == size


def test_regal_is_asked_only_by_the_button_and_gets_no_event(site, regal_ledger, regal, text_of, token_of):
    fine(regal_ledger)
    token = token_of(site().get("/regal/health"))
    assert site().post("/regal/health", data={"token": "x", "conn_id": "regal_default"}).status_code == 403
    text = text_of(site().post("/regal/health", data={"token": token, "conn_id": "regal_default"}))
    assert "OK connection regal_default:" in text
    assert "OK network" in text
    assert regal.events() == []
    missing = text_of(site().post("/regal/health", data={"token": token, "conn_id": "nowhere"}))
    assert "FAILURE connection" in missing
    assert "Deliveries would not work." in missing
    assert regal.api_key not in text + missing


def test_health_counts_deliveries_that_need_a_look_as_the_page_deliveries_does(site, regal_ledger, text_of):
    fine(regal_ledger)
    assert "Health Nothing needs a look." in text_of(site().get("/regal/health"))
    failed(regal_ledger, run="failed")
    write(regal_ledger, rows=[{"a": 1}], lines=[], state="stopped", run="stopped", dag="web", at=NOW)
    outage = {"outage_since": to_ledger_time(NOW - timedelta(minutes=6)), "outage_reason": "HTTP 503"}
    held(regal_ledger, states=[RowState.ACKNOWLEDGED, RowState.OPEN], counts=outage, run="outage")
    counted = "2 failed or stopped 1 in an outage"
    assert f"Deliveries {counted} 4 deliveries" in text_of(site().get("/regal/"))
    answer = site().get("/regal/health")
    assert f"Health {counted} Deliveries of the last 7 days" in text_of(answer)
    assert "Nothing needs a look" not in text_of(answer)
    assert "OK rows left none in deliveries that stopped more than an hour ago" in text_of(answer)
    some = site("only-crm", "OP").get("/regal/health")
    assert "1 failed or stopped" in text_of(some), "of DAGs that the user may not read, nothing is counted"


def test_health_says_what_regal_answered_last_beside_the_button_that_asks_its_host(site, regal_ledger, text_of):
    since = datetime.now(UTC) - timedelta(minutes=6)
    outage = {"outage_since": to_ledger_time(since), "outage_reason": "HTTP 503"}
    held(regal_ledger, states=[RowState.ACKNOWLEDGED, RowState.OPEN], counts=outage)
    text = text_of(site().get("/regal/health"))
    assert "has taken nothing for 6 min: HTTP 503. Delivery 1" in text
    assert text.index("HTTP 503.") < text.index("Ask whether Regal's host answers")
    assert "the host may answer while events are refused" in text


def test_health_is_for_those_who_may_read_connections(site, regal_ledger):
    fine(regal_ledger)
    assert site("vera", "VIEWER").get("/regal/health").status_code == 403
    assert "/regal/health" not in site("vera", "VIEWER").get("/regal/").text
    assert site("otto", "OP").get("/regal/health").status_code == 200


def test_a_ledger_that_is_not_there_yet_is_no_failure_of_the_page(site, monkeypatch, tmp_path, text_of):
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    answer = site().get("/regal/health")
    assert answer.status_code == 200
    assert "does not exist yet: the first delivery creates it" in text_of(answer)
    assert not (tmp_path / "regal").exists()


# -- people -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def anne(regal_ledger, monkeypatch):
    monkeypatch.setenv("AIRFLOW__REGAL__PEOPLE_PAGE", "True")
    told = {
        "account": "acme", "identifier": PHONE, "channel": "sms", "subscribed": True, "given_at": "2026-11-01",
        "ip": "198.51.100.54", "text": "I agree to texts", "form": "checkout", "task": "crm.contacts", "position": 1,
        "place": None, "status": "acknowledged", "reason": None, "acknowledged_at": "2026-11-02T00:00:00.000000Z",
    }  # fmt: skip
    fields = LoggedConsent._fields if hasattr(LoggedConsent, "_fields") else LoggedConsent.__dataclass_fields__
    log = [LoggedConsent(**{name: told[name] for name in fields if name in told})]
    write(
        regal_ledger,
        lines=[
            line(1, user_id="anne", phone=PHONE),
            line(2, "rejected", reason="HTTP 400", message="no such plan", user_id="anne", payload={"a": 1}),
        ],
        log=log,
        state="failed",
        dag="crm",
        task="contacts",
        at=NOW - timedelta(hours=1),
    )
    return regal_ledger


def test_one_person_is_explained_and_is_in_no_address_and_no_log(site, anne, token_of, text_of):
    browser, before = site(), len(audit_log())
    page = browser.get("/regal/people")
    assert page.status_code == 200
    assert 'method="post"' in page.text
    answer = browser.post("/regal/people", data={"token": token_of(page), "who": f"{PHONE}, anne"})
    text = text_of(answer)
    assert f"{PHONE} · sms" in text
    assert "track 'Lesson Booked' acknowledged" in text
    assert "track 'Lesson Booked' rejected" in text
    assert "no such plan" in text
    assert "sms opt-in acknowledged" in text
    assert "198.51.100.54" in text
    (event, owner, *_, extra), *older = audit_log()
    assert (event, owner, extra) == ("regal.person", "ada", '{"identifiers": 2}')
    assert len(older) == before
    nobody = browser.post("/regal/people", data={"token": token_of(page), "who": "+12125550199"})
    assert "Nothing is on record of the phone +12125550199" in text_of(nobody)
    assert browser.get("/regal/people", params={"who": "anne"}).text == page.text or "anne" not in text_of(
        browser.get("/regal/people", params={"who": "anne"})
    )


def test_the_proof_is_what_the_command_line_exports(site, anne, token_of):
    browser = site()
    token = token_of(browser.get("/regal/people"))
    answer = browser.post("/regal/people/proof.json", data={"token": token, "who": PHONE})
    assert answer.headers["content-disposition"] == 'attachment; filename="consent.json"'
    told = answer.json()
    assert told["person"] == [PHONE]
    assert [(one["identifier"], one["text"], one["status"]) for one in told["decisions"]] == [
        (PHONE, "I agree to texts", "acknowledged")
    ]
    assert audit_log()[0][0] == "regal.proof"


def test_the_preview_of_an_erasure_erases_nothing(site, anne, token_of, text_of):
    browser = site()
    token = token_of(browser.get("/regal/people"))
    answer = browser.post("/regal/people/erasure", data={"token": token, "who": f"user:anne, {PHONE}"})
    text = text_of(answer)
    assert "2 outcomes, which stay without the person" in text
    assert "1 lines of the consent log" in text
    assert "Not reached: Regal: ask Regal's support" in text
    assert "Nothing was removed." in text
    with open_database(anne)._engine.connect() as connection:
        names = connection.exec_driver_sql("SELECT user_id FROM regal_outcomes").fetchall()
    assert names == [("anne",), ("anne",)]


def test_it_is_off_by_default_and_for_those_who_may_change_connections(site, anne, monkeypatch, token_of):
    token = token_of(site().get("/regal/people"))
    for name, role in (("vera", "VIEWER"), ("uma", "USER")):
        user = site(name, role)
        assert user.get("/regal/people").status_code == 403
        assert "/regal/people" not in user.get("/regal/").text
        assert user.post("/regal/people", data={"token": token, "who": "anne"}).status_code == 403
    monkeypatch.delenv("AIRFLOW__REGAL__PEOPLE_PAGE")
    for path in ("", "/proof.json", "/erasure"):
        answer = site().post(f"/regal/people{path}", data={"token": token, "who": "anne"})
        assert answer.status_code == 403
        assert PHONE not in answer.text
    assert site().get("/regal/people").status_code == 403


def test_only_with_our_token(site, anne):
    for path in ("", "/proof.json", "/erasure"):
        answer = site().post(f"/regal/people{path}", data={"token": "0.0", "who": "anne"})
        assert answer.status_code == 403
        assert PHONE not in answer.text
