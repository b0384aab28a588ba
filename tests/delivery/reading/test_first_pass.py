"""The first pass: all rows are examined before the first is sent."""

from __future__ import annotations

from contextlib import closing
from datetime import timedelta

import pytest

from airflow_provider_regal.delivery.reading.first_pass import FirstPass
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.row_index import RowIndex, Told
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import FixConnectionError, TooManyFailedRowsError
from airflow_provider_regal.events import OptIn, Track
from airflow_provider_regal.ledger.deliveries import Counts
from airflow_provider_regal.ledger.rows import decode_chunk
from airflow_provider_regal.ledger.states import RowState
from airflow_provider_regal.ledger.text import to_ledger_time
from tests.delivery.consents import NOW

IP = "203.0.113.77"


def phone(number):
    return f"+1212555{number:04d}"


def contact(number, **more):
    return {"user_id": f"u{number}", "phone": phone(number), **more}


def yes(number, hours_ago=1, **more):
    evidence = {
        "sms_opt_in": True,
        "sms_opt_in_at": (NOW - timedelta(hours=hours_ago)).isoformat(),
        "sms_opt_in_ip": IP,
    }
    return contact(number, **evidence, **more)


def no(number, hours_ago=None, **more):
    when = {} if hours_ago is None else {"sms_opt_in_at": (NOW - timedelta(hours=hours_ago)).isoformat()}
    return contact(number, sms_opt_in=False, **when, **more)


def ago(hours):
    return to_ledger_time(NOW - timedelta(hours=hours))


class Passed:
    """What a first pass leaves: the index, the chunks, the counts."""

    def __init__(self, account, *, commits=True, **options):
        self.preparer = Preparer(DeliverySettings.of(**{"call": "identify", **options}), event_source="airflow")
        self.index, self.counts, self.chunks = RowIndex(), Counts(), []
        self.pass_ = FirstPass(
            self.preparer, self.index, account, self.counts, read_at=NOW, keep=self.keep, commits=commits
        )

    def keep(self, chunks):
        self.chunks += [chunk.encoded() for chunk in chunks]

    def rows(self):
        position = 0
        for encoded in self.chunks:
            for _, source_row, row in decode_chunk(encoded):
                yield position, source_row, row
                position += 1

    def newest(self, *numbers):
        return [self.index.newest(phone(number), "sms") for number in numbers]


@pytest.fixture
def read(ledger):
    opened = []

    def run(rows, **options):
        context = ledger.account(now=NOW)
        opened.append(context)
        passed = Passed(context.__enter__(), **options)
        passed.pass_.read(rows)
        return passed

    yield run
    for context in opened:
        context.__exit__(None, None, None)


def test_rows_keep_their_number_in_the_source(read):
    passed = read(contact(number) for number in range(2_500))
    assert [(position, source) for position, source, _ in passed.rows()] == [(n, n + 1) for n in range(2_500)]
    assert passed.counts.read == 2_500
    assert len(passed.chunks) == 3


class TestOnlyChanged:
    @pytest.fixture
    def known(self, deliver):
        deliver([contact(number, plan="a") for number in range(1_500)], call="identify", only_changed=True, now=NOW)

    def test_unchanged_rows_are_counted_and_never_enter_the_snapshot(self, read, known):
        rows = [contact(number, plan="b" if number in (3, 1_400) else "a") for number in range(1_500)]
        passed = read([*rows, contact(9_000)], only_changed=True)
        assert [source for _, source, _ in passed.rows()] == [4, 1_401, 1_501]
        assert (passed.counts.read, dict(passed.counts.skips)) == (1_501, {"unchanged": 1_498})

    def test_other_options_make_other_rows_of_them(self, read, known):
        passed = read([contact(1, plan="a")], only_changed=True, timezone="America/New_York")
        assert len(list(passed.rows())) == 1

    def test_a_row_without_a_key_is_kept_so_that_it_is_rejected(self, read, known):
        passed = read([{"user_id": None, "phone": phone(1)}], only_changed=True)
        assert len(list(passed.rows())) == 1

    def test_rows_of_one_key_are_ambiguous_wherever_they_stand(self, read, known):
        rows = [contact(1, plan="b"), contact(2, plan="b"), *(contact(n, plan="a") for n in range(100, 1_400))]
        passed = read([*rows, contact(1, plan="c"), contact(100, plan="b")], only_changed=True)
        assert passed.pass_.ambiguous(passed.rows) == {
            0: RowState.AMBIGUOUS, 2: RowState.AMBIGUOUS, 3: RowState.AMBIGUOUS,
        }  # fmt: skip

    def test_an_unchanged_row_of_a_repeated_key_is_left_out_and_the_other_is_ambiguous(self, read, known):
        passed = read([contact(1, plan="a"), contact(1, plan="b")], only_changed=True)
        assert [source for _, source, _ in passed.rows()] == [2]
        assert passed.pass_.ambiguous(passed.rows) == {0: RowState.AMBIGUOUS}

    def test_they_are_rejected_with_the_reason(self, deliver, regal_sandbox, known):
        rows = [contact(1, plan="b"), contact(2, plan="b"), contact(1, plan="c")]
        with pytest.raises(TooManyFailedRowsError, match="is in more than one row"):
            deliver(rows, call="identify", only_changed=True, of_run="next", now=NOW)
        assert (deliver.last.report.acknowledged, deliver.last.report.rejected) == (1, 2)


class TestConsent:
    def test_the_newest_decision_of_all_rows_is_known_before_any_is_sent(self, read):
        passed = read([yes(1, 5), no(1, 3), yes(1, 4), no(2, 5), yes(2, 3), yes(3, 2)])
        assert passed.newest(1, 2, 3) == [Told(ago(3), False), Told(ago(3), True), Told(ago(2), True)]

    def test_opt_outs_bar_when_they_are_read_and_those_without_a_time_from_now(self, read, ledger):
        read([no(1, 3), no(2), yes(3)])
        assert {key[0]: row[2:4] for key, row in ledger.consents().items()} == {
            phone(1): (ago(3), "barrier"), phone(2): (to_ledger_time(NOW), "barrier"),
        }  # fmt: skip

    def test_also_those_of_rows_that_can_never_be_sent(self, read, ledger):
        read([{**no(1, 3), "user_id": 1.5}])
        assert [key[0] for key in ledger.consents()] == [phone(1)]

    def test_a_dry_run_commits_none(self, read, ledger):
        passed = read([no(1, 3)], commits=False)
        assert passed.newest(1) == [Told(ago(3), False)]
        assert ledger.consents() == {}

    def test_many_are_committed_in_batches(self, read, ledger):
        read(no(number, 3) for number in range(2_300))
        assert len(ledger.consents()) == 2_300

    def test_an_opt_out_that_ends_a_yes_makes_an_unchanged_row_news(self, deliver, read, regal_sandbox):
        """It does not say when: Regal has heard a yes since, so the same row may mean a new decision."""
        said_no = no(1)
        deliver([said_no], call="identify", only_changed=True, of_run="1", now=NOW - timedelta(days=2))
        deliver([yes(1, 5)], call="identify", of_run="2", now=NOW)
        passed = read([said_no], only_changed=True)
        assert passed.index.has_news("u1")
        deliver([said_no], call="identify", only_changed=True, of_run="3", now=NOW)
        assert regal_sandbox.contact(phone=phone(1))["phones"][phone(1)]["sms"]["status"] == "Unsubscribed"

    def test_events_that_were_written_by_hand_are_looked_at_too(self, read):
        event = Track(
            user_id="u",
            event="Booked",
            phones=[{"number": phone(1), "opt_ins": [OptIn(channel="sms", subscribed=False)]}],
        )
        assert read([event], call="track", event="e").newest(1) == [Told(to_ledger_time(NOW), False)]


class TestMessages:
    def test_of_repeated_ids_the_first_row_counts(self, read):
        rows = [
            {"user_id": "a", "message_id": "m"},
            {"user_id": "b", "message_id": "n"},
            {"user_id": "c", "message_id": "m"},
        ]
        passed = read(rows, call="track", event="Booked")
        assert [passed.index.first_of(one) for one in ("m", "n", "x")] == [0, 1, None]

    def test_rows_without_any_are_not_prepared_twice(self, read, monkeypatch):
        looked = []
        monkeypatch.setattr(Preparer, "prepare", lambda self, *given: looked.append(given))
        read([contact(1), {"user_id": "x", "amount": 1}], call="track", event="Booked")
        assert looked == []


def test_a_resumed_try_knows_of_all_rows_what_the_first_knew(deliver, regal_sandbox, ledger):
    """Rows that are settled count as well: the newest decision may have been sent already."""
    regal_sandbox.set_faults([{"on": {"from": 2}, "do": {"status": 401}}])
    rows = [yes(1, 2), yes(2, 2), yes(1, 5), no(2, 3)]
    with pytest.raises(FixConnectionError):
        deliver(rows, call="identify", now=NOW, max_connections=1)
    regal_sandbox.set_faults([])

    report = deliver(rows, call="identify", number=2, now=NOW)

    assert (report.acknowledged, report.opt_ins_withheld) == (4, 2), "each counts once, whichever try settles its row"
    for number in (1, 2):
        status = regal_sandbox.contact(phone=phone(number))["phones"][phone(number)]["sms"]["status"]
        assert status == "Subscribed", "its newest decision"


def test_the_index_of_a_resumed_try_equals_the_first(read, ledger):
    rows = [yes(1, 5), no(1, 3), no(2), yes(2, 3), {**contact(3), "message_id": "m"}, {**contact(4), "message_id": "m"}]
    first = read(rows)
    with ledger.account(now=NOW) as account:
        again = Passed(account)
        again.pass_.look_again(first.rows())
    for one, other in zip(first.newest(1, 2), again.newest(1, 2), strict=True):
        assert one == other is not None
    assert first.index.first_of("m") == again.index.first_of("m") == 4
    with closing(again.index):
        assert not again.index.has_news("u1")


@pytest.mark.parametrize("points", [5, "x", True, {"a": 1}, [5], [{"opt_ins": 5}]])
def test_an_event_whose_phones_are_of_another_type_is_rejected(deliver, points):
    rows = [Track.model_construct(user_id="u", event="Seen", phones=points), Track(user_id="u", event="Seen")]
    report = deliver(rows, max_rejected=1)
    assert (report.acknowledged, report.rejected) == (1, 1)
