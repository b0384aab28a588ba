"""Deliveries written directly to a ledger, without sending anything."""

from __future__ import annotations

from contextlib import closing
from datetime import UTC, datetime

from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.deliveries import Changes, Deliveries, Place, Try
from airflow_provider_regal.ledger.outcomes import OutcomeLine, encoded
from airflow_provider_regal.ledger.rows import RowChunk
from airflow_provider_regal.ledger.rules import OPT_IN, Claim
from airflow_provider_regal.ledger.states import Outcome, RowState, Skip
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.ledger.view import open_database

NOW = datetime(2026, 11, 29, 12, 0, tzinfo=UTC)
ROWS_PER_CHUNK = 3


def line(position, status="acknowledged", *, user_id=None, phone=None, email=None, payload=None, at=NOW, **more):
    """An outcome; one with a payload is a dead letter."""
    moment = to_ledger_time(at)
    given = {
        "place": None, "call": "track", "event": "Lesson Booked", "reason": None, "field": None, "message": None,
        "attempts": 1, "first_at": moment, "last_at": moment, "payload_hash": None,
        "form": None if payload is None else "row", "payload": None if payload is None else encoded(payload),
    }  # fmt: skip
    return OutcomeLine(
        position=position, status=status, user_id=user_id, phone=phone, email=email, consents=None, **{**given, **more}
    )


def write(
    where, *, rows=(), lines=(), states=None, skipped=0, state="finished", at=NOW, account="acme", secret=None,
    run="run", task="task", dag="dag", api_key="key", log=(), acknowledged=(), contacts=(), phones=(), hold_s=30,
    error=None, complete=True, name=None,
):  # fmt: skip
    """Write one delivery, at a given time.

    :param where: file or URL of the ledger.
    :param rows: of the snapshot, which is kept unless the delivery has finished.
    :param states: of the rows, if not all are open.
    :param state: how it ended; None: it is held, and its last commit was then.
    :param complete: the source was read completely.
    :returns: the id of the delivery.
    """
    with closing(open_database(where)) as database:
        to = Account(database, account=account, secret=secret, now=lambda: at, source=f"{dag}.{task}")
        to.register(api_key)
        deliveries, place = Deliveries(to), Place(dag, run, task, name=name)
        last = deliveries.latest(place)
        held = deliveries.begin(place, Try(), call="track", source="table", options="", hold_s=hold_s, replaces=last)
        held.counts.read = max(len(rows), len(lines)) + skipped
        if skipped:
            held.counts.skip(Skip.UNCHANGED, skipped)
        for one in lines:
            held.counts.add(Outcome(one.status), 1)
        if rows:
            held.keep_rows(list(_chunks(rows)))
            if complete:
                held.rows_complete({})
                for position, one in enumerate(states or [RowState.OPEN] * len(rows)):
                    held.states[position] = one
        claims = [Claim(OPT_IN, *one) for one in acknowledged]
        held.commit(
            Changes(outcomes=[*lines], log=[*log], acknowledged=claims, contacts=[*contacts], phones={*phones}),
            seconds=2,
        )
        if state is not None:
            held.end(state, error=error, drop_rows=state == "finished")
        # The hold is written by the database's own clock.
        database.write(lambda connection: connection.exec_driver_sql(
            f"UPDATE regal_deliveries SET held_at = '{to_ledger_time(at)}' WHERE id = {held.id}"
        ))  # fmt: skip
        return held.id


def _chunks(rows):
    for start in range(0, len(rows), ROWS_PER_CHUNK):
        chunk = RowChunk()
        for position, row in enumerate(rows[start : start + ROWS_PER_CHUNK], start + 1):
            chunk.add(position, row)
        yield chunk
