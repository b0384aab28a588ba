"""What a ledger does, whatever database it lies in: each check is handed a maker of ledgers over one empty database."""

from __future__ import annotations

import random
import tracemalloc
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta

from airflow_provider_regal.journal.ledger import Claim, Ledger, Verdict
from airflow_provider_regal.journal.ledger_rules import to_ledger_time

GO, DUPLICATE, STALE, BLOCKED, BUSY = Verdict
PHONE = "+15550100"
START = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)


class Clock:
    def __init__(self):
        self.time = START

    def __call__(self):
        return self.time

    def wait(self, seconds):
        self.time += timedelta(seconds=seconds)


class Ledgers:
    """Opens ledgers over one database, each with connections of its own, as another worker would."""

    def __init__(self, engine):
        self.engine, self.clock, self.opened = engine, Clock(), []

    def __call__(self, run="run-1", *, account="acme", **options):
        ledger = Ledger(self.engine(), account=account, run=run, now=self.clock, **options)
        self.opened.append(ledger)
        return ledger

    def close(self):
        for ledger in self.opened:
            ledger.close()


def at(minute):
    return to_ledger_time(START - timedelta(days=1) + timedelta(minutes=minute))


def opt_in(minute, key=PHONE, **options):
    return Claim("opt_in", key, "sms", True, at(minute), **options)


def opt_out(minute, key=PHONE, **options):
    return Claim("opt_in", key, "sms", False, at(minute), **options)


def track(key="message-1", **options):
    return Claim("track", key, **options)


def one(ledger, claim):
    (verdict,) = ledger.claim([claim])
    return verdict


def sent(ledger, claim):
    assert one(ledger, claim) is GO
    ledger.settle(acknowledged=[claim])


def known(ledger):
    return list(ledger.consents())


def check_an_acknowledged_opt_in_is_told_with_its_evidence_and_source(ledgers):
    ledger = ledgers(source="dag.task")
    assert not ledger.has_consents()
    sent(ledger, opt_in(5))
    assert known(ledger) == [(PHONE, "sms", 1, at(5), None, "acknowledged", None, None, "dag.task")]
    assert ledger.has_consents()


def check_a_claim_is_seen_by_others_at_once(ledgers):
    assert one(ledgers(), opt_in(5)) is GO
    assert known(ledgers("run-2")) == [(PHONE, "sms", None, None, None, "sending", 1, at(5), None)]
    assert not ledgers("run-2").has_consents()


def check_an_older_opt_in_never_follows_a_newer_opt_out(ledgers):
    sent(ledgers(), opt_out(5))
    assert [one(ledgers("run-2"), opt_in(minute)) for minute in (4, 5, 6)] == [STALE, STALE, GO]


def check_at_equal_times_an_opt_out_follows_an_opt_in_and_the_same_again_goes(ledgers):
    ledger = ledgers()
    sent(ledger, opt_in(5))
    sent(ledger, opt_in(5))
    sent(ledger, opt_out(5))
    sent(ledger, opt_out(5))
    assert one(ledger, opt_in(5)) is STALE


def check_nothing_older_than_what_regal_has_or_may_have_goes(ledgers):
    ledger = ledgers()
    sent(ledger, opt_in(5))
    assert one(ledger, opt_out(4)) is STALE
    ledger.claim([opt_in(8)])
    ledger.settle(unknown=[opt_in(8)])
    assert one(ledgers("run-2"), opt_out(7)) is STALE
    assert one(ledgers("run-2"), opt_out(8)) is GO


def check_a_barrier_holds_without_any_send_and_is_never_lowered(ledgers):
    ledger = ledgers()
    ledger.bar([(PHONE, "sms", at(5)), ("other", "sms", at(9)), (PHONE, "sms", at(6))])
    ledger.bar([(PHONE, "sms", at(3))])
    assert known(ledger)[0] == (PHONE, "sms", None, None, at(6), "barrier", None, None, None)
    assert one(ledger, opt_in(6)) is STALE
    assert one(ledger, opt_in(7)) is GO
    assert not ledger.has_consents()


def check_a_barrier_stops_at_its_channel(ledgers):
    ledgers().bar([(PHONE, "voice", at(5))])
    assert one(ledgers(), opt_in(4)) is GO


def check_another_runs_claim_is_waited_for_until_its_lease_ends(ledgers):
    assert one(ledgers(), opt_in(5)) is GO
    other = ledgers("run-2", lease_s=60)
    assert one(other, opt_out(6)) is BUSY
    ledgers.clock.wait(59)
    assert one(other, opt_out(6)) is BUSY
    ledgers.clock.wait(2)
    assert one(other, opt_out(6)) is GO


def check_a_claim_made_by_a_clock_far_ahead_keeps_nobody_waiting(ledgers):
    ledgers.clock.wait(9_999)
    assert one(ledgers(), opt_in(5)) is GO
    ledgers.clock.wait(-9_999)
    assert one(ledgers("run-2"), opt_out(6)) is GO


def check_a_run_does_not_wait_for_itself(ledgers):
    assert one(ledgers(), opt_in(5)) is GO
    assert one(ledgers(), opt_in(5, once=True)) is GO
    assert one(ledgers(), opt_out(6)) is GO


def check_an_unknown_opt_in_is_not_repeated_when_it_must_go_once(ledgers):
    ledgers().settle(unknown=[opt_in(5)])
    other = ledgers("run-2")
    assert one(other, opt_in(5, once=True)) is BLOCKED
    assert one(other, opt_out(5, once=True)) is GO
    ledgers().settle(unknown=[opt_in(5, "forced")])
    assert one(other, opt_in(5, "forced", once=True, force=True)) is GO


def check_what_a_dead_run_left_sending_is_not_repeated_when_it_must_go_once(ledgers):
    ledgers().claim([opt_in(5), track()])
    ledgers.clock.wait(1_000)
    assert ledgers("run-2").claim([opt_in(5, once=True), track(once=True)]) == [BLOCKED, BLOCKED]
    assert ledgers("run-2").claim([opt_in(5), track()]) == [GO, GO]


def check_an_acknowledged_event_is_a_duplicate_for_every_run(ledgers):
    sent(ledgers(), track())
    assert one(ledgers(), track()) is DUPLICATE
    assert one(ledgers("run-2"), track(once=True, force=True)) is DUPLICATE


def check_an_unknown_event_is_blocked_only_when_it_must_go_once(ledgers):
    ledgers().settle(unknown=[track()])
    assert one(ledgers(), track(once=True)) is BLOCKED
    assert one(ledgers(), track(once=True, force=True)) is GO
    ledgers().settle(unknown=[track()])
    assert one(ledgers("run-2"), track()) is GO


def check_an_event_that_another_run_sends_is_blocked_only_when_it_must_go_once(ledgers):
    assert one(ledgers(), track(once=True)) is GO
    assert one(ledgers(), track(once=True)) is GO
    assert one(ledgers("run-2"), track(once=True)) is BLOCKED
    assert one(ledgers("run-2"), track()) is GO


def check_claims_of_one_key_are_decided_in_turn(ledgers):
    claims = [opt_in(5), opt_out(6), opt_in(6), opt_in(5), opt_in(7)]
    assert ledgers().claim(claims) == [GO, GO, STALE, STALE, GO]


def check_settling_out_of_order_keeps_the_newest(ledgers):
    ledger = ledgers()
    ledger.claim([opt_in(5), opt_out(6)])
    ledger.settle(acknowledged=[opt_out(6)])
    ledger.settle(acknowledged=[opt_in(5)])
    assert known(ledger) == [(PHONE, "sms", 0, at(6), at(6), "acknowledged", None, None, "")]
    ledger.settle(unknown=[opt_in(5), opt_out(6)])
    assert known(ledger)[0][2:6] == (0, at(6), at(6), "acknowledged")


def check_settling_an_older_claim_leaves_the_newer_one_pending(ledgers):
    ledger = ledgers()
    ledger.claim([opt_in(5), opt_out(6)])
    ledger.settle(acknowledged=[opt_in(5)])
    assert known(ledger)[0][2:8] == (1, at(5), at(6), "sending", 0, at(6))
    ledger.settle(unknown=[opt_in(4)], released=[opt_in(5)])
    assert known(ledger)[0][2:8] == (1, at(5), at(6), "sending", 0, at(6))


def check_settling_again_or_without_a_claim_changes_nothing_more(ledgers):
    ledger = ledgers()
    for _ in range(2):
        ledger.settle(acknowledged=[opt_in(5), track()], unknown=[opt_in(6)], released=[opt_in(7, "never claimed")])
        assert known(ledger) == [(PHONE, "sms", 1, at(5), None, "unknown", 1, at(6), "")]
    assert one(ledger, track()) is DUPLICATE
    ledger.settle(unknown=[track()])
    assert one(ledger, track()) is DUPLICATE


def check_a_released_claim_leaves_no_trace(ledgers):
    ledger = ledgers()
    ledger.claim([opt_in(5), track()])
    ledger.settle(released=[opt_in(5), track()])
    assert known(ledger) == []
    assert ledgers("run-2").claim([opt_in(5, once=True), track(once=True)]) == [GO, GO]


def check_a_released_claim_gives_back_what_was_known(ledgers):
    ledger = ledgers()
    sent(ledger, opt_in(5))
    ledger.bar([("barred", "sms", at(1))])
    before = known(ledger)
    ledger.claim([opt_in(6), opt_in(6, "barred")])
    ledger.settle(released=[opt_in(6), opt_in(6, "barred")])
    assert known(ledger) == before


def check_releasing_does_not_make_forgotten_that_an_earlier_send_is_unknown(ledgers):
    ledger = ledgers()
    ledger.settle(unknown=[opt_in(5), track()])
    assert ledger.claim([opt_in(6), track()]) == [GO, GO]
    ledger.settle(released=[opt_in(6), track()])
    assert known(ledger)[0][5:8] == ("unknown", 1, at(5))
    assert ledger.claim([opt_out(4), opt_in(5, once=True), track(once=True)]) == [STALE, BLOCKED, BLOCKED]


def check_only_the_claims_of_the_run_itself_are_released(ledgers):
    ledgers().claim([opt_in(5), track()])
    ledgers("run-2").settle(released=[opt_in(5), track()])
    assert known(ledgers())[0][5] == "sending"
    assert one(ledgers("run-2"), track(once=True)) is BLOCKED


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
    ours.mark_phones(["c"])
    ours.mark_rejected(["r"])
    ours.claim_types({"plan": "str"})
    sent(ours, track())
    assert theirs.claim([opt_in(5), track()]) == [GO, GO]
    assert (theirs.contact_hashes(["c"]), theirs.with_phone(["c"]), theirs.known_rejections(["r"])) == (
        {},
        set(),
        set(),
    )
    assert theirs.claim_types({"plan": "int"}) == {"plan": "int"}
    assert theirs.erase([PHONE]) == 1
    assert len(known(ours)) == 1


def check_contacts_phones_and_rejections_are_remembered_for_the_next_run(ledgers):
    many = [f"contact-{number}" for number in range(1_201)]
    for payload in ("p1", "p2"):
        ledgers().mark_contacts([(key, "row", payload) for key in many])
    ledgers().mark_phones(many)
    ledgers().mark_rejected(["h1", "h1"])
    later = ledgers("run-2")
    assert later.contact_hashes([*many, "new"]) == dict.fromkeys(many, ("row", "p2"))
    assert later.with_phone([*many, "new"]) == set(many)
    assert later.known_rejections(["h1", "h2"]) == {"h1"}
    assert later.with_phone([]) == set()


def check_the_first_type_of_a_name_holds(ledgers):
    assert ledgers().claim_types({"plan": "str", "n" * 300: "int"}) == {"plan": "str", "n" * 300: "int"}
    wanted = {"plan": "int", "age": "int", "n" * 300: "str"}
    assert ledgers().claim_types(wanted) == {"plan": "str", "age": "int", "n" * 300: "int"}
    assert ledgers().types().items() >= {"plan": "str", "age": "int"}.items()


def check_keys_are_stored_as_an_hmac_where_there_is_a_secret(ledgers):
    ledger = ledgers(secret=b"pepper")
    sent(ledger, opt_in(5))
    ledger.mark_contacts([("c", "1", "2")])
    assert not ledger.plain
    assert known(ledger)[0][0] == ledger.stored_key(PHONE) != PHONE
    assert len(ledger.stored_key(PHONE)) == 64
    assert ledger.stored_key(PHONE) != ledgers(secret=b"salt").stored_key(PHONE)
    assert ledgers(secret=b"pepper").contact_hashes(["c"]) == {"c": ("1", "2")}
    assert ledgers().contact_hashes(["c"]) == {}
    assert ledger.erase([PHONE, "c"]) == 2


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
    assert ledger.plain
    ledger.mark_contacts([(key, str(number), None) for number, key in enumerate(odd)])
    assert ledger.contact_hashes(odd) == {key: (str(number), None) for number, key in enumerate(odd)}
    assert ledger.stored_key("x" * 200) == "x" * 200
    assert len(ledger.stored_key("x" * 201)) == 64


def check_erasing_removes_all_that_is_known_of_a_person_and_of_nobody_else(ledgers):
    ledger = ledgers()
    for key in (PHONE, "other"):
        ledger.baseline([opt_in(5, key), Claim("opt_in", key, "voice", False, at(5))])
        ledger.mark_contacts([(key, "1", "2")])
        ledger.mark_phones([key])
    assert ledger.erase([PHONE, "nobody"]) == 4
    assert {row[0] for row in known(ledger)} == {"other"}
    assert ledger.with_phone([PHONE, "other"]) == {"other"}
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


def check_of_many_that_claim_an_event_at_once_one_goes(ledgers):
    opened = [ledgers(f"run-{number}") for number in range(4)]
    keys = [f"message-{number}" for number in range(60)]

    def claim(number):
        order = random.Random(number).sample(keys, len(keys))
        return dict(zip(order, opened[number].claim([track(key, once=True) for key in order]), strict=True))

    with ThreadPoolExecutor(4) as pool:
        verdicts = list(pool.map(claim, range(4)))
    for key in keys:
        assert sorted(each[key] for each in verdicts) == [BLOCKED, BLOCKED, BLOCKED, GO]


def check_many_may_open_a_new_ledger_at_once(ledgers):
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda number: ledgers(f"run-{number}"), range(6)))
    assert all(not ledger.has_consents() for ledger in opened)


CHECKS = [check for name, check in list(globals().items()) if name.startswith("check_")]
NAMES = [check.__name__.removeprefix("check_") for check in CHECKS]


def work_beside_others(engine, number, rounds, failures):
    """Claim, settle and bar keys that all processes share and keys of this process; gives the shared ones that went."""
    chance, gone = random.Random(number), list[str]()
    ledger = Ledger(engine, account="acme", run=f"run-{number}", lease_s=0)
    try:
        for turn in range(rounds):
            shared = [f"message-{turn}-{n}" for n in range(20)]
            events = [track(key, once=True) for key in chance.sample(shared, len(shared))]
            consents = [opt_in(turn, f"shared-{n}") for n in chance.sample(range(20), 20)]
            own = [opt_in(turn, f"own-{number}-{n}") for n in range(20)]
            claims = [*events, *consents, *own]
            went = [claim for claim, verdict in zip(claims, ledger.claim(claims), strict=True) if verdict is GO]
            gone += [claim.key for claim in went if claim.call == "track"]
            ledger.bar((f"shared-{n}", "sms", at(turn - 5)) for n in chance.sample(range(20), 20))
            ledger.mark_contacts([(f"contact-{n}", str(turn), str(number)) for n in chance.sample(range(20), 20)])
            ledger.settle(acknowledged=went)
    except Exception as error:  # noqa: BLE001 - told by the parent
        failures.append(f"{number}: {error!r} {error.__cause__!r}")
    ledger.close()
    return gone


def check_nothing_was_lost(ledger, gone, *, processes, rounds):
    events = [track(f"message-{turn}-{n}") for turn in range(rounds) for n in range(20)]
    assert sorted(gone) == sorted(event.key for event in events), "each event went exactly once"
    assert set(ledger.claim(events)) == {DUPLICATE}
    rows = {row[0]: row for row in ledger.consents()}
    for number in range(processes):
        for n in range(20):
            assert rows[f"own-{number}-{n}"][3:6] == (at(rounds - 1), None, "acknowledged")
    for n in range(20):
        assert rows[f"shared-{n}"][3:6] == (at(rounds - 1), at(rounds - 6), "acknowledged")
    assert len(ledger.contact_hashes([f"contact-{n}" for n in range(20)])) == 20
