"""What a ledger does where many work on it at once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

from airflow_provider_regal.journal.ledger import Ledger
from tests.journal.ledger_words import BLOCKED, DUPLICATE, GO, at, opt_in, track


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


def see_that_nothing_was_lost(ledger, gone, *, processes, rounds):
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
