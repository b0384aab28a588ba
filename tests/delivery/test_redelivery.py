"""Dead letters sent again: what is sent, what stays, and all rules applied again."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.errors import FixSourceError, RetryLaterError, TooManyFailedRowsError
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.sources.rows import bad_row
from tests.ledger.view import DAG, TASK

NOW = datetime.now(UTC).replace(microsecond=0)
REFUSE = {"status": 400}
LOSE = {"status": 500}


def people(count, start=0):
    return [{"user_id": f"u{number}", "amount": number} for number in range(start, start + count)]


def failing(deliver, regal, rows, fault=REFUSE, **options):
    """Deliver rows of which Regal takes none."""
    regal.set_faults([{"on": {"from": 1}, "do": fault}])
    with suppress(TooManyFailedRowsError):
        deliver(rows, outage_patience=600, **{"max_unknown": 1.0, "max_refused": None, **options})
    regal.set_faults([])


def bodies(regal, *, stored=True):
    return [event["body"] for event in regal.events(stored=stored)]


def arrivals(regal):
    return Counter(body["userId"] for body in bodies(regal))


def takers(ledger, run="run"):
    """Which delivery has taken each dead letter."""
    return [letter.taken_by for letter in ledger.dead_letters(run)]


def test_rejected_letters_are_sent_once_and_stay_on_record_with_who_took_them(
    deliver, redeliver, ledger, regal_sandbox
):
    failing(deliver, regal_sandbox, people(5))
    before = [dict(line._mapping) | {"redelivered_by": None} for line in ledger.outcomes()]

    report = redeliver()

    assert (report.read, report.acknowledged) == (5, 5)
    assert arrivals(regal_sandbox) == Counter({f"u{n}": 1 for n in range(5)})
    assert takers(ledger) == [report.delivery] * 5
    assert [dict(line._mapping) | {"redelivered_by": None} for line in ledger.outcomes()] == before
    assert [line.status for line in ledger.outcomes("again")] == ["acknowledged"] * 5
    assert [line.place for line in ledger.outcomes("again")] == [
        f"delivery {ledger.delivery().id} row {number}" for number in range(1, 6)
    ]


def test_unknown_letters_stay_unless_they_are_named(deliver, redeliver, regal_sandbox, caplog):
    failing(deliver, regal_sandbox, people(3), LOSE)

    with caplog.at_level(logging.INFO), pytest.raises(FixSourceError, match="No dead letter matches"):
        redeliver()
    assert "3 dead letters stay where they are: unknown, which was not asked for" in caplog.text
    assert arrivals(regal_sandbox) == Counter()


@pytest.mark.parametrize("status", ["unknown", ("rejected", "unknown")])
def test_naming_unknown_sends_them_and_says_what_that_means(status, deliver, redeliver, regal_sandbox, caplog):
    failing(deliver, regal_sandbox, people(3), LOSE)

    assert redeliver(status=status).acknowledged == 3
    assert "3 unknown rows are sent again, as asked: people may be reached twice" in caplog.text
    assert sum(arrivals(regal_sandbox).values()) == 3


def test_nothing_that_matches_is_an_error_that_says_what_was_asked_for_unless_it_may_be(deliver, redeliver, ledger):
    deliver(people(2))
    number = ledger.delivery().id
    with pytest.raises(FixSourceError) as raised:
        redeliver("run", reason="HTTP 400", since="2026-01-01T00:00:00.000000Z")
    said = str(raised.value)
    assert f"(deliveries {number}; since 2026-01-01T00:00:00.000000Z; reason HTTP 400; status rejected)" in said
    assert "nothing was sent" in said
    assert "airflow regal deliveries" in said
    assert "set allow_empty" in said
    assert redeliver(of_run="third", allow_empty=True).read == 0


def test_a_row_that_could_not_be_mapped_is_fixed_and_arrives_once(deliver, redeliver, regal_sandbox):
    rows = [{"phone": "+1 212 555 o100", "amount": 3}, {"phone": "+12125550101", "amount": 4}]
    with suppress(TooManyFailedRowsError):
        deliver(rows)

    report = redeliver(fix=lambda row: {**row, "phone": row["phone"].replace("o", "0")}, event="Lesson Booked")

    assert report.acknowledged == 1
    fixed = bodies(regal_sandbox)[-1]
    assert fixed["name"] == "Lesson Booked"
    assert fixed["properties"] == {"amount": 3}
    assert list(fixed["traits"]["phones"]) == ["+12125550100"]
    assert len(bodies(regal_sandbox)) == 2


def test_rows_of_contacts_are_contacts_again_with_their_mapping_and_types(deliver, redeliver, ledger, regal_sandbox):
    options = {"mapping": {"level": "traits.plan"}, "types": {"age": int}}
    rows = [{"user_id": "u1", "level": "gold", "age": "x"}]
    with suppress(TooManyFailedRowsError):
        deliver(rows, call="identify", **options)

    with pytest.raises(TooManyFailedRowsError):
        redeliver(**options)  # still without a number: nothing is sent
    (letter,) = ledger.dead_letters("again")
    assert (letter.call, letter.form, letter.payload) == ("identify", "row", rows[0])
    assert letter.place == f"delivery {ledger.delivery().id} row 1"
    assert ledger.outcomes("again")[0].field == "age"

    report = redeliver("again", of_run="third", fix=lambda row: {**row, "age": "41"}, **options)
    assert report.acknowledged == 1
    assert bodies(regal_sandbox)[0]["traits"] == {"plan": "gold", "age": 41}


def test_values_have_the_types_they_had(deliver, redeliver, ledger, regal_sandbox):
    row = {"user_id": "u1", "phone": "no phone", "at": NOW, "day": NOW.date(), "code": b"\x00\x01", "n": 2**50}
    with suppress(TooManyFailedRowsError):
        deliver([row])
    seen = []

    def fix(letter):
        seen.append(letter)
        return {name: value for name, value in letter.items() if name not in ("phone", "code")}

    assert redeliver(fix=fix, event="E").acknowledged == 1
    assert seen == [row]


def test_what_fix_leaves_out_stays_for_the_next(deliver, redeliver, ledger, regal_sandbox, caplog):
    failing(deliver, regal_sandbox, people(4))

    assert redeliver(fix=lambda row: row if row["properties"]["amount"] % 2 else None).acknowledged == 2
    assert [taker is not None for taker in takers(ledger)] == [False, True, False, True]
    assert "2 dead letters stay where they are: left out by fix" in caplog.text
    assert redeliver(of_run="third").acknowledged == 2
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_what_fix_changed_is_sent_and_the_original_letter_stays_as_it_was(deliver, redeliver, ledger, regal_sandbox):
    failing(deliver, regal_sandbox, people(2))
    before = [letter.payload for letter in ledger.dead_letters()]
    regal_sandbox.set_faults([{"on": {"from": 1, "times": 1}, "do": REFUSE}])

    def fix(row):
        row["properties"]["amount"] += 100  # in place, as people do
        return row

    with pytest.raises(TooManyFailedRowsError):
        redeliver(fix=fix, max_connections=1)

    assert [letter.payload for letter in ledger.dead_letters()] == before
    assert [letter.payload["properties"] for letter in ledger.dead_letters("again")] == [{"amount": 100}]
    assert [body["properties"] for body in bodies(regal_sandbox)] == [{"amount": 101}]


def test_a_fix_that_fails_says_where_sends_nothing_and_leaves_every_letter(deliver, redeliver, ledger, regal_sandbox):
    failing(deliver, regal_sandbox, people(4))

    def fix(row):
        return {**row, "x": 1 / (row["properties"]["amount"] - 2)}

    with pytest.raises(ValueError) as raised:
        redeliver(fix=fix)
    number = ledger.delivery().id
    assert (
        str(raised.value) == f"fix failed on row 3 of delivery {number} (ZeroDivisionError); its letter stays as it is."
    )
    assert arrivals(regal_sandbox) == Counter()
    assert ledger.delivery("again").state == "failed"
    assert redeliver(of_run="third").acknowledged == 4


def test_letters_taken_before_a_fix_failed_are_free_again(deliver, redeliver, ledger, regal_sandbox):
    failing(deliver, regal_sandbox, people(600), max_connections=64)

    def fix(row):
        return {**row, "x": 1 / (row["properties"]["amount"] - 599)}

    with pytest.raises(ValueError):
        redeliver(fix=fix)
    assert Counter(taker is not None for taker in takers(ledger))[True] > 0, "letters are taken some at a time"
    assert redeliver(of_run="third", max_connections=64).acknowledged == 600
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_a_fix_that_returns_no_row_is_told_so(deliver, redeliver, regal_sandbox):
    failing(deliver, regal_sandbox, people(1))
    with pytest.raises(ValueError, match=r"fix must return a dictionary, or None to leave .* it returned a list"):
        redeliver(fix=lambda row: [row])


def test_lines_that_were_no_rows_stay_and_are_told_what_to_do(deliver, redeliver, ledger, regal_sandbox, caplog):
    with suppress(TooManyFailedRowsError):
        deliver([bad_row("the line", "is not JSON", "a.jsonl line 1", {"line": "{"})])

    assert redeliver().read == 0
    assert "fix them with fix=, or deliver their source again" in caplog.text
    assert takers(ledger) == [None]

    assert redeliver(of_run="third", fix=lambda row: {"user_id": "u7"}, event="E").acknowledged == 1
    assert arrivals(regal_sandbox) == Counter({"u7": 1})
    assert ledger.outcomes("third")[0].place == f"delivery {ledger.delivery().id} a.jsonl line 1"


def test_letters_of_several_runs_go_oldest_first_and_of_one_run_in_the_order_of_its_rows(
    deliver, redeliver, regal_sandbox
):
    who = {"user_id": "u1"}
    rows = [{**who, "n": 4}, {**who, "phone": "no phone", "n": 5}, {**who, "n": 6}]
    failing(deliver, regal_sandbox, rows, call="identify", of_run="second", now=NOW - timedelta(days=1))
    failing(deliver, regal_sandbox, [{**who, "n": 3}], call="identify", of_run="first", now=NOW - timedelta(days=2))

    redeliver(
        dag_id=DAG, fix=lambda row: {key: value for key, value in row.items() if key != "phone"}, max_connections=8
    )

    assert [body["traits"]["n"] for body in bodies(regal_sandbox)] == [3, 4, 5, 6]


def test_letters_are_chosen_by_all_that_is_named(deliver, redeliver, ledger, regal_sandbox):
    for number, (run, fault, days) in enumerate(
        (("a", REFUSE, 3), ("b", {"status": 422}, 2), ("c", REFUSE, 1), ("d", {"status": 422}, 0))
    ):
        failing(deliver, regal_sandbox, people(1, number), fault, of_run=run, now=NOW - timedelta(days=days))

    def looked_at(**chosen):
        """Which letters are chosen; none is sent."""
        found = []
        redeliver(fix=found.append, of_run=f"look {chosen}", **chosen)
        return [row["userId"] for row in found]

    time = to_ledger_time
    assert looked_at(dag_id=DAG, task_id=TASK) == ["u0", "u1", "u2", "u3"]
    assert looked_at(run_id="b") == ["u1"]
    assert looked_at(reason="HTTP 422") == ["u1", "u3"]
    assert looked_at(reason="HTTP 4") == ["u0", "u1", "u2", "u3"], "the beginning of the message"
    assert looked_at(since=time(NOW - timedelta(days=2))) == ["u1", "u2", "u3"]
    assert looked_at(since=time(NOW - timedelta(days=2)), until=time(NOW)) == ["u1", "u2"]
    assert looked_at(since=time(NOW - timedelta(days=2)), reason="HTTP 400") == ["u2"]
    with pytest.raises(FixSourceError):
        looked_at(dag_id="another")
    with pytest.raises(FixSourceError):
        looked_at(reason="%")


def test_letters_of_another_account_are_not_ours(deliver, redeliver, ledger, regal_sandbox):
    failing(deliver, regal_sandbox, people(1), account="other")
    with pytest.raises(Exception, match="have the same API key"):
        redeliver(dag_id=DAG)
    ledger.change("DELETE FROM regal_accounts")
    with pytest.raises(FixSourceError, match="No dead letter matches"):
        redeliver(dag_id=DAG, of_run="third")


def test_what_is_rejected_anew_is_a_letter_of_the_redelivery_and_as_old_as_the_first(
    deliver, redeliver, ledger, regal_sandbox
):
    failing(deliver, regal_sandbox, people(2), now=NOW - timedelta(days=1))
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": REFUSE}])

    with pytest.raises(TooManyFailedRowsError):
        redeliver()

    first, _ = ledger.dead_letters("again")
    assert first.place == f"delivery {ledger.delivery().id} row 1"
    assert first.first_at == to_ledger_time(NOW - timedelta(days=1))
    regal_sandbox.set_faults([])
    with pytest.raises(FixSourceError):
        redeliver(of_run="third")
    assert redeliver("again", of_run="fourth").acknowledged == 2
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_what_is_unknown_anew_is_a_letter_of_the_redelivery(deliver, redeliver, ledger, regal_sandbox):
    failing(deliver, regal_sandbox, people(2))
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": LOSE}])
    redeliver(max_unknown=2)
    assert [letter.status for letter in ledger.dead_letters("again")] == ["unknown"] * 2
    regal_sandbox.set_faults([])
    assert redeliver("again", of_run="third", status="unknown").acknowledged == 2


def test_too_few_letters_are_given_back(deliver, redeliver, regal_sandbox):
    failing(deliver, regal_sandbox, people(2))
    with pytest.raises(FixSourceError, match="min_rows=3"):
        redeliver(min_rows=3)
    assert redeliver(of_run="third").acknowledged == 2


def test_a_limit_takes_no_more_than_it_sends_and_says_what_unknown_means(
    deliver, redeliver, ledger, regal_sandbox, caplog
):
    failing(deliver, regal_sandbox, people(5), LOSE)
    assert redeliver(limit=2, status="unknown").acknowledged == 2
    assert [taker is not None for taker in takers(ledger)] == [True, True, False, False, False]
    assert "2 unknown rows are sent again" in caplog.text
    assert redeliver(of_run="third", status="unknown").acknowledged == 3


def test_an_outage_keeps_the_letters_and_the_next_try_goes_on(deliver, redeliver, ledger, regal_sandbox):
    failing(deliver, regal_sandbox, people(6))
    regal_sandbox.reset()
    regal_sandbox.set_faults([{"on": {"from": 3}, "do": {"status": 503, "retry_after": 90}}])
    with pytest.raises(RetryLaterError):
        redeliver(max_connections=1, outage_patience=30)
    with pytest.raises(FixSourceError):
        redeliver(of_run="third")  # the first one has taken them

    regal_sandbox.set_faults([])
    assert redeliver(number=2).acknowledged == 6
    assert set(arrivals(regal_sandbox).values()) == {1}
    assert takers(ledger) == [ledger.delivery("again").id] * 6


def test_old_events_are_rejected_anew_unless_their_age_is_allowed(deliver, redeliver, regal_sandbox):
    old = [{"user_id": "u1", "timestamp": NOW - timedelta(days=9)}]
    failing(deliver, regal_sandbox, old, max_event_age=None)
    with pytest.raises(TooManyFailedRowsError, match="older than max_event_age"):
        redeliver()
    assert redeliver("again", of_run="third", max_event_age=None).acknowledged == 1


def test_logs_errors_and_the_report_name_nobody(deliver, redeliver, regal_sandbox, caplog):
    person = {"user_id": "secret-id", "phone": "+12125550177", "email": "who@example.com", "first_name": "Ines"}
    failing(deliver, regal_sandbox, [person, {**person, "phone": "+1 212 o"}], call="identify")

    def fix(row):
        raise KeyError(row["phone"])

    with caplog.at_level(logging.DEBUG):
        with pytest.raises(ValueError) as failed:
            redeliver(fix=fix, of_run="fails")
        with suppress(TooManyFailedRowsError):
            redeliver()
    assert redeliver.report.read == 2
    for value in ("secret-id", "5550177", "who@example", "Ines", "212 o"):
        assert value not in caplog.text + str(failed.value) + repr(redeliver.report.as_dict())
