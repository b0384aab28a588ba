"""Forgetting a person removes all their data and no one else's, and counts still add up."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest

from airflow_provider_regal.errors import LedgerError
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin.forgetting import Forgetting
from airflow_provider_regal.ledger.people.consent_log import LoggedConsent
from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.people.suppressions import Suppressions, suppress
from airflow_provider_regal.ledger.rules import TRACK, Claim
from airflow_provider_regal.ledger.states import RowState
from tests.databases import EVERY, on
from tests.ledger.view import LedgerView, open_database
from tests.ledger.written import NOW, line, write
from tests.ledger_file import everything

PHONE, SECOND, EMAIL, USER = "+12125550147", "+12125550148", "hidden.person@example.com", "cust-5150"
OTHER = {"phone": "+12125550199", "email": "other@example.com", "user_id": "cust-1"}
MARCH, APRIL = "2026-03-02T10:00:00.000000Z", "2026-04-01T10:00:00.000000Z"
SECRETS = [None, b"pepper"]
TABLES = (
    "regal_outcomes", "regal_contacts", "regal_contact_phones", "regal_messages",
    "regal_consents", "regal_consent_log", "regal_suppressions",
)  # fmt: skip


def forgetting(database, *given, secret=None, account="acme"):
    return Forgetting(Account(database, account=account, secret=secret, now=lambda: NOW), given)


def forget(where, *given, **options):
    with closing(open_database(where)) as database:
        person = forgetting(database, *given, **options)
        person.suppress()
        return person.erase(), person.traces


def logged(identifier, position=1, ip="203.0.113.77"):
    return LoggedConsent(identifier, "sms", True, MARCH, ip, "Yes.", "form", position, None, "acknowledged")


def test_a_recorded_decision_at_the_position_of_a_row_is_not_of_its_person(tmp_path):
    """Positions of what was recorded are those of the source, and those of a sync's outcomes are its own."""
    path = tmp_path / "ledger.db"
    recorded = logged(OTHER["phone"])._replace(status="recorded")
    write(path, lines=[line(1, user_id=USER)], log=[recorded], acknowledged=[(OTHER["phone"], "sms", True, MARCH)])
    _, traces = forget(path, f"user:{USER}")
    assert OTHER["phone"] not in traces.addresses
    assert [one.identifier for one in LedgerView(path).consent_log()] == [OTHER["phone"]]


@pytest.fixture
def everywhere(database_url, secret):
    """Write a person, and another one, into every table; returns where."""
    stored = Identifiers(secret).stored
    me = {"user_id": stored(USER), "phone": stored(PHONE), "email": stored(EMAIL)}
    them = {name: stored(value) for name, value in OTHER.items()}
    row = {"id": USER, "tel": "(212) 555-0147", "message_id": "m-row"}
    write(
        database_url, secret=secret, run="done",
        lines=[line(1, **me), line(2, **them)],
        log=[logged(PHONE), logged(SECOND), logged(OTHER["phone"], 2, ip="203.0.113.9")],
        acknowledged=[
            (PHONE, "sms", False, APRIL), (SECOND, "voice", True, MARCH), (OTHER["phone"], "sms", True, MARCH),
        ],
        contacts=[(USER, "a", "b"), (OTHER["user_id"], "c", "d")],
        phones=[(USER, PHONE), (USER, SECOND), (OTHER["user_id"], OTHER["phone"])],
    )  # fmt: skip
    write(
        database_url, secret=secret, run="letters", state="failed",
        lines=[
            line(1, "rejected", payload={"messageId": "m-letter", "userId": USER}, user_id=me["user_id"], reason="x"),
            line(2, "rejected", payload={"traits": {"phones": {PHONE: {}}}}, user_id=them["user_id"], reason="x"),
            line(3, "rejected", payload={"e": EMAIL.upper()}, reason="x"),
            line(4, "rejected", payload=OTHER, user_id=them["user_id"], reason="x"),
        ],
        rows=[row, OTHER, {"phone": SECOND, "n": 1}, {"phone": SECOND, "n": 2}],
        states=[RowState.REJECTED, RowState.REJECTED, RowState.OPEN, RowState.ACKNOWLEDGED],
    )  # fmt: skip
    with closing(open_database(database_url)) as database:
        account = Account(database, account="acme", secret=secret, now=lambda: NOW)
        claims = [Claim(TRACK, one) for one in ("m-letter", "m-row", "m-other")]
        database.write(lambda connection: account.settle(connection, acknowledged=claims))
        suppress(account, [EMAIL, OTHER["email"]])
    return database_url


def all_of(where):
    """Every value of every table, as text."""
    view = LedgerView(where)
    rows = [repr(tuple(row)) for table in TABLES for row in view.query(f"SELECT * FROM {table}")]
    chunks = [repr(row) for run in ("letters",) for row in view.rows(run)]
    return "\n".join([*rows, *chunks])


@on(EVERY)
@pytest.mark.parametrize("secret", SECRETS)
def test_all_of_a_person_is_removed_and_nothing_of_anybody_else(everywhere, secret):
    before = LedgerView(everywhere)
    stored = Identifiers(secret).stored
    removed, traces = forget(everywhere, f"user:{USER}", secret=secret)

    assert traces.linked == sorted(map(stored, (PHONE, SECOND, EMAIL)))
    assert removed == {
        "regal_outcomes": 4, "payloads": 3, "regal_row_chunks": 3, "regal_consents": 2, "regal_consent_log": 2,
        "regal_contacts": 1, "regal_contact_phones": 2, "regal_messages": 2, "regal_suppressions": 1,
    }  # fmt: skip
    left = all_of(everywhere)
    for text in (PHONE, SECOND, EMAIL, USER, "555-0147", "203.0.113.77", "m-letter", "m-row"):
        for form in (text, stored(text), text.upper()):
            assert form not in left
    assert stored(OTHER["user_id"]) in left
    assert stored("m-other") in left
    assert {key for key, _ in before.consents()} == {stored(OTHER["phone"])}
    assert [(one.position, one.payload is None) for one in before.outcomes("letters")] == [
        (1, True), (2, True), (3, True), (4, False),
    ]  # fmt: skip
    assert [row for _, row in before.rows("letters")] == [
        {"$skip": "suppressed"}, OTHER, {"$skip": "suppressed"}, {"$skip": "suppressed"},
    ]  # fmt: skip


@on(EVERY)
@pytest.mark.parametrize("secret", SECRETS)
def test_what_would_be_removed_is_counted_before(everywhere, secret):
    with closing(open_database(everywhere)) as database:
        before = all_of(everywhere)
        person = forgetting(database, f"user:{USER}", secret=secret)
        assert all_of(everywhere) == before
        person.suppress()
        counted = dict(person.traces.counts)
        assert person.erase() == counted
    assert forget(everywhere, f"user:{USER}", PHONE, SECOND, EMAIL, secret=secret)[0].total() == 0


@on(EVERY)
@pytest.mark.parametrize("secret", SECRETS)
def test_opt_outs_keep_barring_and_every_identifier_is_held(everywhere, secret):
    _, traces = forget(everywhere, PHONE, secret=secret)
    assert traces.opt_outs == 1
    with closing(open_database(everywhere)) as database:
        people = [(PHONE,), (SECOND,), (EMAIL,), (f"user:{USER}",), (OTHER["phone"],)]
        found = Suppressions(Account(database, account="acme", secret=secret)).find(people)
    assert [hold is not None and hold.is_forgotten for hold in found] == [True, True, True, True, False]
    assert not found[0].is_news(PHONE, "sms", APRIL)
    assert found[0].is_news(PHONE, "voice", None)


@on(EVERY)
def test_an_opt_out_that_came_between_is_kept_as_well(database_url):
    write(database_url, lines=[line(1, phone=PHONE)])
    with closing(open_database(database_url)) as database:
        person = forgetting(database, PHONE)
        person.suppress()
        Account(database, account="acme", now=lambda: NOW).bar([(PHONE, "sms", APRIL)])
        person.erase()
        (hold,) = Suppressions(Account(database, account="acme")).find([(PHONE,)])
    assert not hold.is_news(PHONE, "sms", APRIL)


class TestWhoElseIsMeant:
    def test_the_user_id_of_a_phone_with_its_other_phones_and_emails(self, database_url):
        write(
            database_url,
            lines=[line(1, user_id="u1", phone=PHONE), line(2, user_id="u1", email=EMAIL)],
            phones=[("u1", PHONE), ("u1", SECOND)],
        )
        assert forget(database_url, PHONE)[1].linked == [SECOND, EMAIL, "user:u1"]

    def test_an_email_that_stands_beside_a_phone_without_a_user_id(self, database_url):
        write(database_url, lines=[line(1, phone=PHONE, email=EMAIL)])
        assert forget(database_url, PHONE)[1].linked == [EMAIL]

    def test_a_phone_whose_consent_the_same_event_had(self, database_url):
        write(database_url, lines=[line(1, user_id="u1", phone=PHONE), line(2, user_id="u2")],
              log=[logged(SECOND, 1), logged("+12125550177", 2)])  # fmt: skip
        assert forget(database_url, "user:u1")[1].linked == [PHONE, SECOND]

    def test_not_somebody_who_shares_a_phone(self, database_url):
        write(
            database_url,
            lines=[line(1, user_id="u1", phone=PHONE), line(2, user_id="u2", phone=PHONE, email=EMAIL)],
            phones=[("u1", PHONE), ("u2", PHONE), ("u2", SECOND)],
        )
        assert forget(database_url, "user:u1")[1].linked == [PHONE]
        assert [(one.user_id, one.email) for one in LedgerView(database_url).outcomes("run")] == [(None, None)] * 2
        with closing(open_database(database_url)) as database:
            found = Suppressions(Account(database, account="acme")).find([("user:u2",), (EMAIL,)])
        assert found == [None, None]

    def test_not_somebody_who_shares_a_phone_that_was_given_as_well(self, database_url):
        write(
            database_url,
            lines=[line(1, user_id="u1", phone=PHONE), line(2, user_id="u2", phone=PHONE, email=EMAIL)],
        )
        assert forget(database_url, "user:u1", PHONE)[1].linked == []

    @pytest.mark.parametrize("lines", [[], [line(1, user_id="u1", phone=PHONE), line(2, user_id="u2", phone=PHONE)]])
    def test_of_a_phone_of_two_people_it_has_to_be_said_who(self, database_url, lines):
        write(database_url, lines=lines, phones=[("u1", PHONE), ("u2", PHONE)])
        with pytest.raises(ValueError, match=r"has 2 user ids on record with it \(u1, u2\).*Name the user id"):
            forget(database_url, PHONE)
        assert forget(database_url, PHONE, "user:u2")[1].linked == []


class TestKeysInOtherSpellings:
    """Keys of contacts and ids of messages are whatever a source says."""

    def test_contacts(self, database_url):
        mine = ["(212) 555-0147", "Hidden.Person@Example.com", '["shop-1", "u1"]', "u1"]
        others = ["2125550199", "u10", '["shop-1", "u11"]', "x0147"]
        write(database_url, contacts=[(one, "a", "b") for one in mine + others])
        forget(database_url, PHONE, EMAIL, "user:u1")
        assert sorted(LedgerView(database_url).contacts()) == sorted(others)

    def test_messages(self, database_url):
        mine = ["welcome-2125550147", "+12125550147:1", "Hidden.Person@example.com/7"]
        others = ["992125550147", "21255501470", "welcome-0147"]
        write(database_url, lines=[line(1, phone=PHONE, email=EMAIL)])
        with closing(open_database(database_url)) as database:
            account = Account(database, account="acme", now=lambda: NOW)
            claims = [Claim(TRACK, one) for one in mine + others]
            database.write(lambda connection: account.settle(connection, acknowledged=claims))
        forget(database_url, PHONE)
        assert sorted(LedgerView(database_url).messages()) == sorted(others)


class TestADeliveryThatRuns:
    def rows(self, where, **options):
        return write(where, rows=[{"phone": PHONE}, OTHER], state=None, hold_s=3_600, **options)

    @on(EVERY)
    def test_is_waited_for_if_it_may_still_send_a_row_of_the_person(self, database_url):
        number = self.rows(database_url)
        with pytest.raises(LedgerError, match=rf"may have rows of this person: {number} \(dag.task\).*run the command"):
            forget(database_url, PHONE)
        assert [row for _, row in LedgerView(database_url).rows()] == [{"phone": PHONE}, OTHER], "nothing was removed"
        with closing(open_database(database_url)) as database:
            (hold,) = Suppressions(Account(database, account="acme")).find([(PHONE,)])
        assert hold.is_forgotten, "but nothing is sent from now on"

    def test_is_waited_for_while_it_reads(self, database_url):
        write(database_url, rows=[OTHER], state=None, complete=False, hold_s=3_600)
        with pytest.raises(LedgerError, match="Deliveries that run"):
            forget(database_url, PHONE)

    def test_is_not_if_it_has_none(self, database_url):
        write(database_url, rows=[OTHER], state=None, hold_s=3_600)
        forget(database_url, PHONE)

    @pytest.mark.parametrize("state", [RowState.ACKNOWLEDGED, RowState.REJECTED, RowState.SKIPPED_UNCHANGED])
    def test_is_not_if_all_of_it_is_settled(self, database_url, state):
        self.rows(database_url, states=[state, RowState.OPEN])
        assert forget(database_url, PHONE)[0]["regal_row_chunks"] == 1

    def test_is_waited_for_if_it_sends_events_one_by_one_and_has_sent_one_of_the_person(self, database_url):
        write(database_url, lines=[line(1, phone=PHONE)], state=None, hold_s=3_600)
        LedgerView(database_url).change("UPDATE regal_deliveries SET state = 'finished'")
        with pytest.raises(LedgerError, match="Deliveries that run"):
            forget(database_url, PHONE)
        forget(database_url, OTHER["phone"])

    def test_can_write_no_more_if_it_only_seemed_dead(self, database_url):
        self.rows(database_url, at=NOW - timedelta(hours=2))
        assert LedgerView(database_url).delivery().holder is not None
        forget(database_url, PHONE)
        assert LedgerView(database_url).delivery().holder is None


@pytest.mark.parametrize("secret", SECRETS)
def test_a_user_id_that_is_a_word_or_a_number_is_no_value_of_another_column(database_url, secret):
    rows = [
        {"user_id": "gold", "plan": "x"}, {"user_id": "u2", "plan": "gold"}, {"customerId": "gold"},
        {"user_id": "u3", "amount": 7}, {"user_id": 7}, {"user_id": "u4", "plan": "a-7"},
    ]  # fmt: skip
    write(database_url, secret=secret, rows=rows, state="stopped")
    for given in ("user:gold", "user:7"):
        forget(database_url, given, secret=secret)
    assert [number for number, row in LedgerView(database_url).rows() if "$skip" not in row] == [2, 4, 6]


def test_the_file_is_free_of_the_person_while_others_have_it_open(tmp_path):
    path = tmp_path / "ledger.db"
    write(path, lines=[line(1, phone=PHONE, email=EMAIL)], rows=[{"phone": PHONE}], state="stopped")
    with closing(open_database(path)) as another:
        another.read(lambda connection: connection.exec_driver_sql("SELECT * FROM regal_outcomes").fetchall())
        forget(path, PHONE)
        held = everything(path)
    assert PHONE.encode() not in held
    assert EMAIL.encode() not in held


def test_accounts_are_forgotten_one_by_one(database_url):
    write(database_url, lines=[line(1, phone=PHONE)], acknowledged=[(PHONE, "sms", False, APRIL)])
    write(database_url, lines=[line(1, phone=PHONE)], account="zenith", api_key="another",
          acknowledged=[(PHONE, "sms", False, APRIL)])  # fmt: skip
    forget(database_url, PHONE)
    found = LedgerView(database_url).query("SELECT account FROM regal_consents")
    assert [row[0] for row in found] == ["zenith"]


@on(EVERY)
def test_hidden_user_ids_are_found_in_rows_by_the_hash_of_what_was_given(database_url):
    """With a key, the ledger knows the phone of a user id as a hash only."""
    stored = Identifiers(b"pepper").stored
    write(database_url, secret=b"pepper", lines=[line(1, user_id=stored("u1"), phone=stored(PHONE))], run="a")
    write(database_url, secret=b"pepper", run="b", state="stopped", rows=[
        {"tel": "212.555.0147"}, {"tel": "212.555.0148"}, {"user_id": "u1"}, {"user_id": "u2"}, {"plan": "u1"},
    ])  # fmt: skip
    forget(database_url, "user:u1", secret=b"pepper")
    kept = [number for number, row in LedgerView(database_url).rows("b") if "$skip" not in row]
    assert kept == [2, 4]


def test_opt_outs_that_regal_lacks_are_counted(database_url):
    write(database_url, lines=[line(1, phone=PHONE)])
    with closing(open_database(database_url)) as database:
        Account(database, account="acme", now=lambda: NOW).bar([(PHONE, "sms", APRIL), (OTHER["phone"], "sms", APRIL)])
        assert forgetting(database, PHONE).traces.owed == 1


def test_an_opt_in_of_a_user_id_is_removed_with_it(database_url):
    write(database_url, acknowledged=[("user:u1", "sms", False, APRIL)], lines=[line(1, user_id="u1")])
    removed, traces = forget(database_url, "user:u1")
    assert (removed["regal_consents"], traces.opt_outs) == (1, 1)
