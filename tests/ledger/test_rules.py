"""The ledger's decisions, compared with independent models. ``test_account`` tests them in databases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.ledger import rules
from airflow_provider_regal.ledger.rules import By, Claim, Entry, Verdict
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.events.hostile import many
from tests.ledger.accounts import BLOCKED, BUSY, DUPLICATE, GO, PHONE, STALE, ManualClock, at, opt_in, opt_out, track

LEASE_S = 60.0


class Memory:
    """One key of a ledger, in memory: what :class:`Account` does, without a database."""

    def __init__(self):
        self.entry, self.clock = None, ManualClock()

    def by(self, delivery):
        return By(delivery, "dag.task", to_ledger_time(self.clock()), lambda of: LEASE_S)

    def claim(self, delivery, claim):
        verdict = rules.verdict(self.entry, claim, self.by(delivery))
        if verdict is GO:
            self.entry = rules.sending(self.entry, claim, self.by(delivery))
        elif verdict is STALE:
            self.entry = rules.denied(self.entry, claim, self.by(delivery))
        return verdict

    def settle(self, delivery, how, claim):
        self.entry = getattr(rules, how)(self.entry, claim, self.by(delivery))

    def bar(self, delivery, when):
        self.entry = rules.barred(self.entry, when, self.by(delivery))


@pytest.mark.parametrize(
    "wrong",
    [
        {"call": "opt_in", "channel": "sms", "at": at(1)},
        {"call": "opt_in", "channel": "sms", "subscribed": True},
        {"call": "opt_in", "channel": "sms", "subscribed": True, "at": "2026-11-24"},
        {"call": "identify"},
    ],
)
def test_a_claim_that_cannot_be_decided_on_is_refused(wrong):
    with pytest.raises(ValueError, match="claim"):
        Claim(key=PHONE, **wrong)


consents = st.builds(
    lambda make, minute, once, force: make(minute, once=once, force=force and once),
    st.sampled_from([opt_in, opt_out]),
    st.integers(0, 4),
    st.booleans(),
    st.sampled_from([False, False, False, True]),
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["claim", "claim", "acknowledged", "unknown", "released", "bar", "wait"]),
        st.sampled_from("AB"),
        consents,
    ),
    max_size=30,
)


@many
@given(steps=steps)
def test_no_opt_in_ever_goes_that_an_opt_out_bars(steps):
    memory, barred, newest = Memory(), "", ""
    for step, delivery, claim in steps:
        if step == "claim":
            if memory.claim(delivery, claim) is GO:
                assert not claim.subscribed or claim.at > barred
                if not claim.subscribed:
                    barred = max(barred, claim.at)
        elif step == "bar":
            memory.bar(delivery, claim.at)
            barred = max(barred, claim.at)
        elif step == "wait":
            memory.clock.wait(100)
        else:
            memory.settle(delivery, step, claim)
            if step != "released" and not claim.subscribed:
                barred = max(barred, claim.at)
        entry = memory.entry
        if entry is not None:
            assert (entry.opt_out_at or "") == barred
            assert (entry.evidence_at or "") >= newest, "evidence never gets older"
            assert (entry.pending_at is not None) == (entry.state in ("sending", "unknown"))
            newest = entry.evidence_at or ""


def newness(claim):
    return (claim.at, not claim.subscribed)


@many
@given(steps=steps)
def test_nothing_older_ever_follows_what_regal_has_or_may_have(steps):
    """The model knows what each delivery sent, and what became of it; a delivery settles only what it was granted."""
    memory = Memory()
    acknowledged, may_have = None, {}  # newness -> deliveries that may have sent it
    for step, delivery, claim in steps:
        rank = newness(claim)
        if step == "claim":
            if memory.claim(delivery, claim) is GO:
                assert acknowledged is None or rank >= acknowledged
                doubtful = [one for one, of in may_have.items() if of - {delivery}]
                if claim.once and not claim.force and acknowledged != rank:
                    assert rank not in doubtful, "it may be there already, and must not go twice"
                may_have.setdefault(rank, set()).add(delivery)
        elif step == "wait":
            memory.clock.wait(100)
        elif step == "bar":
            memory.bar(delivery, claim.at)
        elif delivery in may_have.get(rank, ()):
            memory.settle(delivery, step, claim)
            if step == "released":
                may_have[rank].discard(delivery)
            elif step == "acknowledged":
                acknowledged = max(acknowledged or rank, rank)
                may_have = {one: of for one, of in may_have.items() if one > acknowledged}
                assert memory.entry.evidence_at == acknowledged[0]
                assert bool(memory.entry.subscribed) is not acknowledged[1]


@many
@given(steps=steps)
def test_no_event_goes_twice_that_must_go_once(steps):
    memory, claim, may_have = Memory(), track(once=True), None  # which delivery may have sent it
    for step, delivery, _ in steps:
        if step == "claim":
            went = memory.claim(delivery, claim) is GO
            assert went == (may_have in (None, delivery))
            may_have = delivery if went else may_have
        elif step in ("acknowledged", "unknown") and may_have == delivery:
            memory.settle(delivery, step, claim)
            may_have = "somebody"
        elif step == "released" and may_have == delivery:
            break  # certainly not sent: the model starts over


@pytest.mark.parametrize(
    ("state", "delivery", "seconds_ago", "expected"),
    [
        ("sending", "A", 10, GO),
        ("sending", "B", 10, BUSY),
        ("sending", "B", LEASE_S + 1, BLOCKED),
        ("unknown", "A", 10, BLOCKED),
        ("unknown", "B", 10, BLOCKED),
        ("acknowledged", "B", 10, GO),
    ],
)
def test_who_may_send_the_same_decision_that_must_go_once(state, delivery, seconds_ago, expected):
    memory = Memory()
    memory.claim(delivery, opt_in(5, once=True))
    if state != "sending":
        memory.settle(delivery, state, opt_in(5))
    memory.clock.wait(seconds_ago)
    assert memory.claim("A", opt_in(5, once=True)) is expected


def test_an_opt_out_is_not_kept_waiting_by_a_delivery_that_died():
    memory = Memory()
    assert memory.claim("A", opt_in(5)) is GO
    memory.clock.wait(LEASE_S + 1)
    assert memory.claim("B", opt_out(6)) is GO
    memory.settle("B", "acknowledged", opt_out(6))
    assert memory.claim("C", opt_in(6)) is STALE


def test_what_can_never_change_is_said_at_once_though_another_delivery_is_sending():
    memory = Memory()
    memory.bar("B", at(9))
    assert memory.claim("B", opt_in(10)) is GO
    assert memory.claim("A", opt_in(9)) is STALE, "barred"
    assert memory.claim("A", opt_in(11)) is BUSY
    assert Verdict.STALE == STALE


def test_saying_again_remembers_the_row_only_of_what_is_acknowledged():
    by = Memory().by("A")
    assert rules.said_again(None, opt_in(5, row_hash="r"), by) is None
    known = rules.acknowledged(None, opt_in(5), by)
    assert rules.said_again(known, opt_in(6, row_hash="r"), by) == known
    assert rules.said_again(known, opt_in(5, row_hash="r"), by).row_hash == "r"


def test_a_barrier_is_all_that_is_left_of_an_opt_out_that_was_surely_not_sent():
    memory = Memory()
    memory.claim("A", opt_out(5))
    memory.settle("A", "released", opt_out(5))
    by = memory.by("A")
    assert memory.entry == Entry(
        opt_out_at=at(5), opt_out_source=by.source, opt_out_delivery="A", state="barrier", delivery="A",
        changed_at=by.now,
    )  # fmt: skip


class TestWhatIsOwed:
    """An opt-out is owed while Regal has none, or has, or may have, an opt-in from before it."""

    def entry(self, *steps):
        memory = Memory()
        for delivery, how, claim in steps:
            if how == "claim":
                memory.claim(delivery, claim)
            elif how == "bar":
                memory.bar(delivery, claim.at)
            else:
                memory.settle(delivery, how, claim)
        return memory.entry

    @pytest.mark.parametrize(
        "steps",
        [
            [("A", "bar", opt_out(5))],
            [("A", "claim", opt_out(5))],
            [("A", "claim", opt_out(5)), ("A", "unknown", opt_out(5))],
            [("A", "claim", opt_out(5)), ("A", "released", opt_out(5))],
            [("A", "acknowledged", opt_in(4)), ("A", "bar", opt_out(5))],
            [("A", "acknowledged", opt_in(5)), ("A", "bar", opt_out(5))],
            [("A", "acknowledged", opt_out(3)), ("A", "unknown", opt_in(4)), ("A", "bar", opt_out(5))],
            [("A", "acknowledged", opt_out(2)), ("B", "unknown", opt_in(3)), ("A", "claim", opt_out(5))],
        ],
    )
    def test_what_regal_lacks(self, steps):
        assert rules.owes_opt_out(self.entry(*steps))

    @pytest.mark.parametrize(
        "steps",
        [
            [("A", "acknowledged", opt_in(5))],
            [("A", "bar", opt_out(5)), ("A", "acknowledged", opt_out(5))],
            [("A", "bar", opt_out(5)), ("A", "acknowledged", opt_out(4))],
            [("A", "bar", opt_out(5)), ("A", "acknowledged", opt_in(6))],
            [("A", "bar", opt_out(5)), ("A", "claim", opt_in(6))],
            [("A", "bar", opt_out(5)), ("A", "unknown", opt_in(6))],
        ],
    )
    def test_what_regal_has_or_a_newer_opt_in_has_overtaken(self, steps):
        assert not rules.owes_opt_out(self.entry(*steps))

    def test_it_is_known_since_when_until_it_is_paid(self):
        memory = Memory()
        memory.bar("A", at(5))
        first = rules.with_debt(memory.entry, memory.by("A"), reachable=True)
        memory.clock.wait(60)
        assert rules.with_debt(first, memory.by("A"), reachable=True) == first
        paid = rules.acknowledged(first, opt_out(5), memory.by("B"))
        assert rules.with_debt(paid, memory.by("B"), reachable=True).owed_since is None
        assert rules.with_debt(memory.entry, memory.by("A"), reachable=False).owed_since is None

    def test_it_is_sent_only_while_it_is_owed(self):
        memory = Memory()
        assert memory.claim("B", opt_out(5, owed=True)) is GO  # an erased barrier blocks nothing
        memory.settle("B", "acknowledged", opt_out(5))
        assert memory.claim("C", opt_out(5, owed=True)) is DUPLICATE
        assert memory.claim("C", opt_out(5)) is GO


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ([], None),
        ([("bar", 5)], True),
        ([("bar", 5), ("acknowledged", opt_in(6))], False),
        ([("acknowledged", opt_in(6)), ("bar", 5)], False),
        ([("acknowledged", opt_in(5)), ("bar", 5)], True),
        ([("acknowledged", opt_out(5))], True),
        ([("acknowledged", opt_out(5, inferred=True))], True),
        ([("bar", 5), ("unknown", opt_in(6))], False),
        ([("acknowledged", opt_in(5)), ("unknown", opt_out(6))], True),
    ],
)
def test_somebody_has_opted_out_if_their_newest_decision_is_a_no(told, expected):
    memory = Memory()
    for what, value in told:
        if what == "bar":
            memory.bar("A", at(value))
        else:
            memory.settle("A", what, value)
    assert rules.has_opted_out(memory.entry or Entry()) is expected


def test_somebody_who_vanished_from_a_source_and_is_there_again_may_be_opted_in_by_it():
    """The opt-out was inferred: unlike one that somebody stated, it does not bar the opt-in on record before."""
    for inferred, expected in ((True, GO), (False, STALE)):
        memory = Memory()
        for delivery, claim in (("A", opt_in(3)), ("B", opt_out(5, inferred=inferred))):
            assert memory.claim(delivery, claim) is GO
            memory.settle(delivery, "acknowledged", claim)
        assert memory.claim("C", opt_in(3)) is expected
