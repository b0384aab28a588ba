"""Many tasks on two workers are one account: they share its rate, and the records about its people."""

from __future__ import annotations

import time

import pytest

from tests.distributed.record import Journal
from tests.distributed.source import add_people, add_rows
from tests.distributed.stack import FAST, SINGLES, SLOW
from tests.distributed.verify import verify, verify_limit

pytestmark = pytest.mark.distributed
SHARDS = 8
ROWS = 40_000
ROWS_PER_SINGLE = 100
PEOPLE = 400
#: From then on all senders have agreed on their shares.
_SETTLED_S = 2.0


def test_eight_shards(stack, note):
    """A mapped task over eight shards of a table of 40,000 rows uses the account's rate, and shares it equally."""
    add_rows(stack.source_url, "eight_shards", "events", shards=SHARDS, rows=ROWS // SHARDS)
    began = time.monotonic()
    run = stack.airflow.trigger("eight_shards")

    assert run.wait(600) == "success"

    seconds = time.monotonic() - began
    assert [one["try_number"] for one in run.tasks()] == [1] * SHARDS
    assert {one["hostname"] for one in run.tasks()} == {"worker1", "worker2"}
    found = verify(stack, [run], limit=FAST)
    assert found["rows"] == ROWS
    shared = share_of(Journal.read(stack.regal.ask("events")), SHARDS)
    note(**found, **shared, seconds=round(seconds, 1))
    assert shared["share"] >= 0.8
    assert shared["jain"] >= 0.95


def share_of(journal: Journal, shards: int) -> dict[str, float]:
    """Return how much of the rate was used while all shards had rows, and how equally they were served."""
    from benchmarks.sharing import jain  # it needs packages that Airflow 2 does not install

    times: list[list[float]] = [[] for _ in range(shards)]
    for arrival in journal.arrivals:
        times[int(arrival.user_id.split("-")[2])].append(arrival.at)
    first, last = max(one[0] for one in times) + _SETTLED_S, min(one[-1] for one in times) - _SETTLED_S
    served = [sum(first <= at < last for at in one) for one in times]
    return {"share": round(sum(served) / (last - first) / FAST, 3), "jain": round(jain(served), 4)}


def test_two_dags(stack, note):
    """Two DAGs on one account at the same time."""
    for dag_id, task in (("one_of_two", "events"), ("other_of_two", "contacts")):
        add_rows(stack.source_url, dag_id, task, shards=2, rows=500)
    began = time.monotonic()
    runs = [stack.airflow.trigger(dag_id) for dag_id in ("one_of_two", "other_of_two")]

    assert [run.wait(180) for run in runs] == ["success", "success"]

    note(**verify(stack, runs, limit=SLOW), seconds=round(time.monotonic() - began, 1))


def test_people(stack, note):
    """A sync and a delivery of contacts about the same people at once: the newest decision holds."""
    add_people(stack.source_url, PEOPLE)
    began = time.monotonic()
    run = stack.airflow.trigger("people")

    assert run.wait(180) == "success"

    contacts, sync = sorted(stack.record.deliveries(run.dag_id, run.run_id), key=lambda one: one.task_id)
    for one in (contacts, sync):
        assert one.state == "finished"
        assert one.read == PEOPLE == one.acknowledged + one.rejected + one.unknown + one.skipped
        assert (one.rejected, one.unknown) == (0, 0)
    measured = verify_limit(stack, SLOW)
    times = Journal.read(stack.regal.ask("events")).times()
    assert (len(times), set(times.values())) == (PEOPLE, {1}), "each contact arrived once"
    wanted, found = newest_decisions(stack), decisions_at_regal(stack)
    assert {phone: found.get(phone) for phone in wanted} == wanted
    note(rows=2 * PEOPLE, skipped=contacts.skipped + sync.skipped, **measured, seconds=round(time.monotonic() - began))


def newest_decisions(stack) -> dict[str, bool]:
    """Return by phone what the newer of the two decisions says."""
    from sqlalchemy import create_engine, text

    query = """
        SELECT p.phone, CASE WHEN p.sms_opt_in_at > c.given_at THEN p.sms_opt_in ELSE c.subscribed END
        FROM people p JOIN consents c ON c.phone = p.phone
    """
    engine = create_engine(stack.source_url)
    with engine.connect() as connection:
        found = {row[0]: row[1] for row in connection.execute(text(query))}
    engine.dispose()
    return found


def decisions_at_regal(stack) -> dict[str, bool]:
    """Return by phone what Regal has."""
    contacts = stack.regal.ask("contacts")
    return {
        phone: info["sms"]["status"] == "Subscribed"
        for contact in contacts
        for phone, info in contact["phones"].items()
        if "sms" in info
    }


def test_singles(stack, note):
    """Many mapped tasks at once that send one event each, beside a delivery: they are held to the same limit."""
    add_rows(stack.source_url, "singles", "rows", shards=1, rows=ROWS_PER_SINGLE * SINGLES)
    began = time.monotonic()
    run = stack.airflow.trigger("singles")

    assert run.wait(900) == "success"

    seconds = time.monotonic() - began
    found = verify(stack, [run], limit=SLOW)  # first, since reading the journal blocks the server
    single = run.tasks("single")
    assert len(single) == SINGLES
    came = [one.user_id for one in Journal.read(stack.regal.ask("events")).arrivals if one.row_id is None]
    assert sorted(came) == sorted(f"single-{number}" for number in range(SINGLES)), "each once"
    lines = stack.record.query(
        "SELECT o.status, count(*) AS rows FROM regal_outcomes o JOIN regal_deliveries d ON d.id = o.delivery "
        "WHERE d.run_id = :run AND d.task_id = 'single' GROUP BY o.status",
        run=run.run_id,
    )
    assert {line.status: line.rows for line in lines} == {"acknowledged": SINGLES}
    note(**found, seconds=round(seconds, 1), singles=SINGLES)
