"""An account's records: what may be sent, and what is recorded about it, in every database."""

from __future__ import annotations

import hashlib
import tracemalloc
from collections import deque
from contextlib import suppress

import pytest
from sqlalchemy import select

from airflow_provider_regal.errors import WrongLedgerError
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.deliveries import Deliveries, Try
from airflow_provider_regal.ledger.rules import Claim
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.databases import SERVERS
from tests.ledger.accounts import (
    BLOCKED,
    BUSY,
    DUPLICATE,
    GO,
    PHONE,
    STALE,
    START,
    Accounts,
    at,
    known,
    one,
    opt_in,
    opt_out,
    sent,
    track,
)
from tests.ledger.conftest import where_of
from tests.ledger.view import engine_of, place_of

PORTABLE = "nothing but standard SQL"


@pytest.fixture(params=["sqlite", PORTABLE, *SERVERS])
def accounts(request, tmp_path):
    if request.param == PORTABLE:
        request.getfixturevalue("portable")
    where = where_of("sqlite" if request.param == PORTABLE else request.param, request, tmp_path)
    made = Accounts(lambda: engine_of(where))
    yield made
    made.close()


def test_an_acknowledged_opt_in_is_told_with_its_evidence_and_source(accounts):
    account = accounts(source="dag.task")
    assert not account.has_consents()
    sent(account, opt_in(5))
    assert known(account) == [(PHONE, "sms", 1, at(5), None, "acknowledged", None, None, "dag.task", None)]
    assert account.has_consents()


def test_a_claim_is_seen_by_others_at_once(accounts):
    assert one(accounts(), opt_in(5)) is GO
    assert known(accounts("2")) == [(PHONE, "sms", None, None, None, "sending", 1, at(5), None, None)]
    assert not accounts("2").has_consents()


def test_an_older_opt_in_never_follows_a_newer_opt_out(accounts):
    sent(accounts(), opt_out(5))
    assert [one(accounts("2"), opt_in(minute)) for minute in (4, 5, 6)] == [STALE, STALE, GO]


def test_at_equal_times_an_opt_out_follows_an_opt_in_and_the_same_again_goes(accounts):
    account = accounts()
    sent(account, opt_in(5))
    sent(account, opt_in(5))
    sent(account, opt_out(5))
    sent(account, opt_out(5))
    assert one(account, opt_in(5)) is STALE


def test_nothing_older_than_what_regal_has_or_may_have_goes(accounts):
    account = accounts()
    sent(account, opt_in(5))
    assert one(account, opt_out(4)) is STALE
    account.claim([opt_in(8)])
    account.settle(unknown=[opt_in(8)])
    assert one(accounts("2"), opt_out(7)) is STALE
    assert one(accounts("2"), opt_out(8)) is GO


def test_a_barrier_holds_without_any_send_and_is_never_lowered(accounts):
    account = accounts()
    account.bar([(PHONE, "sms", at(5)), ("other", "sms", at(9)), (PHONE, "sms", at(6))])
    account.bar([(PHONE, "sms", at(3))])
    assert known(account)[0] == (PHONE, "sms", None, None, at(6), "barrier", None, None, None, None)
    assert one(account, opt_in(6)) is STALE
    assert one(account, opt_in(7)) is GO
    assert not account.has_consents()


def test_an_opt_out_without_a_time_bars_from_when_it_is_read_whatever_else_is_known(accounts):
    """It can't be known whether it is an older one read again, or a new one: an opt-in in between must not win."""
    account, now = accounts(), to_ledger_time(START)
    sent(account, opt_in(5, "yes"))
    sent(account, opt_out(5, "no"))
    assert account.bar((key, "sms", None) for key in ["nobody", "yes", "no"]) == [now] * 3
    assert {row[0]: row[4] for row in known(account)} == dict.fromkeys(["nobody", "yes", "no"], now)


def test_an_opt_out_without_a_time_wins_if_it_is_read_before_an_opt_in_given_earlier_is_claimed(accounts):
    sent(accounts("0"), opt_out(5))
    reads_the_opt_in, reads_the_opt_out = accounts("1"), accounts("2")
    meanwhile = opt_in(10)
    reads_the_opt_out.bar([(PHONE, "sms", None)])
    assert one(reads_the_opt_in, meanwhile) is STALE
    accounts.clock.wait(60)
    given_since = Claim("opt_in", PHONE, "sms", True, to_ledger_time(accounts.clock()))
    assert one(reads_the_opt_in, given_since) is GO, "the person agreed after the opt-out was read"


def test_only_opt_ins_that_this_run_claimed_were_granted(accounts):
    account = accounts()
    account.bar([("barred", "sms", at(6))])
    account.claim([opt_in(5), opt_in(5, "barred"), opt_in(5, "given back")])
    account.settle(released=[opt_in(5, "given back")])
    asked = [opt_in(5), opt_in(4), opt_in(5, "barred"), opt_in(5, "given back"), opt_in(5, "never heard of")]
    assert account.were_granted(asked) == [True, False, False, False, False]
    assert accounts("2").were_granted(asked[:1]) == [False]
    account.settle(acknowledged=[opt_in(5)])
    assert accounts("2").were_granted([*asked[:2], opt_out(5)]) == [True, False, False]
    assert account.were_granted([]) == []


def test_an_opt_in_that_is_denied_after_it_was_claimed_is_unknown_and_was_not_granted(accounts):
    """The try that claimed it may have died before or after sending it; this one does not send it."""
    account = accounts()
    assert one(account, opt_in(5)) is GO
    account.bar([(PHONE, "sms", at(6))])
    assert one(account, opt_in(5)) is STALE
    assert known(account)[0][5:8] == ("unknown", 1, at(5))
    assert account.were_granted([opt_in(5)]) == [False]
    assert one(accounts("2"), opt_out(6)) is GO, "nobody waits for it"


def test_an_opt_out_ends_the_yes_that_regal_has_or_may_have_if_that_is_not_newer(accounts):
    account = accounts()
    account.settle(acknowledged=[opt_in(5), opt_out(5, "out")], unknown=[opt_in(5, "doubtful")])
    account.bar([("barred", "sms", at(5))])
    asked = [opt_out(5), opt_out(4), *(opt_out(9, key) for key in ("out", "doubtful", "barred", "never heard of"))]
    assert account.end_a_yes(asked) == [True, False, False, True, False, False]


def test_barring_gives_the_times_in_the_order_of_what_it_was_told(accounts):
    many = [(f"key-{number % 1_500:04d}", "sms", at(number)) for number in reversed(range(2_300))]
    assert accounts().bar(many) == [told[2] for told in many]
    assert known(accounts())[0][4] == at(1_500)


def test_the_row_that_says_so_is_remembered_once_it_is_acknowledged(accounts):
    account = accounts()
    one(account, opt_in(5, row_hash="r5"))
    assert known(account)[0][9] is None
    account.settle(acknowledged=[opt_in(5, row_hash="r5")])
    assert known(account)[0][9] == "r5"
    account.settle(acknowledged=[opt_in(5), opt_in(4, row_hash="r4")])
    assert known(account)[0][9] == "r5", "it is said again, or something older"
    sent(account, opt_out(6))
    assert known(account)[0][9] is None, "another row says something newer"


def test_a_barrier_stops_at_its_channel(accounts):
    accounts().bar([(PHONE, "voice", at(5))])
    assert one(accounts(), opt_in(4)) is GO


def test_another_runs_claim_is_waited_for_until_its_lease_ends(accounts):
    assert one(accounts(), opt_in(5)) is GO
    other = accounts("2", lease_s=60)
    assert one(other, opt_out(6)) is BUSY
    accounts.clock.wait(59)
    assert one(other, opt_out(6)) is BUSY
    accounts.clock.wait(2)
    assert one(other, opt_out(6)) is GO


def test_a_claim_is_waited_for_as_long_as_requests_of_its_own_delivery_may_take(accounts):
    held = Deliveries(accounts().on_record).begin(
        place_of("run"), Try(), call="identify", source="s", options="o", hold_s=200
    )
    assert one(accounts(str(held.id)), opt_in(5)) is GO
    other = accounts("other")
    accounts.clock.wait(289)
    assert other.verdicts([opt_out(6)]) == [one(other, opt_out(6))] == [BUSY]
    accounts.clock.wait(2)
    assert other.verdicts([opt_out(6)]) == [one(other, opt_out(6))] == [GO]


def test_a_claim_made_by_a_clock_far_ahead_keeps_nobody_waiting(accounts):
    accounts.clock.wait(9_999)
    assert one(accounts(), opt_in(5)) is GO
    accounts.clock.wait(-9_999)
    assert one(accounts("2"), opt_out(6)) is GO


def test_a_run_does_not_wait_for_itself(accounts):
    assert one(accounts(), opt_in(5)) is GO
    assert one(accounts(), opt_in(5, once=True)) is GO
    assert one(accounts(), opt_out(6)) is GO


def test_an_unknown_opt_in_is_not_repeated_when_it_must_go_once(accounts):
    accounts().settle(unknown=[opt_in(5)])
    other = accounts("2")
    assert one(other, opt_in(5, once=True)) is BLOCKED
    assert one(other, opt_out(5, once=True)) is GO
    accounts().settle(unknown=[opt_in(5, "forced")])
    assert one(other, opt_in(5, "forced", once=True, force=True)) is GO


def test_what_a_dead_run_left_sending_is_not_repeated_when_it_must_go_once(accounts):
    accounts().claim([opt_in(5), track()])
    accounts.clock.wait(1_000)
    assert accounts("2").claim([opt_in(5, once=True), track(once=True)]) == [BLOCKED, BLOCKED]
    assert accounts("2").claim([opt_in(5), track()]) == [GO, GO]


def test_an_acknowledged_event_is_a_duplicate_for_every_run(accounts):
    sent(accounts(), track())
    assert one(accounts(), track()) is DUPLICATE
    assert one(accounts("2"), track(once=True, force=True)) is DUPLICATE


def test_an_unknown_event_is_blocked_only_when_it_must_go_once(accounts):
    accounts().settle(unknown=[track()])
    assert one(accounts(), track(once=True)) is BLOCKED
    assert one(accounts(), track(once=True, force=True)) is GO
    accounts().settle(unknown=[track()])
    assert one(accounts("2"), track()) is GO


def test_an_event_that_another_run_sends_is_blocked_only_when_it_must_go_once(accounts):
    assert one(accounts(), track(once=True)) is GO
    assert one(accounts(), track(once=True)) is GO
    assert one(accounts("2"), track(once=True)) is BLOCKED
    assert one(accounts("2"), track()) is GO


def test_claims_of_one_key_are_decided_in_turn(accounts):
    claims = [opt_in(5), opt_out(6), opt_in(6), opt_in(5), opt_in(7)]
    assert accounts().claim(claims) == [GO, GO, STALE, STALE, GO]


def test_settling_out_of_order_keeps_the_newest(accounts):
    account = accounts()
    account.claim([opt_in(5), opt_out(6)])
    account.settle(acknowledged=[opt_out(6)])
    account.settle(acknowledged=[opt_in(5)])
    assert known(account) == [(PHONE, "sms", 0, at(6), at(6), "acknowledged", None, None, "", None)]
    account.settle(unknown=[opt_in(5), opt_out(6)])
    assert known(account)[0][2:6] == (0, at(6), at(6), "acknowledged")


def test_settling_an_older_claim_leaves_the_newer_one_pending(accounts):
    account = accounts()
    account.claim([opt_in(5), opt_out(6)])
    account.settle(acknowledged=[opt_in(5)])
    assert known(account)[0][2:8] == (1, at(5), at(6), "sending", 0, at(6))
    account.settle(unknown=[opt_in(4)], released=[opt_in(5)])
    assert known(account)[0][2:8] == (1, at(5), at(6), "sending", 0, at(6))


def test_settling_again_or_without_a_claim_changes_nothing_more(accounts):
    account = accounts()
    for _ in range(2):
        account.settle(acknowledged=[opt_in(5), track()], unknown=[opt_in(6)], released=[opt_in(7, "never claimed")])
        assert known(account) == [(PHONE, "sms", 1, at(5), None, "unknown", 1, at(6), "", None)]
    assert one(account, track()) is DUPLICATE
    account.settle(unknown=[track()])
    assert one(account, track()) is DUPLICATE


def test_a_released_claim_leaves_no_trace(accounts):
    account = accounts()
    account.claim([opt_in(5), track()])
    account.settle(released=[opt_in(5), track()])
    assert known(account) == []
    assert accounts("2").claim([opt_in(5, once=True), track(once=True)]) == [GO, GO]


def test_a_released_claim_gives_back_what_was_known(accounts):
    account = accounts()
    sent(account, opt_in(5))
    account.bar([("barred", "sms", at(1))])
    before = known(account)
    account.claim([opt_in(6), opt_in(6, "barred")])
    account.settle(released=[opt_in(6), opt_in(6, "barred")])
    assert known(account) == before


def test_releasing_does_not_make_forgotten_that_an_earlier_send_is_unknown(accounts):
    account = accounts()
    account.settle(unknown=[opt_in(5), track()])
    assert account.claim([opt_in(6), track()]) == [GO, GO]
    account.settle(released=[opt_in(6), track()])
    assert known(account)[0][5:8] == ("unknown", 1, at(5))
    assert account.claim([opt_out(4), opt_in(5, once=True), track(once=True)]) == [STALE, BLOCKED, BLOCKED]


def test_only_the_claims_of_the_run_itself_are_released(accounts):
    accounts().claim([opt_in(5), track()])
    accounts("2").settle(released=[opt_in(5), track()])
    assert known(accounts())[0][5] == "sending"
    assert one(accounts("2"), track(once=True)) is BLOCKED


def test_a_baseline_is_all_or_nothing(accounts):
    account = accounts()

    def broken():
        yield from ((opt_in(5, f"key-{number:05d}"), None) for number in range(2_500))
        raise RuntimeError("the source broke")

    with suppress(RuntimeError):
        account.baseline(broken())
    assert known(account) == []
    assert account.baseline((opt_in(5, f"key-{number:05d}"), None) for number in range(2_500)) == 2_500
    assert len(known(account)) == 2_500
    assert account.has_consents()


def test_a_baseline_does_not_overwrite_newer_evidence(accounts):
    account = accounts()
    sent(account, opt_out(6))
    assert account.baseline([(opt_in(5), None)]) == 1
    assert known(account)[0][2:4] == (0, at(6))


def test_accounts_know_nothing_of_each_other(accounts):
    ours, theirs = accounts(), accounts(account="other")
    ours.bar([(PHONE, "sms", at(9))])
    ours.keep_contacts([("c", "1", "2")])
    ours.keep_phones([("c", PHONE)])
    ours.keep_types({"plan": "str"})
    sent(ours, track())
    assert theirs.claim([opt_in(5), track()]) == [GO, GO]
    assert (theirs.contact_hashes(["c"]), theirs.phones_of(["c"]), theirs.types()) == ({}, {}, {})
    assert (len(known(ours)), len(known(theirs))) == (1, 1)


def test_contacts_and_phones_are_remembered_for_the_next_delivery(accounts):
    many = [f"contact-{number}" for number in range(1_201)]
    for payload in ("p1", "p2"):
        accounts().keep_contacts([(key, "row", payload) for key in many])
    accounts().keep_phones((user, PHONE) for user in many)
    later = accounts("2")
    assert later.contact_hashes([*many, "new"]) == dict.fromkeys(many, ("row", "p2"))
    assert later.contacts_acknowledged(["contact-7", "new"]) == {"contact-7": to_ledger_time(START)}
    assert later.phones_of([*many, "new"]) == {key: [PHONE] for key in many}
    assert later.phones_of([]) == later.contact_hashes([]) == {}


def test_of_one_contact_told_twice_the_last_is_kept(accounts):
    account = accounts()
    account.keep_contacts([("c", "r1", "p1"), ("c", None, "p2")])
    assert account.contact_hashes(["c"]) == {"c": (None, "p2")}


def test_the_first_type_of_a_name_stays(accounts):
    accounts().keep_types({"plan": "str"})
    accounts().keep_types({"plan": "int", "age": "int"})
    since = to_ledger_time(START)
    assert accounts().types() == {"plan": ("str", since), "age": ("int", since)}


def test_another_type_is_accepted_for_its_account_alone(accounts):
    for account in (accounts(), accounts(account="other")):
        account.keep_types({"plan": "number"})
    assert accounts().accept_type("plan", "text")
    assert not accounts().accept_type("plans", "text")
    assert accounts().types()["plan"][0] == "text"
    assert accounts(account="other").types()["plan"][0] == "number"


def test_keys_are_stored_as_an_hmac_where_there_is_a_secret(accounts):
    account = accounts(secret=b"pepper")
    sent(account, opt_in(5))
    account.keep_contacts([("c", "1", "2")])
    assert not account.identifiers.plain
    assert known(account)[0][0] == account.identifiers.stored(PHONE) != PHONE
    assert len(account.identifiers.stored(PHONE)) == 64
    assert account.identifiers.stored(PHONE) != accounts(secret=b"salt", account="other").identifiers.stored(PHONE)
    assert accounts(secret=b"pepper").contact_hashes(["c"]) == {"c": ("1", "2")}


class TestRegistering:
    """An account belongs to one API key and one secret, or opt-outs would be looked for where they are not."""

    def test_it_keeps_the_secret_it_began_with(self, accounts):
        accounts(secret=b"pepper").register("key")
        for other in (b"salt", None):
            with pytest.raises(WrongLedgerError, match="ledger_key") as caught:
                accounts(secret=other).register("key")
            assert "pepper" not in str(caught.value)
        accounts(secret=b"pepper").register("key")

    def test_a_look_decides_nothing(self, accounts):
        accounts().register("key", keep=False)
        accounts(secret=b"pepper").register("key")
        with pytest.raises(WrongLedgerError, match="ledger_key"):
            accounts().register("key", keep=False)

    def test_two_accounts_of_one_key_are_refused_and_told_how_to_be_one(self, accounts):
        accounts().register("secret-key")
        for keep in (True, False):
            with pytest.raises(WrongLedgerError, match=r'Set the same account.*\{"account": "acme"\}') as caught:
                accounts(account="other").register("secret-key", keep=keep)
            assert "secret-key" not in str(caught.value)
        accounts(account="other").register("another-key")

    def test_a_new_key_of_an_account_replaces_the_old_one(self, accounts):
        accounts().register("old")
        accounts().register("new")
        accounts(account="other").register("old")
        with pytest.raises(WrongLedgerError, match="same API key"):
            accounts(account="other").register("new")

    def test_the_key_itself_is_not_stored_and_its_hash_is_salted(self, accounts):
        account = accounts()
        account.register("secret-key")
        ((stored,),) = account.database.read(
            lambda connection: connection.execute(select(schema.accounts.c.api_key_hash)).fetchall()
        )
        assert "secret-key" not in stored
        assert stored != hashlib.blake2b(b"secret-key", digest_size=32).hexdigest()


def test_every_key_keeps_its_own_entry(accounts):
    odd = [
        "a",
        "A",
        " a",
        "a ",
        "a\0",
        "ä",
        "\ud800",
        "😀",
        "%",
        "_",
        "'",
        "%s",
        ":x",
        "x" * 200,
        "x" * 201,
        "y" * 99_999,
    ]
    account = accounts()
    assert account.identifiers.plain
    account.keep_contacts([(key, str(number), None) for number, key in enumerate(odd)])
    assert account.contact_hashes(odd) == {key: (str(number), None) for number, key in enumerate(odd)}
    assert account.identifiers.stored("x" * 200) == "x" * 200
    assert len(account.identifiers.stored("x" * 201)) == 64


def test_consents_stream_in_constant_memory_and_in_order(accounts):
    account = accounts()
    account.bar((f"key-{number // 2:06d}", ("sms", "voice")[number % 2], at(1)) for number in range(20_001))
    tracemalloc.start()
    last, count = ("", ""), 0
    for row in account.consents():
        assert last < row[:2]
        last, count = row[:2], count + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_001
    assert peak < 6_000_000, "20,001 rows would take more"


def test_reading_consents_holds_nobody_up(accounts):
    account = accounts()
    account.bar((f"key-{number:06d}", "sms", at(1)) for number in range(5_000))
    rows = account.consents()
    next(rows)
    sent(accounts("2"), opt_in(5))
    deque(rows, 0)


def test_keys_sort_as_in_python_so_that_all_lock_in_one_order(accounts):
    keys = ["b", "B", "a", "A", "+1", "1", "ä", "z", "_", "-", "😀"]
    account = accounts()
    account.bar((key, "sms", at(1)) for key in keys)
    assert [row[0] for row in known(account)] == sorted(keys)
