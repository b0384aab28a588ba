"""Deliveries and one delivery, as users see them in Airflow."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Deliveries, Try
from airflow_provider_regal.ledger.states import Outcome, RowState
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.ledger.view import open_database
from tests.ledger.written import line, write

NOW = datetime.now(UTC)


def failed(where, **more):
    lines = [
        line(1, user_id="anne", phone="+12125550100"),
        line(2, "rejected", reason="invalid", field="phone", message="phone: not a phone number", payload={"a": 1}),
        line(3, "rejected", reason="HTTP 400", user_id="carl-7", phone="+12125550102", payload={"a": 2}, at=NOW),
    ]
    error = (
        "Of 3 rows, 2 rejected, more than max_rejected=0.05. Top reasons:\n       1 x phone: not a phone number\n"
        "List them with: airflow regal outcomes 1 --status rejected --status unknown\nFix it."
    )
    given = {"lines": lines, "state": "failed", "error": error, "dag": "crm", "task": "contacts", "run": "manual__1"}
    return write(where, **{"at": NOW - timedelta(hours=2), **given, **more})


def fine(where, rows=3, **more):
    lines = [line(number, user_id=f"u{number}") for number in range(1, rows + 1)]
    return write(where, **{"lines": lines, "dag": "crm", "task": "events", "at": NOW - timedelta(hours=1), **more})


def test_problems_come_first_with_cause_and_next_step(site, regal_ledger, text_of):
    fine(regal_ledger, run="newest", at=NOW - timedelta(minutes=5))
    failed(regal_ledger)
    fine(regal_ledger, run="doubtful", lines=[line(1), line(2, "unknown", reason="HTTP 500", payload={"b": 1})])
    text = text_of(site().get("/regal/"))
    assert "1 failed or stopped 1 to check 3 deliveries, 5 rows acknowledged, 2 rejected, 1 unknown" in text
    states = [text.index(word) for word in ("FAILED crm.contacts", "OK, CHECK 1 crm.events", "OK crm.events")]
    assert states == sorted(states)
    assert "Of 3 rows, 2 rejected, more than max_rejected=0.05. 1 x phone: not a phone number" in text
    assert "Read the reasons; each row is listed" in text
    assert "track" in text
    assert "manual__1" in text


def test_the_page_of_a_delivery_says_what_happened_what_to_do_and_what_is_normal(site, regal_ledger, text_of):
    for run in range(4):
        fine(regal_ledger, rows=2 + run, run=f"r{run}", task="contacts", at=NOW - timedelta(days=4 - run))
    number = failed(regal_ledger)
    answer = site().get(f"/regal/deliveries/{number}")
    text = text_of(answer)
    assert answer.status_code == 200
    assert "crm.contacts FAILED" in text
    assert "What happened Of 3 rows, 2 rejected, more than max_rejected=0.05." in text
    assert "read 3 acknowledged 1 rejected 2 unknown 0 skipped 0 left 0" in text
    assert "What to do Read the reasons; each row is listed" in text
    assert "If an option is wrong (mapping, types), fix it and clear the task" in text
    assert "Usually 4 rows (2 to 5), 0 rejected (at most 0), 0 unknown (at most 0): the last 4 runs." in text
    assert "This one: 3 rows, 2 rejected, 0 unknown." in text
    assert "1 rejected phone: not a phone number" in text
    assert "1 rejected HTTP 400" in text
    assert f"airflow regal redeliver {number}" in text
    assert "row 2 rejected invalid phone: not a phone number phone" in text
    assert 'href="/dags/crm/runs/manual__1/tasks/contacts"' in answer.text


def test_the_page_of_a_sync_offers_no_redelivery_of_rows_that_none_takes(site, regal_ledger, text_of):
    def of_a_sync(number, **more):
        reason = {"reason": "invalid", "field": "phone", "message": "phone: not a phone number"}
        return line(number, "rejected", payload={"phone": "1"}, form="consent", **reason, **more)

    number = failed(regal_ledger, lines=[line(1), of_a_sync(2), of_a_sync(3)])
    text = text_of(site().get(f"/regal/deliveries/{number}?status=rejected"))
    assert "correct them in the source, and the next sync sends them." in text
    assert "can be redelivered" not in text
    assert " phone: not a phone number phone" in text
    assert "Since then row 2" in text
    both = [line(1), of_a_sync(2), line(3, "rejected", reason="HTTP 400", payload={"a": 2}, form="body")]
    number = failed(regal_ledger, lines=both, run="other")
    text = text_of(site().get(f"/regal/deliveries/{number}"))
    assert "1 row that Regal refused can be redelivered" in text
    assert "correct them in the source" in text


def test_after_a_repair_the_failure_is_among_the_normal_ones_and_leads_to_what_fixed_it(site, regal_ledger, text_of):
    number = failed(regal_ledger)
    fixing = fine(regal_ledger, task="contacts", run="manual__1", at=NOW - timedelta(hours=1))
    answer = site().get("/regal/")
    text = text_of(answer)
    assert "Nothing needs a look Deliveries that are fine" in text
    assert "failed or stopped" not in text
    assert f'/deliveries/{fixing}"><span class="state good">FIXED BY delivery {fixing}<' in answer.text
    page = text_of(site().get(f"/regal/deliveries/{number}"))
    assert f"crm.contacts FIXED BY delivery {fixing}" in page
    assert f"The same task has delivered again since, and finished: delivery {fixing} ." in page
    assert "What to do Nothing has to be done. Normal" in page
    assert "not redelivered" not in page, "the other delivery has sent them"
    task = text_of(site().get("/regal/task", params={"dag_id": "crm", "run_id": "manual__1", "task_id": "contacts"}))
    assert f"FIXED BY delivery {fixing}" in task
    assert "more than max_rejected" not in task


def test_unknown_rows_that_were_redelivered_need_no_look(site, regal_ledger, text_of):
    number = fine(
        regal_ledger, run="doubtful", lines=[line(1), line(2, "unknown", reason="HTTP 500", payload={"b": 1})]
    )
    by = fine(regal_ledger, run="redelivery", rows=1)
    assert "OK, CHECK 1" in text_of(site().get("/regal/"))
    database = open_database(regal_ledger)
    database.write(lambda connection: connection.exec_driver_sql(
        f"UPDATE regal_outcomes SET redelivered_by = {by} WHERE delivery = {number} AND status = 'unknown'"
    ))  # fmt: skip
    database.close()
    start = text_of(site().get("/regal/"))
    assert "OK, REDELIVERED" in start
    assert "to check" not in start.split("deliveries, ")[0]
    page = text_of(site().get(f"/regal/deliveries/{number}"))
    assert f"1 row was redelivered since, and acknowledged by Regal: delivery {by} ." in page
    assert "Look in Regal" not in page


def test_the_list_is_narrowed_by_dag_account_call_state_and_time(site, regal_ledger):
    one, two = failed(regal_ledger), fine(regal_ledger, run="two", dag="web")
    old = fine(regal_ledger, run="old", at=NOW - timedelta(days=20))
    other = fine(regal_ledger, run="other", account="zenith", api_key="another", dag="web", state="stopped")
    page = site()

    def shown(**query):
        answer = page.get("/regal/", params=query)
        assert answer.status_code == 200
        return {number for number in (one, two, old, other) if f'/deliveries/{number}"><span' in answer.text}

    assert shown() == {one, two, other}
    assert shown(days="30") == shown(days="") == {one, two, old, other}
    assert shown(days="", before=(NOW - timedelta(days=10)).date().isoformat()) == {old}
    assert shown(dag="web") == {two, other}
    assert shown(account="zenith") == {other}
    assert shown(state="failed") == {one}
    assert shown(state="stopped") == {other}
    assert shown(state="finished", days="30") == {two, old}
    assert shown(call="track") == {one, two, other}
    assert shown(call="identify") == set()
    assert shown(call="<script>", state="odd", days="x", page="-1", before="never") == {one, two, other}


def test_without_a_session_nothing_is_shown_and_the_page_says_where_to_sign_in(site, regal_ledger):
    number = failed(regal_ledger)
    browser = site(None)
    for path in ("/", f"/deliveries/{number}", "/task?dag_id=crm", f"/deliveries/{number}/outcomes.csv", "/health"):
        answer = browser.get(f"/regal{path}")
        assert answer.status_code == 401, path
        assert "crm" not in answer.text.replace("dag_id%3Dcrm", "")
        assert "/auth/login?next=%2Fregal" in answer.text
    for path in (f"/deliveries/{number}", f"/deliveries/{number}/redeliver", f"/deliveries/{number}/outcomes.csv"):
        assert browser.post(f"/regal{path}").status_code == 401
    browser.cookies.set("_token", "forged")
    assert browser.get("/regal/").status_code in (401, 403)


def test_of_dags_that_a_user_may_not_read_there_is_no_trace(site, regal_ledger, text_of):
    hidden = [
        failed(regal_ledger, dag="secret_payroll", run=f"r{number}", account="hidden", api_key="h", task="pay")
        for number in range(2)
    ]
    seen, outside = fine(regal_ledger, dag="web"), fine(regal_ledger, dag=None, task=None, run="by hand")
    viewer = site("only-web+crm", "VIEWER")
    for query in ("", "?days=", "?state=failed", "?dag=secret_payroll", "?account=hidden", "?page=1"):
        answer = viewer.get(f"/regal/{query}")
        assert answer.status_code == 200
        shown = answer.text.replace("dag=secret_payroll", "").replace("account=hidden", "")
        assert "secret_payroll" not in shown
        assert "hidden" not in shown.replace('type="hidden"', "").replace("overflow: hidden", "").split("</style>")[1]
        assert "failed or stopped" not in shown
    text = text_of(viewer.get("/regal/"))
    assert "1 delivery, 3 rows acknowledged" in text
    assert "web.events" in text
    assert "outside a task" not in text
    assert viewer.get(f"/regal/deliveries/{seen}").status_code == 200
    for number in (*hidden, outside):
        for path in (f"/deliveries/{number}", f"/deliveries/{number}/outcomes.csv"):
            answer = viewer.get(f"/regal{path}")
            assert answer.status_code == 403
            assert "secret" not in answer.text
            assert "pay" not in text_of(answer)
    task = {"dag_id": "secret_payroll", "run_id": "r1", "task_id": "pay", "map_index": "-1"}
    assert viewer.get("/regal/task", params=task).status_code == 403
    assert site().get("/regal/task", params=task).status_code == 303
    assert "outside a task" in text_of(site().get("/regal/"))
    assert site("nobody", None).get("/regal/").status_code == 403


@pytest.mark.parametrize("value", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "'; DROP TABLE --"])
def test_every_value_is_escaped(site, regal_ledger, value):
    lines = [
        line(1, "rejected", reason=value, field=value, message=value, place=value, user_id=value, payload={"a": 1}),
        line(2, "rejected", reason="invalid", message=f"{value}; more", payload={"a": 1}),
    ]
    number = write(
        regal_ledger, lines=lines, state="failed", error=value, dag=f"d{value}", task=value, run=value, name=value,
        account=value, at=NOW,
    )  # fmt: skip
    browser = site()
    for path in (
        "/",
        f"/?dag={value}&state={value}",
        f"/deliveries/{number}",
        f"/deliveries/{number}?reason={value}&started={value}",
    ):
        answer = browser.get(f"/regal{path}")
        assert answer.status_code == 200
        assert "<script" not in answer.text
        assert "<img" not in answer.text
    token = answer.text.split('name="token" value="')[1].split('"')[0]
    shown = browser.post(f"/regal/deliveries/{number}", data={"token": token})
    assert "<script" not in shown.text
    assert "Personal data is shown" in shown.text


def test_no_page_may_load_or_run_anything(site, regal_ledger):
    number = failed(regal_ledger)
    for path in ("/", f"/deliveries/{number}", "/nowhere", f"/deliveries/{number}/outcomes.csv"):
        answer = site().get(f"/regal{path}")
        policy = answer.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
        assert "http://" not in answer.text.replace("http://airflow.test", "")
        assert " style=" not in answer.text
        assert " onclick" not in answer.text


# -- personal data ----------------------------------------------------------------------------------------------------


def audit_log():
    from airflow.models import Log
    from airflow.utils.session import create_session
    from sqlalchemy import select

    with create_session(scoped=False) as session:
        wanted = select(Log).where(Log.event.startswith("regal.")).order_by(Log.id.desc())
        return [(one.event, one.owner, one.dag_id, one.task_id, one.extra) for one in session.scalars(wanted)]


def test_personal_data_is_masked_until_somebody_who_may_change_the_dag_reveals_it(site, regal_ledger, token_of):
    number = failed(regal_ledger)
    path, browser, before = f"/regal/deliveries/{number}", site(), len(audit_log())
    masked = browser.get(path)
    assert "carl-7" not in masked.text
    assert "5550102" not in masked.text
    assert "•••" in masked.text
    assert "carl-7" not in browser.get(f"{path}/outcomes.csv").text
    assert len(audit_log()) == before

    shown = browser.post(path, data={"token": token_of(masked)})
    assert "carl-7" in shown.text
    assert "+12125550102" in shown.text
    (event, owner, dag, task, extra), *older = audit_log()
    assert len(older) == before
    assert (event, owner, dag, task) == ("regal.reveal", "ada", "crm", "contacts")
    assert f'"delivery": {number}' in extra
    assert "carl" not in extra

    exported = browser.post(f"{path}/outcomes.csv", data={"token": token_of(masked)})
    assert exported.headers["content-disposition"] == f'attachment; filename="regal-delivery-{number}.csv"'
    assert "carl-7,+12125550102" in exported.text
    assert len(exported.text.splitlines()) == 3
    assert audit_log()[0][0] == "regal.export"


def test_a_phone_or_email_that_is_wrong_is_shown_as_it_was_read(site, regal_ledger, text_of, token_of):
    letter = {"reason": "invalid", "message": "phone: holds letters"}
    lines = [
        line(1, "rejected", user_id="anne", payload={"user_id": "anne", "phone": "212-CALL", "email": "a@b"}, **letter),
        line(2, "rejected", payload={"phone_verified": True, "phones": [{"number": 2125550}], "Email": " "}, **letter),
        line(3, "rejected", phone="+12125550102", payload={"traits": {"home_phone": "x", "email": "c@d"}}, **letter),
        line(4, "rejected", payload={"mobile": "4-MOBILE"}, **letter),
        line(5, "rejected", payload={"note": "call"}, **letter),
    ]
    path = f"/regal/deliveries/{write(regal_ledger, lines=lines, state='failed', at=NOW)}"
    masked = site().get(path)
    hidden = ("212-CALL", "2125550", "4-MOBILE", "a@b", "c@d")
    assert not [one for one in hidden if one in masked.text + site().get(f"{path}/outcomes.csv").text]
    form = {"token": token_of(masked)}
    rows = text_of(site().post(path, data=form)).split(" row 1 ")[1].split(" row ")
    told = ("anne 212-CALL a@b 20", "letters 2125550 20", "+12125550102 c@d 20", "letters 4-MOBILE 20", "letters 20")
    assert [one in row for one, row in zip(told, rows, strict=True)] == [True] * 5
    exported = site().post(f"{path}/outcomes.csv", data=form).text.splitlines()
    assert ",anne,212-CALL,a@b,rejected" in exported[1]
    assert ",,2125550,,rejected" in exported[2]


def test_rows_that_are_left_are_listed_with_who_they_are_about(site, regal_ledger, text_of, token_of):
    rows = [
        *({"userId": f"loan-{one}", "phone": f"212555010{one}", "due": "2026-12-01"} for one in range(4)),
        {"$row": {"external_id": "loan-4", "contact": {"email": "eve@example.com"}}, "$origin": "loans.csv line 6"},
    ]
    states = [RowState.ACKNOWLEDGED, RowState.SKIPPED_OLDER, RowState.RESERVED, RowState.OPEN, RowState.OPEN]
    told = {"error": "Regal refused the API key (HTTP 401).", "state": "stopped", "at": NOW}
    number = write(regal_ledger, rows=rows, states=states, lines=[line(1)], skipped=1, **told)
    path = f"/regal/deliveries/{number}"
    masked = site().get(path)
    assert '<option value="left" selected>' in masked.text
    assert "loan-" not in masked.text
    assert 'href="/connections"' in masked.text
    framed = site().get(path, headers={"sec-fetch-dest": "iframe"})
    assert "/connections" not in framed.text, "Airflow's frame lets no link lead out of it"
    assert "Enter the right API key in the connection acme (Admin > Connections) and save it." in text_of(masked)
    form = {"token": token_of(masked), "status": "left"}
    shown = text_of(site().post(path, data=form)).split("Since then row ")[1]
    assert shown.startswith("3 left may have been sent loan-2 2125550102 row 4 left")
    assert "4 left loan-3 2125550103" in shown
    assert "loans.csv line 6 left loan-4 eve@example.com" in shown
    assert "loan-0" not in shown
    assert "loan-1" not in shown
    exported = site().post(f"{path}/outcomes.csv", data=form).text.splitlines()
    assert [one.split(",")[1] for one in exported] == ["position", "3", "4", "5"]
    assert ",loan-4,,eve@example.com,left," in exported[3]
    assert "loan-" not in site().get(f"{path}/outcomes.csv?status=left").text
    assert 'value="left" selected' not in site().get(f"{path}?status=unknown").text


def test_rows_that_are_left_are_paged(site, regal_ledger, monkeypatch, text_of):
    monkeypatch.setattr("airflow_provider_regal.plugin.delivery.ROWS_A_PAGE", 2)
    rows = [{"user_id": f"u{one}"} for one in range(5)]  # a chunk has three rows
    path = f"/regal/deliveries/{write(regal_ledger, rows=rows, state='stopped', at=NOW)}"
    first = site().get(path)
    assert "row 2 left" in text_of(first)
    assert "row 3 left" not in text_of(first)
    assert f"{path}?status=left&amp;reason=&amp;after=2#rows" in first.text
    last = text_of(site().get(f"{path}?status=left&after=4"))
    assert "row 5 left" in last
    assert "Next rows" not in last


def test_a_viewer_can_reveal_nothing(site, regal_ledger, token_of):
    number = failed(regal_ledger)
    path, viewer, before = f"/regal/deliveries/{number}", site("vera", "VIEWER"), len(audit_log())
    page = viewer.get(path)
    assert page.status_code == 200
    assert "Show personal data" not in page.text
    admins = token_of(site().get(path))
    for token in ("", "forged", admins):
        for where in (path, f"{path}/outcomes.csv"):
            answer = viewer.post(where, data={"token": token})
            assert answer.status_code == 403
            assert "carl-7" not in answer.text
    assert len(audit_log()) == before


def test_a_form_without_our_token_changes_and_shows_nothing(site, regal_ledger, token_of):
    number = failed(regal_ledger)
    path, browser = f"/regal/deliveries/{number}", site()
    token = token_of(browser.get(path))
    until, _, signature = token.partition(".")
    for wrong in ("", "x", f"{until}.{'0' * 64}", f"1.{signature}", f"{int(until) + 1}.{signature}", f"é.{signature}"):
        for where in (path, f"{path}/outcomes.csv", f"{path}/redeliver"):
            assert browser.post(where, data={"token": wrong}).status_code == 403, wrong
    assert browser.post(path, data={"token": token, "x": "y" * 20_000}).status_code == 413


def test_a_spreadsheet_takes_nothing_in_the_export_for_a_formula(site, regal_ledger, token_of):
    lines = [line(1, "rejected", reason="HTTP 400", user_id="=1+1", phone="+12125550100", payload={"a": 1})]
    number = write(regal_ledger, lines=lines, state="failed", at=NOW)
    token = token_of(site().get(f"/regal/deliveries/{number}"))
    text = site().post(f"/regal/deliveries/{number}/outcomes.csv", data={"token": token}).text
    assert ",'=1+1,+12125550100," in text


# -- while it runs ----------------------------------------------------------------------------------------------------


def held(where, *, states, counts=None, seconds_ago=2, **more):
    """A delivery that a try holds."""
    import json

    rows = [{"user_id": f"u{number}"} for number in range(len(states))]
    moment = NOW - timedelta(seconds=seconds_ago)
    number = write(where, rows=rows, states=states, state=None, hold_s=3600, **{"at": moment, **more})
    if counts:
        database = open_database(where)
        with_counts = json.dumps({"requests": 50, "seconds": 10.0, **counts})
        database.write(lambda connection: connection.exec_driver_sql(
            f"UPDATE regal_deliveries SET counts = '{with_counts}', acknowledged = 1 WHERE id = {number}"
        ))  # fmt: skip
        database.close()
    return number


def test_a_delivery_that_runs_shows_its_progress_and_how_long_it_takes(site, regal_ledger, text_of):
    number = held(regal_ledger, states=[RowState.ACKNOWLEDGED, *[RowState.OPEN] * 3], counts={"outages": 0})
    answer = site().get(f"/regal/deliveries/{number}")
    text = text_of(answer)
    assert "SENDING 25 %" in text
    assert "1 of 4 rows have an outcome." in text
    assert "25 % · 5 requests/s" in text
    assert "about 1 s left" in text
    assert '<meta http-equiv="refresh" content="10">' in answer.text
    assert "Running" in text_of(site().get("/regal/"))


def test_an_outage_is_seen_while_it_lasts(site, regal_ledger, text_of):
    since = to_ledger_time(datetime.now(UTC) - timedelta(minutes=6, seconds=5))
    outage = {"outage_since": since, "outage_reason": "HTTP 503", "outages": 1}
    number = held(regal_ledger, states=[RowState.ACKNOWLEDGED, RowState.OPEN], counts=outage)
    for text in (text_of(site().get("/regal/")), text_of(site().get(f"/regal/deliveries/{number}"))):
        assert "OUTAGE 6 min" in text
        assert "HTTP 503" in text
        assert "Nothing yet: the task resumes by itself if Regal answers within its outage_patience." in text
    assert "Regal, account acme , has taken nothing for 6 min: HTTP 503." in text_of(site().get("/regal/"))
    assert "left" not in text_of(site().get(f"/regal/deliveries/{number}")).split("%")[1].split("read")[0]


def test_every_place_names_the_same_limit_that_of_the_delivery(site, regal_ledger, text_of):
    number = held(regal_ledger, states=[RowState.ACKNOWLEDGED, RowState.OPEN], counts={"outages": 0}, seconds_ago=0)
    database = open_database(regal_ledger)
    until = to_ledger_time(datetime.now(UTC) + timedelta(minutes=1))
    for statement in (
        "UPDATE regal_deliveries SET rate = 100",
        "INSERT INTO regal_senders (sender, account, wants, granted, rate_limit, until) "
        f"SELECT holder, 'acme', 100, 50, 300, '{until}' FROM regal_deliveries",
    ):
        database.write(lambda connection, statement=statement: connection.exec_driver_sql(statement))
    database.close()
    page = text_of(site().get(f"/regal/deliveries/{number}"))
    assert "5 requests/s (may send 50/s just now, at most 100/s)" in page
    assert "50 requests in 10 s, 5/s (limit 100/s)" in page
    start = text_of(site().get("/regal/"))
    assert "5/s of 100/s" in start
    assert "300/s" not in page + start


@pytest.mark.parametrize(
    ("reason", "says"),
    [("HTTP 503", "last answered HTTP 503, 2 h ago."), ("a timeout", "did not answer: a timeout, 2 h ago.")],
)
def test_what_regal_answered_last_is_said_with_its_time(site, regal_ledger, text_of, reason, says):
    outage = {"outage_since": to_ledger_time(NOW - timedelta(hours=3)), "outage_reason": reason}
    number = held(regal_ledger, states=[RowState.ACKNOWLEDGED, RowState.OPEN], counts=outage, seconds_ago=2 * 3600)
    database = open_database(regal_ledger)
    database.write(lambda connection: connection.exec_driver_sql(
        f"UPDATE regal_deliveries SET state = 'stopped', holder = NULL WHERE id = {number}"
    ))  # fmt: skip
    database.close()
    assert f"Regal, account acme , {says} Nothing was sent since." in text_of(site().get("/regal/"))
    fine(regal_ledger, run="healthy", at=NOW - timedelta(hours=3))
    database = open_database(regal_ledger)
    database.write(lambda connection: connection.exec_driver_sql(
        f"UPDATE regal_deliveries SET state = 'replaced', acknowledged = 0 WHERE id = {number}"
    ))  # fmt: skip
    database.close()
    assert f"Regal, account acme , {says}" in text_of(site().get("/regal/")), "a clear read the source again since"


def test_words_in_cells_are_not_broken_where_a_line_may_end(site, regal_ledger):
    css = site().get("/regal/").text.split("<style>")[1].split("</style>")[0]
    assert "break-all" not in css
    assert [line_ for line_ in css.splitlines() if "anywhere" in line_ and "min-width: 16ch" not in line_] == []


def test_a_delivery_whose_worker_died_is_stalled(site, regal_ledger, text_of):
    states = [RowState.ACKNOWLEDGED, RowState.OPEN]
    number = held(regal_ledger, states=states, seconds_ago=2 * 3600, counts={"outages": 0})
    text = text_of(site().get(f"/regal/deliveries/{number}"))
    assert "STALLED 2 h" in text
    assert "its worker may have died" in text
    assert "Rows that were on their way when it died may then be unknown." in text


def test_a_dead_worker_is_not_said_to_need_some_seconds_more(site, regal_ledger, text_of):
    states, sent = [RowState.ACKNOWLEDGED, RowState.OPEN], {"requests": 100, "seconds": 10.0, "outages": 0}
    for seconds_ago, says in ((0, "50 % · 10 requests/s · about 0 s left · this"), (2 * 3600, "50 % · this")):
        number = held(regal_ledger, states=states, seconds_ago=seconds_ago, counts=sent, run=f"run {seconds_ago}")
        progress = text_of(site().get(f"/regal/deliveries/{number}")).split(" read ")[0]
        assert f"have an outcome. {says} page loads again every 10 s" in progress


# -- tries ------------------------------------------------------------------------------------------------------------


def tried(where):
    """A delivery of two tries: the first was killed, the second finished."""
    number = held(where, states=[0] * 4, seconds_ago=3600, dag="crm", task="events", run="tries")
    database = open_database(where)
    account = Account(database, account="acme", now=lambda: NOW - timedelta(minutes=30))
    of = Deliveries(account)
    second = of.take(of.find(number), Try(0, 2), options="", hold_s=30, source="table", conn_id="regal_crm")
    for _ in range(10):
        second.counts.add(Outcome.ACKNOWLEDGED, 160)
        second.commit(seconds=2)
    second.counts.add(Outcome.UNKNOWN, 3)
    second.counts.read = 1_603
    second.end("finished")
    database.close()
    return number


def test_the_tries_are_listed_with_what_became_of_rows_in_each(site, regal_ledger, text_of):
    number = tried(regal_ledger)
    answer = site().get(f"/regal/deliveries/{number}")
    text = text_of(answer)
    assert "2 tries" in text
    newest, oldest = text.split("How it ended Ack. Rejected Unknown ")[1].split(" Rows ")[0].split(" 1 20")
    assert newest.startswith("2 20")
    assert newest.endswith("finished 1,600 0 3")
    assert oldest.endswith("killed, or lost its worker 0 0 0")


def test_the_pace_is_drawn_beside_the_limit(site, regal_ledger):
    number = tried(regal_ledger)
    database = open_database(regal_ledger)
    database.write(lambda connection: connection.exec_driver_sql("UPDATE regal_deliveries SET rate = 100"))
    database.close()
    page = site().get(f"/regal/deliveries/{number}").text
    chart = page.split("Rows acknowledged per second while it was being sent")[1].split("</svg>")[0]
    assert chart.count("80 acknowledged a second") == 10
    assert '<line class="limit"' in chart
    moment = fine(regal_ledger, run="short")
    short = site().get(f"/regal/deliveries/{moment}").text
    assert "1 try" in short
    assert "per second while it was being sent" not in short


def test_a_try_says_why_it_stopped_unless_the_page_says_so_already(site, regal_ledger, text_of):
    stopped = write(regal_ledger, lines=[line(1)], state="stopped", error="Regal was down.\nMore", run="s", at=NOW)
    page = f"/regal/deliveries/{stopped}"
    assert text_of(site().get(page)).count("Regal was down.") == 1, "in the sentence at the top"
    database = open_database(regal_ledger)
    of = Deliveries(Account(database, account="acme"))
    of.take(of.find(stopped), Try(0, 2), options="", hold_s=3600, source="table")
    database.close()
    text = text_of(site().get(page))
    assert "stopped Regal was down. 1 0 0" in text
    assert "runs 0 0 0" in text


def test_a_delivery_without_tries_on_record_shows_none(site, regal_ledger, text_of):
    number = fine(regal_ledger)
    database = open_database(regal_ledger)
    database.write(lambda connection: connection.exec_driver_sql("DELETE FROM regal_tries"))
    database.close()
    text = text_of(site().get(f"/regal/deliveries/{number}"))
    assert " try " not in text.split("Normal here?")[1]


# -- short of words ---------------------------------------------------------------------------------------------------


def test_what_a_reason_advises_is_a_step_and_not_among_the_reasons(site, regal_ledger, text_of):
    drift = (
        "traits.score: type_drift: is text, but was sent as a number since 2026-11-24 02:08 UTC, which Regal keeps. "
        "Cast it, or accept the new type: airflow regal contract accept traits.score text"
    )
    lines = [line(number, "rejected", reason="invalid", message=drift, payload={"a": 1}) for number in (1, 2)]
    number = write(regal_ledger, lines=lines, state="failed", error="Of 2 rows, 2 rejected.", run="drift", at=NOW)
    text = text_of(site().get(f"/regal/deliveries/{number}"))
    assert "2 rejected traits.score: type_drift: is text, but was sent as a number since 2026-11-24 02:08 UTC, " in text
    assert text.split("Why rows were not delivered")[1].split("What to do")[0].endswith("which Regal keeps ")
    steps = text.split("What to do")[1].split("Redeliver")[0]
    assert "Cast it, or accept the new type: airflow regal contract accept traits.score text" in steps
    rows = text.split("Since then")[1]
    assert rows.count("which Regal keeps") == 2
    assert "Cast it" not in rows
    assert steps.index("Read the reasons") < steps.index("Cast it")


# -- the task instance's tab and the extra link -----------------------------------------------------------------------


def test_a_task_instance_leads_to_its_delivery(site, regal_ledger, text_of):
    number = failed(regal_ledger, run="scheduled__2026-11-29T08:00:00+00:00")
    asked = {"dag_id": "crm", "run_id": "scheduled__2026-11-29T08:00:00+00:00", "task_id": "contacts"}
    for map_index in ("-1", "{MAP_INDEX}", ""):
        answer = site().get("/regal/task", params={**asked, "map_index": map_index})
        assert answer.status_code == 303
        assert answer.headers["location"] == f"/regal/deliveries/{number}"
    again = failed(regal_ledger, run=asked["run_id"], name="second", at=NOW)
    both = site().get("/regal/task", params={**asked, "map_index": "-1"})
    assert f"/regal/deliveries/{number}" in both.text
    assert f"/regal/deliveries/{again}" in both.text
    for other in ({"task_id": "transform"}, {"map_index": "3"}, {"run_id": "another"}):
        answer = site().get("/regal/task", params={**asked, "map_index": "-1", **other})
        assert "No delivery to Regal is on record for this task instance" in text_of(answer)


def test_without_a_ledger_the_page_says_where_it_was_looked_for(site, text_of, monkeypatch, tmp_path):
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "")
    monkeypatch.setenv("AIRFLOW_HOME", str(tmp_path))
    answer = site().get("/regal/")
    assert answer.status_code == 503
    assert f"There is no ledger in {tmp_path}/regal/ledger.db" in text_of(answer)
    assert not (tmp_path / "regal").exists()
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "nowhere")
    answer = site().get("/regal/")
    assert answer.status_code == 503
    assert "nowhere" in text_of(answer)


def test_what_is_not_there_is_404(site, regal_ledger, text_of):
    fine(regal_ledger)
    for path in ("/deliveries/99", f"/deliveries/{2**70}"):
        answer = site().get(f"/regal{path}")
        assert answer.status_code == 404
        assert "There is no delivery" in text_of(answer)
    assert site().get("/regal/nowhere").status_code == 404
