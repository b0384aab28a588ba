"""Opt-outs in every spelling, on every path: each reaches Regal, and no older yes follows it."""

from __future__ import annotations

from decimal import Decimal
from typing import ClassVar

import pytest

from airflow_provider_regal.errors import TooManyFailedRowsError
from airflow_provider_regal.events import Identify, Track
from airflow_provider_regal.sources.marks import EVENT_MARK, ROW_MARK, SKIP_MARK, Marked
from tests.delivery.consents import IP, NOW, at, no, phone, told, yes

PHONE = phone(1)
YES = {"subscribed": True, "timestamp": at(1), "ip": IP}


@pytest.fixture
def run(deliver):
    runs = iter(range(1_000))

    def run(rows, *, call="identify", **options):
        return deliver(rows, call=call, of_run=f"run-{next(runs)}", now=NOW, **options)

    return run


def statuses(regal, number=1):
    """What Regal holds of a phone: channel -> status."""
    contact = regal.contact(phone=phone(number))
    return {channel: contact["phones"][phone(number)][channel]["status"] for channel in ("sms", "voice")}


def sms(regal, number=1):
    return regal.contact(phone=phone(number))["phones"][phone(number)]["sms"]["status"]


NOES = (
    False,
    0,
    0.0,
    Decimal(0),
    "0.0",
    "no",
    "off",
    "STOP",
    "unsubscribed",
    "opted_out",
    "opt-out",
    "revoked",
    "denied",
)


class TestASpellingOfNo:
    @pytest.mark.parametrize("value", NOES)
    def test_in_a_column(self, run, regal_sandbox, value):
        run([{"phone": PHONE, "sms_opt_in": True, "sms_opt_in_at": at(1), "sms_opt_in_ip": IP}])
        assert run([{"phone": PHONE, "sms_opt_in": value}]).acknowledged == 1
        assert sms(regal_sandbox) == "Unsubscribed"

    @pytest.mark.parametrize("channel", ["sms", "SMS", " Sms "])
    @pytest.mark.parametrize("value", NOES)
    def test_in_a_table_of_consents(self, sync, regal_sandbox, value, channel):
        sync([yes(1, 1)])
        assert sync([no(1, 2, channel=channel, subscribed=value)]).acknowledged == 1
        assert sms(regal_sandbox) == "Unsubscribed"

    WRITTEN = (
        {"phone": PHONE, "opt_in": [{"channel": "SMS", "subscribed": 0.0, "unknown": 1}]},
        {"phones": {PHONE: {"smsOptIn": False}}},
        {"traits": {"phone": PHONE, "smsOptIn": "stop"}},
        {"traits": {"phone": PHONE, "optIn": [{"channel": " sms", "subscribed": "Opted Out"}]}},
    )

    @pytest.mark.parametrize("written", WRITTEN)
    @pytest.mark.parametrize("kind", [Identify, Track])
    def test_in_an_event(self, run, regal_sandbox, kind, written):
        run([Identify(phones={PHONE: {"smsOptIn": YES}})])
        more = {"event": "Seen"} if kind is Track else {}
        assert run([kind.read({**written, **more})], call=kind.call).acknowledged == 1
        assert sms(regal_sandbox) == "Unsubscribed"


class TestARowThatIsWrongElsewhere:
    @pytest.mark.parametrize("wrong", [{"plan": b"x"}, {"user_id": 1.5}, {"email": "nobody"}, {"phone": 2125550001.0}])
    def test_its_opt_out_is_sent_and_it_is_rejected(self, run, regal_sandbox, wrong):
        report = run([{"phone": PHONE, "sms_opt_in": False, **wrong}], max_rejected=1)
        assert (report.rejected, report.opt_outs_rejected) == (1, 0)
        assert told(regal_sandbox) == [(None, "sms", False)]

    def test_of_a_table_of_consents_a_phone_that_is_a_fraction_has_its_digits(self, sync, regal_sandbox):
        assert sync([no(1, phone=2125550001.0)]).acknowledged == 1
        assert told(regal_sandbox)[0][1:] == ("sms", False)

    def test_an_opt_out_that_cannot_be_sent_fails_the_task_whatever_is_allowed(self, run):
        rows = [{"phone": "12", "sms_opt_in": False}, {"phone": PHONE}]
        with pytest.raises(TooManyFailedRowsError, match="1 rejected with an opt-out or a decision"):
            run(rows, max_rejected=1.0, max_unknown=1.0)

    def test_it_fails_in_every_run_until_the_source_is_fixed(self, sync):
        rows = [no(1, phone="12"), yes(2)]
        for _ in range(3):
            with pytest.raises(TooManyFailedRowsError):
                sync(rows, max_rejected=1.0)
        assert sync([yes(2)], max_rejected=1.0).rejected == 0


class TestWhatIsNeitherYesNorNo:
    def test_bars_an_older_yes_of_the_same_source_and_fails_every_run(self, run, regal_sandbox):
        older = {"phone": PHONE, "sms_opt_in": True, "sms_opt_in_at": at(1), "sms_opt_in_ip": IP}
        odd = {"phone": PHONE, "sms_opt_in": "perhaps", "sms_opt_in_at": at(2)}
        for rows in ([older, odd], [odd, older]):
            with pytest.raises(TooManyFailedRowsError, match="a decision that can't be read") as error:
                run(rows, max_rejected=1.0)
            report = error.value.report
            assert (report.rejected, report.opt_outs_rejected, report.opt_ins_withheld) == (1, 1, 1)
        assert told(regal_sandbox) == []

    def test_a_newer_yes_stands_and_an_older_no_goes(self, run, regal_sandbox):
        odd = {"phone": PHONE, "sms_opt_in": "perhaps", "sms_opt_in_at": at(2)}
        newer = {"phone": PHONE, "sms_opt_in": True, "sms_opt_in_at": at(3), "sms_opt_in_ip": IP}
        with pytest.raises(TooManyFailedRowsError):
            run([odd, newer], max_rejected=1.0)
        assert told(regal_sandbox) == [(None, "sms", True)]
        with pytest.raises(TooManyFailedRowsError):
            run([odd, {"phone": PHONE, "voice_opt_in": False, "voice_opt_in_at": at(1)}], max_rejected=1.0)
        assert told(regal_sandbox)[1:] == [(None, "voice", False)]

    @pytest.mark.parametrize("turned", [True, False])
    def test_in_a_sync(self, sync, regal_sandbox, turned):
        rows = [yes(1, 1), yes(1, 2, subscribed="perhaps"), no(2, 1), yes(2, 2, subscribed="?"), yes(3, 3)]
        for _ in range(2):
            with pytest.raises(TooManyFailedRowsError, match="2 rejected with an opt-out"):
                sync(rows[::-1] if turned else rows, max_rejected=1.0)
        assert sorted(told(regal_sandbox)) == [("u2", "sms", False), ("u3", "sms", True)]


class TestOfAUserId:
    def test_a_no_without_a_phone_goes_to_the_phones_on_record(self, run, regal_sandbox):
        run([{"user_id": "u1", "phone": PHONE, "sms_opt_in": True, "sms_opt_in_at": at(1), "sms_opt_in_ip": IP}])
        assert run([{"user_id": "u1", "phone": None, "sms_opt_in": False, "plan": "gold"}]).acknowledged == 1
        assert sms(regal_sandbox) == "Unsubscribed"

    def test_it_does_so_in_an_event(self, run, regal_sandbox):
        run([{"user_id": "u1", "phone": PHONE}])
        out = {"channel": "sms", "subscribed": False}
        assert run([Identify(user_id="u1", opt_in=[out])]).acknowledged == 1
        assert told(regal_sandbox) == [("u1", "sms", False)]

    def test_an_event_that_says_no_to_nobody_on_record_is_rejected(self, run):
        with pytest.raises(TooManyFailedRowsError, match="no phone of this contact is on record"):
            run([Identify(user_id="u1", opt_in=[{"channel": "sms", "subscribed": False}])])

    def test_a_column_that_says_no_by_default_rejects_nobody(self, run, regal_sandbox):
        assert run([{"user_id": "u1", "phone": None, "sms_opt_in": False}]).acknowledged == 1
        assert told(regal_sandbox) == []

    def test_in_a_table_of_consents(self, run, sync, regal_sandbox):
        run([{"user_id": "u1", "phone": PHONE}, {"user_id": "u1", "phone": phone(2)}])
        report = sync([no(1, phone=None)])
        assert report.acknowledged == 2
        assert {tuple(e["body"]["traits"]["phones"]) for e in regal_sandbox.events()[2:]} == {(PHONE, phone(2))}


class TestOfARepeatedMessage:
    OUT: ClassVar = {"phone": PHONE, "sms_opt_in": False, "message_id": "m1", "event": "Seen"}
    IN: ClassVar = {"phone": PHONE, "sms_opt_in": True, "sms_opt_in_at": at(1), "sms_opt_in_ip": IP}

    def test_in_one_delivery_the_opt_out_is_sent_alone(self, run, regal_sandbox):
        report = run([{**self.IN, "message_id": "m1", "event": "Seen"}, self.OUT], call="track", event=None)
        assert (report.acknowledged, report.skips) == (1, {"duplicate": 1})
        bodies = [event["body"] for event in regal_sandbox.events()]
        assert [body.get("name") for body in bodies].count("Seen") == 1, "the event itself once"
        assert sms(regal_sandbox) == "Unsubscribed"

    def test_across_deliveries_too(self, run, regal_sandbox):
        run([{**self.IN, "message_id": "m1", "event": "Seen"}], call="track", event=None)
        report = run([self.OUT], call="track", event=None)
        assert (report.acknowledged, report.skips) == (0, {"duplicate": 1})
        bodies = [event["body"] for event in regal_sandbox.events()]
        assert [body.get("name") for body in bodies] == ["Seen", None]
        assert sms(regal_sandbox) == "Unsubscribed"

    def test_without_an_opt_out_nothing_is_sent(self, run, regal_sandbox):
        row = {"phone": PHONE, "message_id": "m1", "event": "Seen"}
        report = run([row, row], call="track", event=None)
        assert (report.acknowledged, report.skips, regal_sandbox.stats()["requests"]) == (1, {"duplicate": 1}, 1)


def test_what_its_source_leaves_out_says_its_no_all_the_same(run, regal_sandbox):
    written = {"traits": {"phone": PHONE, "optIn": [{"channel": "sms", "subscribed": False}], "plan": "gold"}}
    report = run([Marked({SKIP_MARK: "switched off", EVENT_MARK: "identify", ROW_MARK: written})])
    assert (report.acknowledged, report.skips) == (0, {"not_included": 1})
    assert told(regal_sandbox) == [(None, "sms", False)]
    (event,) = regal_sandbox.events()
    assert "plan" not in event["body"]["traits"]


class TestOneNoOfAPerson:
    VOICE: ClassVar = {"phone": PHONE, "voice_opt_in": True, "voice_opt_in_ip": IP}
    OUT: ClassVar = {"phone": PHONE, "sms_opt_in": False, "sms_opt_in_at": at(5)}

    def test_closes_the_channels_of_other_rows_and_of_later_runs(self, run, regal_sandbox):
        run([{**self.VOICE, "voice_opt_in_at": at(4)}, self.OUT], opt_out_scope="person")
        assert statuses(regal_sandbox) == {"sms": "Unsubscribed", "voice": "Unsubscribed"}
        assert run([{**self.VOICE, "voice_opt_in_at": at(4), "plan": "gold"}]).opt_ins_withheld == 1
        assert run([{**self.VOICE, "voice_opt_in_at": at(6)}]).opt_ins_withheld == 0
        assert statuses(regal_sandbox) == {"sms": "Unsubscribed", "voice": "Subscribed"}

    def test_in_a_sync_it_does_the_same_with_the_wide_form(self, sync, regal_sandbox):
        row = {"phone": PHONE, "sms_opt_in": False, "sms_opt_in_at": at(5), "voice_opt_in": True, "voice_opt_in_ip": IP}
        sync([{**row, "voice_opt_in_at": at(4)}], opt_out_scope="person")
        assert statuses(regal_sandbox) == {"sms": "Unsubscribed", "voice": "Unsubscribed"}
        sync([{**row, "voice_opt_in_at": at(6)}], opt_out_scope="person")
        assert statuses(regal_sandbox) == {"sms": "Unsubscribed", "voice": "Subscribed"}


class TestBothFormsInOneRow:
    """A row of consents with the columns of the long form and of the wide one."""

    def test_a_no_of_either_counts(self, sync, regal_sandbox):
        wide = {"sms_opt_in": True, "sms_opt_in_at": at(9), "sms_opt_in_ip": IP}
        report = sync([{**no(1, 1), **wide}])
        assert (report.read, report.acknowledged) == (1, 1)
        assert told(regal_sandbox) == [("u1", "sms", False)]
        assert sync([yes(1, 10)]).skips == {"older": 1}, "it counts as given when it was read"

    def test_a_wide_column_that_says_nothing_drops_nothing(self, sync, regal_sandbox):
        sync([{**no(1, 1), "email_opt_in": None}])
        assert told(regal_sandbox) == [("u1", "sms", False)]

    def test_each_channel_is_read(self, sync, regal_sandbox):
        row = {**no(1, 1), "email": "a@example.com", "email_opt_in": "unsubscribed"}
        assert sync([row]).read == 2
        assert sorted(told(regal_sandbox)) == [("u1", "email", False), ("u1", "sms", False)]


def test_an_opt_out_of_two_phones_in_one_row(run, regal_sandbox):
    row = {"user_id": "u1", "phones.home": PHONE, "phones.work": phone(2), "phones.work_sms_opt_in": "no"}
    assert run([row]).acknowledged == 1
    assert told(regal_sandbox) == [("u1", "sms", False)]
    assert sms(regal_sandbox, 2) == "Unsubscribed"
    assert sms(regal_sandbox, 1) == "No Status"


def test_a_time_that_cannot_be_read_is_counted(run):
    report = run([{"phone": PHONE, "sms_opt_in": False, "sms_opt_in_at": "the 7th of Never"}])
    assert report.notes == {"the time of an opt-out can't be read: it counts as given when the row was read": 1}
