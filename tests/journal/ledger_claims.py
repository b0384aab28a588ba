"""What a ledger lets go, and what it remembers of that; each check gets a maker of ledgers."""

from __future__ import annotations

from airflow_provider_regal.journal.ledger_rules import Claim, to_ledger_time
from tests.journal.ledger_words import (
    BLOCKED,
    BUSY,
    DUPLICATE,
    GO,
    PHONE,
    STALE,
    START,
    at,
    known,
    one,
    opt_in,
    opt_out,
    sent,
    track,
)


def check_an_acknowledged_opt_in_is_told_with_its_evidence_and_source(ledgers):
    ledger = ledgers(source="dag.task")
    assert not ledger.has_consents()
    sent(ledger, opt_in(5))
    assert known(ledger) == [(PHONE, "sms", 1, at(5), None, "acknowledged", None, None, "dag.task", None)]
    assert ledger.has_consents()


def check_a_claim_is_seen_by_others_at_once(ledgers):
    assert one(ledgers(), opt_in(5)) is GO
    assert known(ledgers("run-2")) == [(PHONE, "sms", None, None, None, "sending", 1, at(5), None, None)]
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
    assert known(ledger)[0] == (PHONE, "sms", None, None, at(6), "barrier", None, None, None, None)
    assert one(ledger, opt_in(6)) is STALE
    assert one(ledger, opt_in(7)) is GO
    assert not ledger.has_consents()


def check_an_opt_out_without_a_time_bars_from_when_it_is_read_whatever_else_is_known(ledgers):
    """Nobody can tell whether it is an older one read again, or of today: an opt-in given in between must not win."""
    ledger, now = ledgers(), to_ledger_time(START)
    sent(ledger, opt_in(5, "yes"))
    sent(ledger, opt_out(5, "no"))
    assert ledger.bar((key, "sms", None) for key in ["nobody", "yes", "no"]) == [now] * 3
    assert {row[0]: row[4] for row in known(ledger)} == dict.fromkeys(["nobody", "yes", "no"], now)


def check_an_opt_out_without_a_time_wins_if_it_is_read_before_an_opt_in_given_earlier_is_claimed(ledgers):
    sent(ledgers("a run of before"), opt_out(5))
    reads_the_opt_in, reads_the_opt_out = ledgers("run-1"), ledgers("run-2")
    meanwhile = opt_in(10)
    reads_the_opt_out.bar([(PHONE, "sms", None)])
    assert one(reads_the_opt_in, meanwhile) is STALE
    ledgers.clock.wait(60)
    given_since = Claim("opt_in", PHONE, "sms", True, to_ledger_time(ledgers.clock()))
    assert one(reads_the_opt_in, given_since) is GO, "the person agreed after the opt-out was read"


def check_only_opt_ins_that_this_run_claimed_were_granted(ledgers):
    ledger = ledgers()
    ledger.bar([("barred", "sms", at(6))])
    ledger.claim([opt_in(5), opt_in(5, "barred"), opt_in(5, "given back")])
    ledger.settle(released=[opt_in(5, "given back")])
    asked = [opt_in(5), opt_in(4), opt_in(5, "barred"), opt_in(5, "given back"), opt_in(5, "never heard of")]
    assert ledger.were_granted(asked) == [True, False, False, False, False]
    assert ledgers("run-2").were_granted(asked[:1]) == [False]
    ledger.settle(acknowledged=[opt_in(5)])
    assert ledgers("run-2").were_granted([*asked[:2], opt_out(5)]) == [True, False, False]
    assert ledger.were_granted([]) == []


def check_an_opt_in_that_is_denied_after_it_was_claimed_is_unknown_and_was_not_granted(ledgers):
    """The try that claimed it may have died before or after sending it; this one does not send it."""
    ledger = ledgers()
    assert one(ledger, opt_in(5)) is GO
    ledger.bar([(PHONE, "sms", at(6))])
    assert one(ledger, opt_in(5)) is STALE
    assert known(ledger)[0][5:8] == ("unknown", 1, at(5))
    assert ledger.were_granted([opt_in(5)]) == [False]
    assert one(ledgers("run-2"), opt_out(6)) is GO, "nobody waits for it"


def check_an_opt_out_ends_the_yes_that_regal_has_or_may_have_if_that_is_not_newer(ledgers):
    ledger = ledgers()
    ledger.settle(acknowledged=[opt_in(5), opt_out(5, "out")], unknown=[opt_in(5, "doubtful")])
    ledger.bar([("barred", "sms", at(5))])
    asked = [opt_out(5), opt_out(4), *(opt_out(9, key) for key in ("out", "doubtful", "barred", "never heard of"))]
    assert ledger.end_a_yes(asked) == [True, False, False, True, False, False]


def check_barring_gives_the_times_in_the_order_of_what_it_was_told(ledgers):
    many = [(f"key-{number % 1_500:04d}", "sms", at(number)) for number in reversed(range(2_300))]
    assert ledgers().bar(many) == [told[2] for told in many]
    assert known(ledgers())[0][4] == at(1_500)


def check_the_row_that_says_so_is_remembered_once_it_is_acknowledged(ledgers):
    ledger = ledgers()
    one(ledger, opt_in(5, row_hash="r5"))
    assert known(ledger)[0][9] is None
    ledger.settle(acknowledged=[opt_in(5, row_hash="r5")])
    assert known(ledger)[0][9] == "r5"
    ledger.settle(acknowledged=[opt_in(5), opt_in(4, row_hash="r4")])
    assert known(ledger)[0][9] == "r5", "it is said again, or something older"
    sent(ledger, opt_out(6))
    assert known(ledger)[0][9] is None, "another row says something newer"


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
    assert known(ledger) == [(PHONE, "sms", 0, at(6), at(6), "acknowledged", None, None, "", None)]
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
        assert known(ledger) == [(PHONE, "sms", 1, at(5), None, "unknown", 1, at(6), "", None)]
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
