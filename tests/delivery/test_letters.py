"""Dead letters sent again: what is sent, what stays, and every rule applied anew."""

from __future__ import annotations

import logging
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.delivery.sources.rows import bad_row
from airflow_provider_regal.errors import CheckSourceError, ReadDeadLettersError, RetryLaterError
from airflow_provider_regal.journal.folder_letters import claims_in_folder
from tests.delivery.redelivering import Redeliver

NOW = datetime.now(UTC).replace(microsecond=0)
REFUSE = {"status": 400}
LOSE = {"status": 500}


@pytest.fixture
def redeliver(deliver, folder):
    return Redeliver(deliver, folder.parent)


def people(count, start=0):
    return [{"user_id": f"u{number}", "amount": number} for number in range(start, start + count)]


def failing(deliver, regal, rows, fault=REFUSE, **options):
    """Deliver rows of which Regal takes none."""
    regal.set_faults([{"on": {"from": 1}, "do": fault}])
    with suppress(ReadDeadLettersError):
        deliver(rows, outage_patience=600, **{"max_unknown": 1.0, **options})
    regal.set_faults([])


def bodies(regal, *, stored=True):
    return [event["body"] for event in regal.events(stored=stored)]


def arrivals(regal):
    return Counter(body["userId"] for body in bodies(regal))


def test_rejected_letters_are_sent_once_and_each_says_what_became_of_it(deliver, redeliver, regal_sandbox, folder):
    failing(deliver, regal_sandbox, people(5))

    report = redeliver()

    assert (report.read, report.acknowledged) == (5, 5)
    assert arrivals(regal_sandbox) == Counter({f"u{n}": 1 for n in range(5)})
    assert claims_in_folder(folder).keys() == set(range(5))
    assert {(c.by, c.outcome) for c in claims_in_folder(folder).values()} == {
        (str(folder.parent / "again"), "acknowledged")
    }


def test_unknown_letters_stay_unless_they_are_named(deliver, redeliver, regal_sandbox, caplog):
    failing(deliver, regal_sandbox, people(3), LOSE)

    with caplog.at_level(logging.INFO):
        assert redeliver().read == 0
    assert "3 dead letters stay where they are: unknown, which was not asked for" in caplog.text
    assert arrivals(regal_sandbox) == Counter()


def test_naming_unknown_sends_them_and_says_what_that_means(deliver, redeliver, regal_sandbox, caplog):
    failing(deliver, regal_sandbox, people(3), LOSE)

    assert redeliver(status="unknown").acknowledged == 3
    assert "3 rows of unknown outcome are sent again, as asked: people may be reached twice" in caplog.text
    assert sum(arrivals(regal_sandbox).values()) == 3


def test_a_row_that_could_not_be_mapped_is_mended_and_arrives_once(deliver, redeliver, regal_sandbox):
    rows = [{"phone": "+1 212 555 o100", "amount": 3}, {"phone": "+12125550101", "amount": 4}]
    with suppress(ReadDeadLettersError):
        deliver(rows)

    report = redeliver(fix=lambda row: {**row, "phone": row["phone"].replace("o", "0")}, event="Lesson Booked")

    assert report.acknowledged == 1
    mended = bodies(regal_sandbox)[-1]
    assert mended["name"] == "Lesson Booked"
    assert mended["properties"] == {"amount": 3}
    assert list(mended["traits"]["phones"]) == ["+12125550100"]
    assert len(bodies(regal_sandbox)) == 2


def test_rows_of_contacts_are_contacts_again_with_their_mapping_and_types(deliver, redeliver, regal_sandbox):
    options = {"mapping": {"level": "traits.plan"}, "types": {"age": int}}
    rows = [{"user_id": "u1", "level": "gold", "age": "x"}]
    with suppress(ReadDeadLettersError):
        deliver(rows, call="identify", **options)

    with pytest.raises(ReadDeadLettersError):
        redeliver(**options)  # still no number: nothing is sent without it
    (letter,) = redeliver.letters()
    assert (letter.call, letter.form, letter.field) == ("identify", "row", "age")
    assert letter.payload == rows[0]
    assert "position 0" in letter.message

    report = redeliver("again", of_run="third", fix=lambda row: {**row, "age": "41"}, **options)
    assert report.acknowledged == 1
    assert bodies(regal_sandbox)[0]["traits"] == {"plan": "gold", "age": 41}


def test_what_fix_leaves_out_stays_for_the_next(deliver, redeliver, regal_sandbox, folder):
    failing(deliver, regal_sandbox, people(4))

    assert redeliver(fix=lambda row: row if row["properties"]["amount"] % 2 else None).acknowledged == 2
    assert claims_in_folder(folder).keys() == {1, 3}
    assert redeliver(of_run="third").acknowledged == 2
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_a_fix_that_fails_sends_nothing_and_keeps_nothing(deliver, redeliver, regal_sandbox, folder):
    failing(deliver, regal_sandbox, people(4))

    def fix(row):
        return {**row, "x": 1 / (row["properties"]["amount"] - 2)}

    with pytest.raises(ZeroDivisionError):
        redeliver(fix=fix)
    assert arrivals(regal_sandbox) == Counter()
    assert claims_in_folder(folder) == {}
    assert redeliver(of_run="third").acknowledged == 4


def test_a_fix_that_gives_no_row_is_told_so(deliver, redeliver, regal_sandbox):
    failing(deliver, regal_sandbox, people(1))
    with pytest.raises(ValueError, match="fix must give a dictionary, or None to leave the letter; it gave a list"):
        redeliver(fix=lambda row: [row])


def test_lines_that_were_no_rows_stay_and_are_told_what_to_do(deliver, redeliver, regal_sandbox, folder, caplog):
    with suppress(ReadDeadLettersError):
        deliver([bad_row("the line", "is not JSON", "a.jsonl line 1", {"line": "{"})])

    assert redeliver().read == 0
    assert "mend them with fix=, or deliver their source again" in caplog.text
    assert claims_in_folder(folder) == {}

    assert redeliver(of_run="third", fix=lambda row: {"user_id": "u7"}, event="E").acknowledged == 1
    assert arrivals(regal_sandbox) == Counter({"u7": 1})


def test_letters_of_several_runs_go_oldest_first_and_of_one_run_in_the_order_of_its_rows(
    deliver, redeliver, regal_sandbox
):
    who = {"user_id": "u1"}
    failing(deliver, regal_sandbox, [{**who, "n": 3}], call="identify", of_run="b-first", now=NOW - timedelta(days=2))
    rows = [{**who, "n": 4}, {**who, "phone": "no phone", "n": 5}, {**who, "n": 6}]
    failing(deliver, regal_sandbox, rows, call="identify", of_run="a-second", now=NOW - timedelta(days=1))

    redeliver("*", fix=lambda row: {key: value for key, value in row.items() if key != "phone"}, max_connections=8)

    assert [body["traits"]["n"] for body in bodies(regal_sandbox)] == [3, 4, 5, 6]


def test_only_the_last_letter_of_a_row_that_is_still_dead_counts(deliver, redeliver, regal_sandbox, folder):
    failing(deliver, regal_sandbox, people(3))
    file = folder / "dead_letters.jsonl"
    file.write_text(file.read_text() * 2 + '{"torn')
    with (folder / "progress.log").open("a") as log:
        log.write("N 1\nA 1\n")  # it was cleared, tried again, and killed before it could tidy

    assert redeliver().acknowledged == 2
    assert arrivals(regal_sandbox) == Counter({"u0": 1, "u2": 1})


def test_a_copy_of_the_letters_alone_can_be_sent(deliver, redeliver, regal_sandbox, folder, tmp_path):
    failing(deliver, regal_sandbox, people(2))
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "dead_letters.jsonl").write_bytes((folder / "dead_letters.jsonl").read_bytes())

    assert redeliver("copy/dead_letters.jsonl").acknowledged == 2


def test_what_is_rejected_anew_is_a_letter_of_the_redelivery_and_names_where_it_came_from(
    deliver, redeliver, regal_sandbox, folder
):
    failing(deliver, regal_sandbox, people(2), now=NOW - timedelta(days=1))
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": REFUSE}])

    with pytest.raises(ReadDeadLettersError):
        redeliver()

    first, _ = redeliver.letters()
    assert first.message.endswith(f"; in {folder.resolve()} position 0")
    assert first.first_time.startswith((NOW - timedelta(days=1)).isoformat()[:13])  # that is how old it is
    assert {claim.outcome for claim in claims_in_folder(folder).values()} == {"rejected"}
    regal_sandbox.set_faults([])
    assert redeliver(of_run="third").read == 0
    assert redeliver("again", of_run="fourth").acknowledged == 2


def test_too_few_letters_are_given_back(deliver, redeliver, regal_sandbox, folder):
    failing(deliver, regal_sandbox, people(2))
    with pytest.raises(CheckSourceError):
        redeliver(min_rows=3)
    assert claims_in_folder(folder) == {}
    assert redeliver(of_run="third").acknowledged == 2


def test_a_limit_takes_no_more_than_it_sends_and_says_what_unknown_means(
    deliver, redeliver, regal_sandbox, folder, caplog
):
    failing(deliver, regal_sandbox, people(5), LOSE)
    assert redeliver(limit=2, status="unknown").acknowledged == 2
    assert len(claims_in_folder(folder)) == 2
    assert "2 rows of unknown outcome" in caplog.text
    assert redeliver(of_run="third", status="unknown").acknowledged == 3


def test_an_outage_keeps_the_letters_and_the_next_try_goes_on(deliver, redeliver, regal_sandbox, folder):
    failing(deliver, regal_sandbox, people(6))
    regal_sandbox.reset()
    regal_sandbox.set_faults([{"on": {"from": 3}, "do": {"status": 503, "retry_after": 90}}])
    with pytest.raises(RetryLaterError):
        redeliver(max_connections=1, outage_patience=30)
    assert Counter(claim.outcome for claim in claims_in_folder(folder).values())[None] > 0
    assert redeliver(of_run="third").read == 0  # they are the first one's

    regal_sandbox.set_faults([])
    assert redeliver(number=2).acknowledged == 6
    assert set(arrivals(regal_sandbox).values()) == {1}
    assert {claim.outcome for claim in claims_in_folder(folder).values()} == {"acknowledged"}


def test_old_events_are_rejected_anew_unless_their_age_is_allowed(deliver, redeliver, regal_sandbox):
    old = [{"user_id": "u1", "timestamp": NOW - timedelta(days=9)}]
    failing(deliver, regal_sandbox, old, max_event_age=None)
    with pytest.raises(ReadDeadLettersError, match="older than max_event_age"):
        redeliver()
    assert redeliver("again", of_run="third", max_event_age=None).acknowledged == 1


def test_old_contacts_are_warned_about_without_a_ledger(deliver, redeliver, regal_sandbox, caplog, tmp_path):
    failing(deliver, regal_sandbox, people(2), call="identify")
    redeliver(limit=1)
    assert "1 contacts are sent as they were then: without a ledger nobody knows" in caplog.text
    caplog.clear()
    redeliver(of_run="third", ledger=tmp_path / "ledger.db")
    assert "contacts are sent as they were" not in caplog.text


def test_logs_name_nobody(deliver, redeliver, regal_sandbox, caplog):
    person = {"user_id": "secret-id", "phone": "+12125550177", "email": "who@example.com", "first_name": "Ines"}
    failing(deliver, regal_sandbox, [person, {**person, "phone": "+1 212 o"}], call="identify")
    with caplog.at_level(logging.DEBUG), suppress(ReadDeadLettersError):
        redeliver()
    assert redeliver.report.read == 2
    for value in ("secret-id", "5550177", "who@example", "Ines", "212 o"):
        assert value not in caplog.text + repr(redeliver.report.as_dict())
