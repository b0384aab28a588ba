"""Queries about deliveries, outcomes and people."""

from __future__ import annotations

import tracemalloc
from contextlib import closing
from datetime import timedelta
from decimal import Decimal
from itertools import islice
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.admin.history import Wanted
from airflow_provider_regal.ledger.outcomes import outcomes_of
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.states import RowState
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.databases import PROVED, on
from tests.ledger.view import LedgerView, open_database
from tests.ledger.written import NOW, line, write

PHONE = "+12125550100"
YES_AT = "2026-11-01T08:00:00.000000Z"


@pytest.fixture
def database(database_url):
    with closing(open_database(database_url)) as opened:
        yield opened


def find(database, *who, secret=None, **options):
    return history.find_person(database, Wanted(who), identifiers=Identifiers(secret), **options)


# -- deliveries -------------------------------------------------------------------------------------------------------


@on(PROVED)
def test_deliveries_come_newest_first_and_can_be_narrowed(database_url, database):
    first = write(database_url, run="a", at=NOW - timedelta(days=2))
    second = write(database_url, run="b", task="other", state="failed", at=NOW - timedelta(days=1))
    third = write(database_url, run="c", account="zenith", api_key="another", at=NOW)

    def numbers(**wanted):
        return [record.id for record in history.list_deliveries(database, **wanted)]

    assert numbers() == [third, second, first]
    assert numbers(limit=2) == [third, second]
    assert numbers(account="acme") == [second, first]
    assert numbers(task_id="other") == numbers(run_id="b") == numbers(states=["failed", "stopped"]) == [second]
    assert numbers(dag_id="dag", since=to_ledger_time(NOW - timedelta(days=1))) == [third, second]
    assert numbers(dag_id="nowhere") == []


@on(PROVED)
def test_one_delivery_tells_why_its_rows_were_not_delivered(database_url, database):
    lines = [
        line(1),
        line(2, "rejected", reason="HTTP 400", message="HTTP 400, Regal says: no name"),
        line(3, "rejected", reason="HTTP 400", message="HTTP 400, Regal says: something else"),
        line(4, "rejected", reason="invalid", message="phone: not a phone number; email: not an email address"),
        line(5, "rejected", reason="invalid", message="phone: not a phone number"),
        line(6, "rejected", reason="invalid", message="phone: not a phone number"),
        line(7, "unknown", reason="timeout"),
    ]
    number = write(database_url, lines=lines, skipped=3, state="failed", error="too many")

    found = history.find_delivery(database, number)

    assert found.record.error == "too many"
    assert (found.record.read_rows, found.record.skipped) == (10, 3)
    assert [tuple(reason) for reason in found.reasons] == [
        ("rejected", "phone: not a phone number", 3),
        ("rejected", "rejected, HTTP 400", 2),
        ("unknown", "unknown, timeout", 1),
    ]
    assert history.find_delivery(database, number + 1) is None


@pytest.mark.parametrize(("since_s", "live"), [(1, True), (30, True), (31, False)])
def test_a_delivery_is_live_while_its_hold_lasts(database_url, database, since_s, live):
    number = write(database_url, state=None, hold_s=30)
    record = history.find_delivery(database, number).record
    assert history.is_live(record, NOW + timedelta(seconds=since_s)) is live


def test_a_delivery_that_has_let_go_is_not_live(database_url, database):
    number = write(database_url, state="stopped", hold_s=30)
    assert not history.is_live(history.find_delivery(database, number).record, NOW)


# -- outcomes ---------------------------------------------------------------------------------------------------------


@on(PROVED)
def test_outcomes_come_in_the_order_of_the_source_whatever_their_number(database_url, database):
    statuses = ["acknowledged", "rejected", "unknown"]
    lines = [line(number, statuses[number % 3], reason=f"r{number % 3}") for number in range(1, 2502)]
    number = write(database_url, lines=lines)
    write(database_url, lines=[line(1)], run="another")

    rows = list(outcomes_of(database, number))

    assert [row.position for row in rows] == list(range(1, 2502))
    assert [row.status for row in rows] == [one.status for one in lines]
    chosen = outcomes_of(database, number, statuses=["rejected", "unknown"])
    assert [row.position for row in chosen] == [one.position for one in lines if one.status != "acknowledged"]


def test_outcomes_are_chosen_by_reason_or_by_how_their_message_begins(database_url, database):
    lines = [
        line(1, "rejected", reason="HTTP 400", message="HTTP 400"),
        line(2, "rejected", reason="invalid", message="100%_sure: is no column"),
        line(3, "rejected", reason="invalid", message="100 or more"),
    ]
    number = write(database_url, lines=lines)

    def positions(reason):
        return [row.position for row in outcomes_of(database, number, reason=reason)]

    assert positions("HTTP 400") == [1]
    assert positions("invalid") == [2, 3]
    assert positions("100%_") == [2]  # not a pattern of LIKE
    assert positions("sure") == []


def test_an_outcome_tells_where_its_row_stands(database_url, database):
    lines = [line(1_234, place="a.csv line 5"), line(1_235, "rejected", payload={"a": 1})]
    number = write(database_url, lines=lines)
    first, second = outcomes_of(database, number)
    assert (first.where, second.where) == ("a.csv line 5", "row 1,235")
    assert (first.is_dead_letter, second.is_dead_letter) == (False, True)


@pytest.mark.slow
def test_many_outcomes_take_little_memory(database_url, database):
    number = write(database_url, lines=[line(one, user_id=f"u{one}") for one in range(1, 30_001)])
    rows = outcomes_of(database, number)
    list(islice(rows, 1_500))
    tracemalloc.start()
    count = sum(1 for _ in rows)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert count == 28_500
    assert peak < 5_000_000  # all at once would be 30 MB


def test_unknown_rows_are_counted_until_they_are_redelivered(database_url, database):
    assert history.unknown_rows(database) == (0, None, None)
    old, new = NOW - timedelta(days=3), NOW
    first = write(database_url, lines=[line(1, "unknown", payload={}, at=old), line(2, "rejected", payload={}, at=old)])
    write(database_url, run="b", lines=[line(1, "unknown", payload={}, at=new)])
    assert history.unknown_rows(database) == (2, to_ledger_time(old), first)
    database.write(
        lambda c: c.exec_driver_sql(f"UPDATE regal_outcomes SET redelivered_by = 9 WHERE delivery = {first}")
    )
    assert history.unknown_rows(database)[:2] == (1, to_ledger_time(new))
    assert history.unknown_rows(database, "another") == (0, None, None)


def test_accounts_are_listed_with_their_deliveries(database_url, database):
    write(database_url, run="a", at=NOW - timedelta(days=1))
    write(database_url, run="b", at=NOW)
    write(database_url, account="zenith", api_key="another", secret=b"s", at=NOW)
    acme, zenith = history.list_accounts(database)
    assert acme == ("acme", "plain", 2)
    assert (zenith.account, zenith.deliveries, zenith.identifiers) == ("zenith", 1, Identifiers(b"s").mark)


# -- one person -------------------------------------------------------------------------------------------------------


def anne(database_url, **options):
    """Write what is on record of a person, and of another."""
    stored = Identifiers(options.get("secret")).stored
    lines = [
        line(1, user_id=stored("anne"), phone=stored(PHONE), email=stored("anne@example.com")),
        line(2, user_id=stored("bob"), phone=stored("+12125550199")),
        line(3, "rejected", user_id=stored("anne"), reason="HTTP 400", payload={"userId": "anne"}),
    ]
    log = [
        LoggedConsent(PHONE, "sms", True, YES_AT, "203.0.113.9", "I agree", "form", 1, None, "acknowledged"),
        LoggedConsent("+12125550199", "sms", True, YES_AT, None, None, None, 2, None, "acknowledged"),
        LoggedConsent("anne@example.com", "email", True, YES_AT, None, None, None, 1, None, "withheld", "no ip"),
    ]
    return write(
        database_url,
        lines=lines,
        log=log,
        acknowledged=[(PHONE, "sms", True, YES_AT), ("+12125550199", "sms", True, YES_AT)],
        contacts=[("anne", "r", "p"), ("bob", "r", "p")],
        phones=[("anne", PHONE)],
        **options,
    )


@on(PROVED)
@pytest.mark.parametrize("secret", [None, b"secret"])
@pytest.mark.parametrize("who", ["(212) 555-0100", "+12125550100", "12125550100", " +1 212 555 0100 "])
def test_a_person_is_found_by_phone_however_it_is_written(database_url, database, who, secret):
    number = anne(database_url, secret=secret)
    found = find(database, who, secret=secret)
    assert [(one.row.delivery, one.row.position) for one in found.outcomes] == [(number, 1)]
    assert [(one.channel, one.status) for one in found.decisions] == [("sms", "acknowledged")]
    assert [(one.channel, one.subscribed, one.evidence_at) for one in found.consents] == [("sms", 1, YES_AT)]
    assert found.outcomes[0].task == "dag.task"


@pytest.mark.parametrize("secret", [None, b"secret"])
def test_a_person_is_found_by_user_id_with_the_consent_of_their_phones(database_url, database, secret):
    anne(database_url, secret=secret)
    found = find(database, "anne", secret=secret)
    assert [one.row.position for one in found.outcomes] == [1, 3]
    assert [one.identifier for one in found.consents] == [Identifiers(secret).stored(PHONE)]
    assert len(found.contacts) == 1


def test_a_person_is_found_by_email_in_any_case(database_url, database):
    anne(database_url)
    found = find(database, "Anne@Example.COM")
    assert [one.row.position for one in found.outcomes] == [1]
    assert [(one.channel, one.status, one.reason) for one in found.decisions] == [("email", "withheld", "no ip")]


def test_several_identifiers_make_one_timeline_without_doubles(database_url, database):
    anne(database_url)
    found = find(database, PHONE, "anne", "anne@example.com")
    assert [one.row.position for one in found.outcomes] == [1, 3]
    assert [one.channel for one in found.decisions] == ["sms", "email"]


def test_only_the_account_asked_for_is_searched(database_url, database):
    anne(database_url)
    write(database_url, account="zenith", api_key="another", lines=[line(1, user_id="anne")])
    assert [one.row.account for one in find(database, "anne").outcomes] == ["acme", "acme", "zenith"]
    assert [one.row.account for one in find(database, "anne", account="zenith").outcomes] == ["zenith"]
    assert not find(database, "anne", account="nobody")


def test_with_another_key_nothing_is_found(database_url, database):
    anne(database_url, secret=b"secret")
    found = find(database, PHONE, "anne", secret=b"another")
    assert not found.outcomes
    assert not found.consents


def test_the_newest_are_kept_where_there_are_too_many(database_url, database):
    for run in range(5):
        write(database_url, run=str(run), lines=[line(1, user_id="anne", at=NOW + timedelta(hours=run))])
    found = find(database, "anne", limit=2)
    assert [one.at for one in found.outcomes] == [to_ledger_time(NOW + timedelta(hours=run)) for run in (3, 4)]
    assert found.is_cut
    assert not find(database, "anne", limit=5).is_cut


@on(PROVED)
def test_rows_that_were_not_sent_yet_are_found_as_their_source_wrote_them(database_url, database):
    rows = [
        {"id": "anne", "phone": "212.555.0100", "plan": "gold"},
        {"id": "bob", "phone": "212.555.0199", "plan": "gold"},
        {"id": "x", "phone": 12125550100, "plan": "anne"},
        {"$event": "identify", "$origin": "a.jsonl line 7", "traits": {"phones": {PHONE: {"label": "home"}}}},
        {"id": "anne", "phone": None, "plan": "sent before"},
    ]
    states = [RowState.OPEN, RowState.OPEN, RowState.RESERVED, RowState.OPEN, RowState.ACKNOWLEDGED]
    number = write(database_url, rows=rows, states=states, state="stopped")
    write(database_url, run="done", rows=rows)  # has no snapshot

    found = find(database, PHONE)

    assert [(one.delivery, one.position, one.where, one.state, one.found_in) for one in found.unsent] == [
        (number, 1, "row 1", "not sent yet", "phone"),
        (number, 3, "row 3", "may have been sent", "phone"),
        (number, 4, "a.jsonl line 7", "not sent yet", "traits.phones"),
    ]
    assert (found.scanned_rows, found.scanned_all) == (4, True)
    assert [one.position for one in find(database, "anne").unsent] == [1, 3]


@pytest.mark.parametrize("state", ["reading", None, "failed", "stopped"])
def test_rows_of_every_kind_of_unfinished_delivery_are_searched(database_url, database, state):
    rows = [{"user_id": "anne"}]
    write(database_url, rows=rows, state="stopped" if state == "reading" else state, complete=state != "reading")
    if state == "reading":
        database.write(lambda connection: connection.exec_driver_sql("UPDATE regal_deliveries SET state = 'reading'"))
    assert [one.position for one in find(database, "anne").unsent] == [1]


def test_rows_that_could_not_be_mapped_are_found_by_their_payload(database_url, database):
    payload = {"user_id": "anne", "phone": "(212) 555-0100", "email": "no email"}
    number = write(
        database_url,
        lines=[line(n, "rejected", payload=payload if n == 250 else {"user_id": "x"}) for n in range(1, 300)],
    )
    ((found,), (by_phone,)) = find(database, "anne").outcomes, find(database, PHONE).outcomes
    assert (found.row.delivery, found.row.position, found.found_in) == (number, 250, "user_id")
    assert by_phone.found_in == "phone"


def test_a_scan_ends_at_its_limit_and_says_so(database_url, database):
    write(database_url, rows=[{"user_id": f"u{number}"} for number in range(10)], state="stopped")
    found = find(database, "u0", scan_rows=4)
    assert (found.scanned_rows, found.scanned_all) == (3, False)  # chunks of three
    assert [one.position for one in found.unsent] == [1]
    found = find(database, "u0", scan_rows=10)
    assert (found.scanned_rows, found.scanned_all) == (10, True)


def test_an_opt_out_that_regal_does_not_have_is_owed(database_url, database):
    write(database_url, acknowledged=[(PHONE, "sms", True, YES_AT)])
    assert [one.owes_opt_out for one in find(database, PHONE).consents] == [False]
    with LedgerView(database_url).account() as account:
        account.bar([(PHONE, "sms", "2026-11-02T00:00:00.000000Z")])
    (found,) = find(database, PHONE).consents
    assert (found.owes_opt_out, found.opt_out_source) == (True, "dag.task")


# -- who is meant -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("who", "row", "found_in"),
    [
        ("anne", {"a": "anne "}, "a"),
        ("anne", {"a": "Anne"}, None),
        ("anne", {"a": "anne-marie"}, None),
        ("7", {"user_id": 7}, "user_id"),
        ("7", {"userId": "7"}, "userId"),
        ("7", {"CUSTOMER_NO": Decimal(7)}, "CUSTOMER_NO"),
        ("7", {"quantity": 7, "note": "7"}, None),
        ("7", {"paid": 7, "width": 7}, None),
        ("7", {"is_id": True, "id": 7.0}, "id"),
        ("00007", {"id": "7"}, None),
        ("123e4567-e89b-12d3-a456-426614174000", {"k": UUID("123e4567-e89b-12d3-a456-426614174000")}, "k"),
        (PHONE, {"mobile": "1 (212) 555-0100"}, "mobile"),
        (PHONE, {"mobile": 2125550100}, "mobile"),
        (PHONE, {"mobile": "+1 213 555 0100"}, None),
        (PHONE, {"note": "call 2125550100"}, None),
        (PHONE, {"a": [{"b": ["2125550100"]}]}, "a.b"),
        (PHONE, {"$row": {"phones": [{"number": "2125550100"}]}}, "$row.phones.number"),
        ("a@b.co", {"x": " A@B.co "}, "x"),
        ("a@b.co", {"emails": {"a@b.co": {}}}, "emails"),
        ("a@b.co", {"x": "to: a@b.co"}, None),
        ("a@b.co", {"a@b.co": 1}, "a name of a column"),
    ],
)
def test_a_row_is_matched_by_whole_values_only(who, row, found_in):
    assert Wanted([who]).found_in(row) == found_in


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.datetimes() | st.decimals(),
    lambda inside: st.lists(inside) | st.dictionaries(st.text(), inside),
))  # fmt: skip
@pytest.mark.slow
def test_any_value_can_be_searched(value):
    found_in = Wanted([PHONE, "anne", "a@b.co", "7"]).found_in({"x": value})
    assert found_in is None or found_in.startswith("x")


def test_values_that_hold_themselves_end():
    row = {}
    row["self"] = row
    assert Wanted(["anne"]).found_in(row) is None
