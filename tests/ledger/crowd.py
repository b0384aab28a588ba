"""One of many processes that use one ledger at once: ``python crowd.py '{"database": ..., "number": ...}'``.

Prints the events it was allowed to send, and its error if any.
"""

from __future__ import annotations

import json
import random
import sys
import time
from contextlib import closing

from airflow_provider_regal.ledger import database as database_module
from airflow_provider_regal.ledger.deliveries import Changes, Deliveries, Try
from airflow_provider_regal.ledger.outcomes import OutcomeLine
from airflow_provider_regal.ledger.rows import RowChunk
from airflow_provider_regal.ledger.states import Outcome, RowState
from tests.ledger.accounts import GO, DeliveryAccount, at, opt_in, track
from tests.ledger.view import open_database, place_of

SHARED = 20


def work(given: dict) -> list[str]:
    """Claim, settle and bar keys that all processes share, and its own keys, in commits of its own delivery."""
    number, rounds = given["number"], given["rounds"]
    chance, gone = random.Random(number), list[str]()
    with closing(open_database(given["database"])) as database:
        account = DeliveryAccount(database, "", account="acme", lease_s=0).on_record
        held = Deliveries(account).begin(
            place_of(f"run-{number}"), Try(), call="track", source="s", options="o", hold_s=1
        )
        chunk = RowChunk()
        for turn in range(rounds):
            chunk.add(turn + 1, {"turn": turn})
        held.keep_rows([chunk])
        held.rows_complete({})
        for turn in range(rounds):
            events = [track(f"message-{turn}-{n}", once=True) for n in chance.sample(range(SHARED), SHARED)]
            consents = [opt_in(turn, f"shared-{n}") for n in chance.sample(range(SHARED), SHARED)]
            own = [opt_in(turn, f"own-{number}-{n}") for n in range(5)]
            claims, verdicts = [*events, *consents, *own], []

            def reserve(connection, claims=claims, verdicts=verdicts, turn=turn):
                verdicts[:] = account.claim(connection, claims)
                return {turn: RowState.RESERVED}

            states = held.prepare_commit(Changes(), candidates=[turn]).write(reserve)
            for position, state in states.items():
                held.states[position] = state
            went = [claim for claim, verdict in zip(claims, verdicts, strict=True) if verdict is GO]
            gone += [claim.key for claim in went if claim.call == "track"]
            account.bar((f"shared-{n}", "sms", at(turn - 5)) for n in chance.sample(range(SHARED), SHARED))
            held.states[turn] = RowState.ACKNOWLEDGED
            held.counts.add(Outcome.ACKNOWLEDGED, 1)
            line = OutcomeLine(
                turn + 1, None, "track", "e", None, None, None, "acknowledged", None, None, None, 1, at(1), at(1), "h"
            )
            contacts = [(f"contact-{n}", str(turn), str(number)) for n in chance.sample(range(SHARED), SHARED)]
            held.commit(Changes(outcomes=[line], acknowledged=went, contacts=contacts))
        held.end("finished", drop_rows=True)
    return gone


def main(given: dict) -> None:
    # The test shows that nothing is lost, not how long it takes on a small machine or server.
    database_module._PATIENCE_S = 400
    time.sleep(max(0.0, given["starts_at"] - time.time()))
    gone, error = [], None
    try:
        gone = work(given)
    except Exception as caught:  # noqa: BLE001 - told by the parent
        error = f"{caught!r} {caught.__cause__!r}"
    sys.stdout.write(json.dumps({"gone": gone, "error": error}))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
