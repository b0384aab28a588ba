"""Deliveries end to end: every row accounted for, across faults and tries."""

from __future__ import annotations

import json
import stat
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from airflow_provider_regal.errors import (
    CheckSourceError,
    DecideRestartError,
    FixConnectionError,
    ReadDeadLettersError,
    RetryLaterError,
)
from airflow_provider_regal.events import Identify
from airflow_provider_regal.journal.dead_letters import read_dead_letters

DROP = {"drop": True}


def people(count, start=0):
    return [{"user_id": f"u{number}", "amount": number} for number in range(start, start + count)]


def adds_up(report):
    return report.read == report.acknowledged + report.rejected + report.unknown + report.skipped


def arrivals(regal):
    """How often Regal has each user's event."""
    return Counter(event["body"]["userId"] for event in regal.events() if event["stored"])


def letters(folder):
    return list(read_dead_letters(folder / "dead_letters.jsonl"))


def test_every_row_arrives_once(deliver, regal_sandbox):
    report = deliver(people(500))

    assert report.acknowledged == report.read == 500
    assert set(arrivals(regal_sandbox).values()) == {1}
    assert len(arrivals(regal_sandbox)) == 500
    assert regal_sandbox.stats()["contract_findings"] == {}


def test_rows_that_cannot_be_mapped_are_dead_letters_and_the_others_go(deliver, regal_sandbox, folder):
    rows = people(20)
    rows[3] = {"user_id": None, "phone": "+15555555555", "amount": b"x"}

    with pytest.raises(ReadDeadLettersError) as caught:
        deliver(rows)

    report = deliver.last.report
    assert (report.acknowledged, report.rejected) == (19, 1)
    assert adds_up(report)
    (letter,) = letters(folder)
    assert (letter.position, letter.status, letter.reason, letter.call) == (3, "rejected", "invalid", "track")
    assert "phone: not a valid phone number" in letter.message
    assert "properties.amount: bytes" in letter.message
    assert letter.payload["phone"] == "+15555555555"
    assert "max_rejected=0" in str(caught.value)
    assert "dead_letters.jsonl" in str(caught.value)
    assert "5555555555" not in str(caught.value)


@pytest.mark.parametrize(("allowed", "passes"), [(1, True), (0, False), (0.05, True), (0.01, False)])
def test_max_rejected_counts_rows_or_a_share(allowed, passes, deliver):
    rows = [*people(19), {"amount": 1}]
    if passes:
        assert deliver(rows, max_rejected=allowed).rejected == 1
    else:
        with pytest.raises(ReadDeadLettersError):
            deliver(rows, max_rejected=allowed)


@pytest.mark.parametrize(("allowed", "passes"), [(2, True), (1, False), (None, True)])
def test_max_unknown_counts_rows(allowed, passes, deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"requests": [3, 9]}, "do": DROP}])
    if passes:
        assert deliver(people(20), max_unknown=allowed).unknown == 2
    else:
        with pytest.raises(ReadDeadLettersError, match="max_unknown=1"):
            deliver(people(20), max_unknown=allowed)


def test_an_unknown_row_is_not_repeated_under_at_most_once(deliver, regal_sandbox, folder):
    regal_sandbox.set_faults([{"on": {"every": 10}, "do": DROP}])

    report = deliver(people(100), max_unknown=10)

    assert (report.acknowledged, report.unknown) == (90, 10)
    assert max(arrivals(regal_sandbox).values()) == 1
    assert len(arrivals(regal_sandbox)) == 100
    assert {letter.status for letter in letters(folder)} == {"unknown"}
    assert all(letter.payload["userId"] == letter.key for letter in letters(folder))


def test_an_unknown_row_is_repeated_under_at_least_once(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"every": 25}, "do": DROP}])

    report = deliver(people(100), guarantee="at_least_once")

    assert report.acknowledged == 100
    assert report.repeats > 0
    assert len(arrivals(regal_sandbox)) == 100


def test_contacts_are_repeated_by_default_and_named_events_are_not(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"requests": [1]}, "do": DROP}])
    assert deliver([{"user_id": "a", "phone": "+12125550100"}], call="identify").acknowledged == 1


def test_what_regal_refuses_is_rejected_with_its_words(deliver, regal_sandbox, folder):
    regal_sandbox.set_faults([{"on": {"requests": [2]}, "do": {"status": 422, "body": "json"}}])

    report = deliver(people(5), max_rejected=1, max_connections=1)

    assert report.rejected == 1
    (letter,) = letters(folder)
    assert letter.reason == "HTTP 422"
    assert letter.attempts == 1


def test_429_is_waited_out_and_nothing_is_lost(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"every": 40}, "do": {"status": 429, "retry_after": 0}}])

    report = deliver(people(200))

    assert report.acknowledged == 200
    assert max(arrivals(regal_sandbox).values()) == 1


def test_a_wrong_key_stops_the_delivery_with_everything_kept_and_a_later_try_goes_on(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 50}, "do": {"status": 401}}])
    with pytest.raises(FixConnectionError, match="API key"):
        deliver(people(200), max_connections=4)
    assert deliver.last.report.status == "stopped"
    assert regal_sandbox.stats()["requests"] < 80

    regal_sandbox.set_faults([])
    report = deliver(people(200), number=2)

    assert report.acknowledged == 200
    assert report.unknown == 0
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_an_outage_stops_retryably_and_the_next_try_delivers_the_rest_once(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 30}, "do": {"status": 429, "retry_after": 0}}])
    with pytest.raises(RetryLaterError, match="outage_patience"):
        deliver(people(100), outage_patience=0.5)
    assert deliver.last.report.acknowledged == 29

    regal_sandbox.set_faults([])
    report = deliver(people(100), number=2)

    assert report.acknowledged == 100
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_a_regal_that_never_answers_leaves_no_more_unknown_than_were_under_way(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 101}, "do": {"hang": True}}])

    with pytest.raises(RetryLaterError):
        deliver(people(2_000), max_connections=16, outage_patience=3, timeout_s=4)

    report = deliver.last.report
    assert report.acknowledged == 100
    assert 0 < report.unknown <= 16 + 3, "those in flight and the probes"
    assert regal_sandbox.stats()["requests"] == report.acknowledged + report.unknown


def test_at_once_if_retry_after_exceeds_the_patience(deliver, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 200}}])
    with pytest.raises(RetryLaterError):
        deliver(people(50), outage_patience=60, max_connections=2)
    assert regal_sandbox.stats()["requests"] <= 2


def test_rows_of_one_person_arrive_in_the_order_of_the_source(deliver, regal_sandbox):
    rows = [{"user_id": f"u{number % 7}", "phone": f"+1212555{number % 3:04d}", "n": number} for number in range(120)]
    regal_sandbox.set_faults([{"on": {"every": 9}, "do": {"status": 503, "retry_after": 0}}])

    deliver(rows)

    for key in ("userId", "phone"):
        seen = {}
        for event in regal_sandbox.events():
            if event["stored"]:
                body = event["body"]
                who = body["userId"] if key == "userId" else next(iter(body["traits"]["phones"]))
                assert body["properties"]["n"] > seen.get(who, -1)
                seen[who] = body["properties"]["n"]


def test_the_rate_is_kept_on_the_servers_clock(deliver, regal_sandbox):
    deliver(people(250), rate=100)
    stats = regal_sandbox.stats()
    assert stats["worst_window_1s_all"] <= 100


def test_a_generator_that_raises_half_way_sends_nothing_and_the_next_try_reads_again(deliver, regal_sandbox):
    def broken():
        yield from people(1_500)
        raise ConnectionError("the database went away")

    with pytest.raises(ConnectionError):
        deliver(broken)
    assert regal_sandbox.stats()["requests"] == 0

    assert deliver(people(1_600), number=2).acknowledged == 1_600


def test_limit_delivers_only_the_first_rows(deliver, regal_sandbox):
    assert deliver(people(50), limit=7).read == 7
    assert set(arrivals(regal_sandbox)) == {f"u{number}" for number in range(7)}


def test_min_rows_fails_before_anything_is_sent_and_reads_again_when_cleared(deliver, regal_sandbox):
    with pytest.raises(CheckSourceError, match="min_rows=10"):
        deliver(people(3), min_rows=10)
    assert regal_sandbox.stats()["requests"] == 0
    assert deliver(people(12), min_rows=10, epoch=1, number=2).acknowledged == 12


def test_an_empty_source_succeeds(deliver):
    report = deliver([])
    assert (report.read, report.status) == (0, "finished")


def test_named_events_older_than_max_event_age_are_rejected(deliver):
    old = (datetime.now(UTC) - timedelta(days=8)).isoformat()
    rows = [{"user_id": "a", "timestamp": old}]
    with pytest.raises(ReadDeadLettersError, match="max_event_age"):
        deliver(rows)
    assert deliver(rows, number=2, restart=True, max_event_age=None).acknowledged == 1


def test_hostile_cells_are_rejected_or_left_out_and_the_rest_goes(deliver, regal_sandbox):
    rows = [
        {"user_id": "nan", "x": float("nan")},
        {"user_id": "inf", "x": float("inf")},
        {"user_id": "big", "x": "y" * 10_000_000},
        {"user_id": "half", "x": "\ud800"},
        {"user_id": "object", "x": object()},
        {"user_id": "set", "x": {1}},
    ]
    report = deliver(rows, max_rejected=1.0)
    assert adds_up(report)
    assert report.rejected == 3
    assert set(arrivals(regal_sandbox)) == {"nan", "inf", "set"}


class TestClearing:
    def test_a_finished_delivery_of_events_sends_nothing_when_cleared(self, deliver, regal_sandbox):
        deliver(people(10))
        report = deliver(people(20), epoch=1, number=2)
        assert report.status == "nothing_to_do"
        assert regal_sandbox.stats()["stored"] == 10

    def test_a_failed_delivery_tries_its_rejected_rows_again_and_no_other(self, deliver, regal_sandbox):
        regal_sandbox.set_faults(
            [{"on": {"requests": [4]}, "do": {"status": 400}}, {"on": {"requests": [6]}, "do": DROP}]
        )
        with pytest.raises(ReadDeadLettersError):
            deliver(people(10), max_connections=1)
        regal_sandbox.set_faults([])

        report = deliver(people(10), epoch=1, number=2, guarantee="at_least_once")

        assert (report.acknowledged, report.rejected, report.unknown) == (9, 0, 1)
        assert regal_sandbox.stats()["requests"] == 11
        assert set(arrivals(regal_sandbox).values()) == {1}

    def test_contacts_are_read_and_sent_again(self, deliver, regal_sandbox):
        contacts = [{"user_id": "a", "phone": "+12125550100"}]
        deliver(contacts, call="identify")
        assert deliver(contacts * 2, call="identify", epoch=1, number=2).acknowledged == 2

    def test_restart_sends_everything_again_but_only_once(self, deliver, regal_sandbox):
        deliver(people(5))
        regal_sandbox.set_faults([{"on": {"requests": [8]}, "do": {"status": 401}}])
        with pytest.raises(FixConnectionError):
            deliver(people(5), epoch=1, number=2, restart=True, max_connections=1)
        regal_sandbox.set_faults([])

        deliver(people(5), epoch=1, number=3, restart=True)

        assert set(arrivals(regal_sandbox).values()) == {2}

    def test_another_source_fails_once_rows_may_have_been_sent(self, deliver, regal_sandbox):
        regal_sandbox.set_faults([{"on": {"from": 3}, "do": {"status": 401}}])
        with pytest.raises(FixConnectionError):
            deliver(people(5))
        with pytest.raises(DecideRestartError, match="restart=True"):
            deliver(people(5), number=2, source="another table")

    def test_a_lost_folder_fails_named_events_and_repeats_contacts(self, deliver, regal_sandbox):
        with pytest.raises(DecideRestartError, match="storage_path"):
            deliver(people(5), number=2, lost=True)
        contacts = [{"user_id": "a", "phone": "+12125550100"}]
        assert deliver(contacts, call="identify", number=2, lost=True).acknowledged == 1

    def test_a_new_run_of_the_same_name_is_treated_as_a_clear(self, deliver, regal_sandbox):
        deliver(people(5), number=3)
        assert deliver(people(5), number=1).status == "nothing_to_do"


def test_a_corrupt_progress_log_fails_named_events_and_repeats_contacts(deliver, folder, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 3}, "do": {"status": 401}}])
    with pytest.raises(FixConnectionError):
        deliver(people(5))
    log = folder / "progress.log"
    log.write_bytes(b"A 0\nrubbish\nA 1\n")
    regal_sandbox.set_faults([])

    with pytest.raises(DecideRestartError, match=r"is not an entry"):
        deliver(people(5), number=2)
    assert deliver(people(5), number=2, restart=True).acknowledged == 5


def test_a_torn_last_line_of_the_progress_log_is_an_entry_that_was_never_made(deliver, folder, regal_sandbox):
    regal_sandbox.set_faults([{"on": {"from": 3}, "do": {"status": 401}}])
    with pytest.raises(FixConnectionError):
        deliver(people(5), max_connections=1)
    with (folder / "progress.log").open("ab") as log:
        log.write(b"A 4")
    regal_sandbox.set_faults([])

    assert deliver(people(5), number=2).acknowledged == 5


def test_files_are_for_the_owner_only_and_rows_are_gone_after_success(deliver, folder):
    deliver(people(5))
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name
    assert not list(folder.glob("rows-*"))
    assert json.loads((folder / "report.json").read_text())["acknowledged"] == 5


def test_the_report_stays_small_and_holds_nothing_personal(deliver):
    rows = [{"phone": f"+1555555{number:04d}", "x": number} for number in range(50)]
    deliver([*rows, *people(1)], max_rejected=1.0)
    text = json.dumps(deliver.last.report.as_dict())
    assert len(text) < 2_048
    assert "555555" not in text


def test_a_disk_that_is_full_stops_the_delivery_and_loses_nothing(deliver, folder, regal_sandbox):
    rows = [*people(3), {"x": 1}, *people(3, 10)]

    def and_then_the_disk_fills_up():
        yield from rows
        (folder / "dead_letters.jsonl").symlink_to("/dev/full")

    with pytest.raises(OSError, match="No space left"):
        deliver(and_then_the_disk_fills_up)
    (folder / "dead_letters.jsonl").unlink()

    report = deliver(rows, number=2, max_rejected=1)

    assert (report.acknowledged, report.rejected, report.unknown) == (6, 1, 0)
    assert set(arrivals(regal_sandbox).values()) == {1}


def test_two_tries_at_once_do_not_both_send(deliver, folder):
    from airflow_provider_regal.journal.run_folder import RunFolder

    holder = RunFolder(folder)
    try:
        with pytest.raises(RetryLaterError, match="another try still sends"):
            deliver(people(5))
    finally:
        holder.close()


def test_faults_of_all_kinds_over_many_rows_lose_nothing_and_send_nothing_twice(deliver, regal_sandbox):
    regal_sandbox.set_faults(
        [
            {"on": {"share": 0.02, "seed": 1}, "do": {"status": 500}},
            {"on": {"share": 0.01, "seed": 2}, "do": DROP},
            {"on": {"share": 0.01, "seed": 3}, "do": {"status": 429, "retry_after": 0}},
        ]
    )
    report = deliver(people(2_000), max_unknown=1.0)

    assert adds_up(report)
    arrived = arrivals(regal_sandbox)
    assert max(arrived.values()) == 1
    lost = {row["user_id"] for row in people(2_000)} - set(arrived)
    unknown = {letter.key for letter in letters(deliver.last._path)}
    assert lost <= unknown
    assert report.unknown == len(unknown)


def test_a_rejected_row_counts_as_rejected_though_its_opt_out_was_sent(deliver, regal_sandbox, folder):
    rows = [{"user_id": 1.5, "phone": "+12125550100", "sms_opt_in": False}, {"user_id": "u", "phone": "+12125550101"}]
    report = deliver(rows, call="identify", max_rejected=1)
    assert (report.read, report.acknowledged, report.rejected, report.settled) == (2, 1, 1, 2)
    sent = [event["body"]["traits"]["phones"] for event in regal_sandbox.events()]
    assert {"+12125550100": {"smsOptIn": {"subscribed": False}}} in sent
    assert [letter.status for letter in letters(folder)] == ["rejected"]


def test_a_promotion_without_its_own_opt_in_is_reported(deliver):
    consent = {"subscribed": True, "timestamp": "2026-03-01T00:00:00Z", "ip": "203.0.113.9"}
    phones = {"+12125550100": {"smsOptIn": consent}, "+12125550101": {"isPrimary": True}}
    report = deliver([Identify(user_id=f"u{n}", phones=phones) for n in range(2)], call="identify")
    ((note, count),) = report.notes.items()
    assert (count, report.as_dict()["notes"]) == (2, 2)
    assert "becomes primary without its own opt-in for sms" in note
    assert note in report.as_table()
