"""What a ledger remembers beside claims: baselines, contacts, types, keys; and how it is read."""

from __future__ import annotations

import tracemalloc
from collections import deque
from contextlib import suppress

import pytest

from airflow_provider_regal.journal.ledger import Claim, LedgerError
from tests.journal.ledger_words import GO, PHONE, at, known, opt_in, opt_out, sent, track


def check_a_baseline_is_all_or_nothing(ledgers):
    ledger = ledgers()

    def broken():
        yield from (opt_in(5, f"key-{number:05d}") for number in range(2_500))
        raise RuntimeError("the source broke")

    with suppress(RuntimeError):
        ledger.baseline(broken())
    assert known(ledger) == []
    assert ledger.baseline(opt_in(5, f"key-{number:05d}") for number in range(2_500)) == 2_500
    assert len(known(ledger)) == 2_500
    assert ledger.has_consents()


def check_a_baseline_does_not_overwrite_newer_evidence(ledgers):
    ledger = ledgers()
    sent(ledger, opt_out(6))
    assert ledger.baseline([opt_in(5)]) == 1
    assert known(ledger)[0][2:4] == (0, at(6))


def check_accounts_know_nothing_of_each_other(ledgers):
    ours, theirs = ledgers(), ledgers(account="other")
    ours.bar([(PHONE, "sms", at(9))])
    ours.mark_contacts([("c", "1", "2")])
    ours.mark_phones([("c", PHONE)])
    ours.mark_rejected(["r"])
    ours.claim_types({"plan": "str"})
    sent(ours, track())
    assert theirs.claim([opt_in(5), track()]) == [GO, GO]
    assert (theirs.contact_hashes(["c"]), theirs.phones_of(["c"]), theirs.known_rejections(["r"])) == (
        {},
        {},
        set(),
    )
    assert theirs.claim_types({"plan": "int"}) == {"plan": "int"}
    assert theirs.erase([PHONE]) == 1
    assert len(known(ours)) == 1


def check_contacts_phones_and_rejections_are_remembered_for_the_next_run(ledgers):
    many = [f"contact-{number}" for number in range(1_201)]
    for payload in ("p1", "p2"):
        ledgers().mark_contacts([(key, "row", payload) for key in many])
    ledgers().mark_phones((user, PHONE) for user in many)
    ledgers().mark_rejected(["h1", "h1"])
    assert ledgers().known_rejections(["h1"]) == set(), "it was this very run"
    ledgers("run-2").mark_rejected(["h1", "h2"])
    later = ledgers("run-2")
    assert later.contact_hashes([*many, "new"]) == dict.fromkeys(many, ("row", "p2"))
    assert later.phones_of([*many, "new"]) == {key: [PHONE] for key in many}
    assert later.known_rejections(["h1", "h2"]) == {"h1"}, "h2 was its own"
    assert ledgers("run-3").known_rejections(["h1", "h2", "h3"]) == {"h1", "h2"}
    assert later.phones_of([]) == {}


def check_the_first_type_of_a_name_holds(ledgers):
    assert ledgers().claim_types({"plan": "str", "n" * 300: "int"}) == {"plan": "str", "n" * 300: "int"}
    wanted = {"plan": "int", "age": "int", "n" * 300: "str"}
    assert ledgers().claim_types(wanted) == {"plan": "str", "age": "int", "n" * 300: "int"}
    assert ledgers().types().items() >= {"plan": "str", "age": "int"}.items()


def check_keys_are_stored_as_an_hmac_where_there_is_a_secret(ledgers):
    ledger = ledgers(secret=b"pepper")
    sent(ledger, opt_in(5))
    ledger.mark_contacts([("c", "1", "2")])
    assert not ledger.keys.plain
    assert known(ledger)[0][0] == ledger.keys.stored(PHONE) != PHONE
    assert len(ledger.keys.stored(PHONE)) == 64
    assert ledger.keys.stored(PHONE) != ledgers(secret=b"salt", account="other").keys.stored(PHONE)
    assert ledgers(secret=b"pepper").contact_hashes(["c"]) == {"c": ("1", "2")}
    assert ledger.erase([PHONE, "c"]) == 2


def check_an_account_keeps_its_secret_or_nothing_would_be_found_and_opt_outs_be_forgotten(ledgers):
    ledgers(secret=b"pepper")
    for other in (b"salt", None):
        with pytest.raises(LedgerError, match="ledger_key") as caught:
            ledgers(secret=other)
        assert "pepper" not in str(caught.value)
    ledgers(secret=b"pepper")


def check_a_look_does_not_decide_which_secret_the_account_keeps(ledgers):
    assert not ledgers(keep_secret=False).has_consents()
    ledgers(secret=b"pepper")
    with pytest.raises(LedgerError, match="ledger_key"):
        ledgers(keep_secret=False)


def check_every_key_keeps_its_own_entry(ledgers):
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
    ledger = ledgers()
    assert ledger.keys.plain
    ledger.mark_contacts([(key, str(number), None) for number, key in enumerate(odd)])
    assert ledger.contact_hashes(odd) == {key: (str(number), None) for number, key in enumerate(odd)}
    assert ledger.keys.stored("x" * 200) == "x" * 200
    assert len(ledger.keys.stored("x" * 201)) == 64


def check_erasing_removes_all_that_is_known_of_a_person_and_of_nobody_else(ledgers):
    ledger = ledgers()
    for key in (PHONE, "other"):
        ledger.baseline([opt_in(5, key), Claim("opt_in", key, "voice", False, at(5))])
        ledger.mark_contacts([(key, "1", "2")])
        ledger.mark_phones([(key, key)])
    assert ledger.erase([PHONE, "nobody"]) == 4
    assert {row[0] for row in known(ledger)} == {"other"}
    assert ledger.phones_of([PHONE, "other"]) == {"other": ["other"]}
    assert ledger.erase([]) == 0


def check_consents_stream_in_constant_memory_and_in_order(ledgers):
    ledger = ledgers()
    ledger.bar((f"key-{number // 2:06d}", ("sms", "voice")[number % 2], at(1)) for number in range(20_001))
    tracemalloc.start()
    last, count = ("", ""), 0
    for row in ledger.consents():
        assert last < row[:2]
        last, count = row[:2], count + 1
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_001
    assert peak < 6_000_000, "20,001 rows would take more"


def check_reading_consents_holds_nobody_up(ledgers):
    ledger = ledgers()
    ledger.bar((f"key-{number:06d}", "sms", at(1)) for number in range(5_000))
    rows = ledger.consents()
    next(rows)
    sent(ledgers("run-2"), opt_in(5))
    deque(rows, 0)
