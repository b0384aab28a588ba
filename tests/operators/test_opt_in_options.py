"""Every option of the opt-in sync: the result with it, and without it."""

from __future__ import annotations

import inspect
import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from tests.ledger_file import dead_letters, remembered
from tests.operators.opt_ins import EVERYBODY, consent, phone, status
from tests.operators.ways import context

ALICE, BOB, CARL = EVERYBODY


def test_initial_send_sends_all_and_baseline_only_records(sync, regal):
    recorded = sync(EVERYBODY, initial="baseline")
    assert (recorded.requests, recorded.report["skips"]) == (0, {"recorded": 3})
    assert sync(EVERYBODY).report["skips"] == {"unchanged": 3}
    assert sync([ALICE, consent(101, False, day=2), CARL]).requests == 1
    assert status(regal, 101) == "Unsubscribed"


def test_initial_is_for_the_first_run_only(sync):
    assert sync([ALICE], initial="send").requests == 1
    assert sync([ALICE, BOB], initial="baseline").requests == 1


def test_an_opt_out_that_says_no_time_is_sent_once(sync, regal):
    rows = [consent(100, False, timestamp=None)]
    assert [sync(rows, initial="send").requests for _ in range(3)] == [1, 0, 0]
    assert sync([consent(100, day=9)]).plan["older"] == 1, "it counts as given when it was read"
    assert status(regal, 100) == "Unsubscribed"


def test_an_older_subscription_is_withheld(sync, regal):
    sync([consent(100, False, day=9)], initial="send")
    stale = sync([consent(100, day=5)])
    assert (stale.requests, stale.plan["older"], stale.report["skips"]) == (0, 1, {"older": 1})
    assert status(regal, 100) == "Unsubscribed"


def test_a_history_of_consents_is_read_as_its_newest_word_in_every_run(sync, regal):
    history = [consent(100, False, day=5), consent(100), consent(100, day=9), consent(100, day=9)]
    first = sync(history, initial="send")
    assert (first.requests, first.plan["older"]) == (1, 3)
    again = sync([*history, BOB])
    assert (again.requests, again.plan["sent"], again.plan["older"]) == (1, 1, 3)
    assert status(regal, 100) == "Subscribed"


def test_opt_ins_go_as_an_event_and_opt_outs_as_they_are(sync, regal):
    now = datetime.now(UTC).isoformat()
    rows = [consent(100, timestamp=now), consent(101, False, timestamp=now)]
    seen = sync(rows, initial="send", as_event="SMS Consent Given")
    opt_out, opt_in = (event["body"] for event in regal.events())
    assert seen.requests == 2
    assert opt_out["traits"]["phones"][phone(101)]["smsOptIn"]["subscribed"] is False
    assert opt_in["name"] == "SMS Consent Given"
    assert phone(100) in json.dumps(opt_in)
    assert opt_in["properties"]["channel"] == "sms"
    assert sync(rows, as_event="SMS Consent Given").requests == 0


def test_an_event_needs_a_phone_in_the_row_or_in_the_ledger(sync, regal):
    anne = {**consent(100, timestamp=datetime.now(UTC).isoformat()), "phone": None, "user_id": "anne"}
    seen = sync([anne], initial="send", as_event="SMS Consent Given", max_rejected=1)
    assert (seen.requests, seen.report["rejected"]) == (0, 1)
    assert any("no phone of this contact is on record" in reason for reason in seen.report["reasons"])


def test_what_vanished_is_reported_and_opted_out_only_on_request(sync, regal):
    sync(EVERYBODY, initial="send")
    assert sync([ALICE, CARL]).plan["removed"] == 1
    assert status(regal, 101) == "Subscribed"
    assert sync([ALICE, CARL], on_removed="opt_out").requests == 1
    assert status(regal, 101) == "Unsubscribed"
    assert sync([ALICE, CARL], on_removed="opt_out").requests == 0


def test_who_no_longer_says_yes_or_no_has_vanished_and_whose_row_is_wrong_has_not(sync, regal):
    sync(EVERYBODY, initial="send")
    rows = [consent(100, "perhaps"), consent(101, None), CARL]
    assert sync(rows, on_removed="opt_out", max_rejected=1).plan["removed"] == 1
    assert [status(regal, number) for number in (100, 101)] == ["Subscribed", "Unsubscribed"]


def test_the_parts_of_a_mapped_task_do_not_take_each_others_people_for_vanished(sync):
    for turn in range(2):
        parts = [sync([person], map_index=index, initial="send") for index, person in enumerate(EVERYBODY)]
        assert [(part.requests, part.plan["removed"]) for part in parts] == [(1 - turn, 0)] * 3
    refused = sync([ALICE], map_index=0, on_removed="opt_out")
    assert (refused.requests, "is not for a mapped task" in refused.error) == (0, True)


def test_a_full_resync_sends_what_did_not_change(sync):
    sync(EVERYBODY, initial="send")
    assert sync(EVERYBODY).requests == 0
    assert sync(EVERYBODY, full_resync=True).requests == 3


def test_too_many_flips_are_refused_and_nothing_is_committed(sync, regal, regal_ledger):
    people = range(100, 130)
    sync([consent(number, False) for number in people], initial="send")
    before = remembered(regal_ledger)
    broken = [consent(number, number < 120, day=2) for number in people]
    for ratio in (0.5, 0.6):
        refused = sync([row for row in broken if row["subscribed"]], max_change_ratio=ratio)
        assert f"20 of 30 known consents would flip, more than max_change_ratio={ratio:g} allows" in refused.error
        assert refused.requests == 0
    assert {table: rows for table, rows in remembered(regal_ledger).items() if "consent" in table} == {
        table: rows for table, rows in before.items() if "consent" in table
    }
    assert sync(broken, max_change_ratio=0.7).requests == 30


def test_opt_outs_are_sent_though_too_many_flip(sync, regal):
    people = range(100, 130)
    sync([consent(number) for number in people], initial="send")
    refused = sync([consent(number, number >= 120, day=2) for number in people])
    assert "20 of 30 known consents would flip, more than max_change_ratio=0.5 allows" in refused.error
    assert refused.requests == 20


def test_what_regal_knows_is_recorded_and_not_sent(sync, regal):
    assert sync([consent(100, False, day=2)], known_to_regal=True).requests == 0
    assert sync([consent(100, day=1)], initial="send").report["skips"] == {"older": 1}


def test_no_limit_of_flips(sync):
    people = range(100, 130)
    sync([consent(number) for number in people], initial="send")
    assert sync([consent(number, False, day=2) for number in people], max_change_ratio=None).requests == 30


def test_too_few_rows_are_refused(sync):
    assert "min_rows=4" in sync(EVERYBODY, initial="send", min_rows=4).error
    assert sync(EVERYBODY, initial="send", min_rows=3).requests == 2, "the opt-out was sent before"


def test_limit_reads_the_first_rows_only_and_calls_none_removed(sync):
    sync(EVERYBODY, initial="send")
    seen = sync([consent(100, day=2), BOB, consent(103)], limit=1, on_removed="opt_out")
    assert (seen.report["read"], seen.requests, seen.plan["removed"]) == (1, 1, 0)


def test_columns_can_be_named_otherwise(sync, regal):
    row = {"tel": phone(100), "how": "sms", "ok": "true", "agreed": "2026-01-02", "address": "203.0.113.9", "note": 1}
    names = {"tel": "phone", "how": "channel", "ok": "subscribed", "agreed": "timestamp", "address": "ip"}
    assert sync([row], initial="send").error
    assert sync([row], initial="send", mapping={**names, "note": None}).requests == 1
    assert status(regal, 100) == "Subscribed"


def test_one_column_can_be_the_evidence_of_several_channels(sync, regal):
    row = {"phone": phone(100), "sms_opt_in": True, "voice_opt_in": True, "updated_at": "2026-01-02"}
    row["address"] = "203.0.113.9"
    both = {"updated_at": ["sms_opt_in_at", "voice_opt_in_at"], "address": ["sms_opt_in_ip", "voice_opt_in_ip"]}
    assert sync([row], initial="send", mapping=both).error == ""
    assert (status(regal, 100), status(regal, 100, "voice")) == ("Subscribed", "Subscribed")


def test_the_wide_form_is_several_consents_a_row(sync, regal):
    evidence = {f"{channel}_opt_in_{what}": value for channel in ("sms", "voice")
                for what, value in (("at", "2026-01-02"), ("ip", "203.0.113.9"))}  # fmt: skip
    rows = [{"phone": phone(100), "sms_opt_in": 1, "voice_opt_in": 0, **evidence}]
    seen = sync(rows, initial="send")
    assert (seen.report["read"], seen.plan["opt_ins"], seen.plan["opt_outs"]) == (2, 1, 1)
    assert [status(regal, 100, channel) for channel in ("sms", "voice")] == ["Subscribed", "Unsubscribed"]
    assert sync(rows).requests == 0


def test_one_opt_out_closes_all_channels_of_the_phone_where_that_is_asked_for(sync, regal):
    rows = [consent(100), consent(100, channel="voice")]
    assert sync(rows, initial="send").requests == 1
    later = [consent(100, False, timestamp=None)]
    assert sync([*rows, *later], opt_out_scope="person").report["plan"]["opt_outs"] == 2
    assert [status(regal, 100, channel) for channel in ("sms", "voice")] == ["Unsubscribed", "Unsubscribed"]
    assert sync([*rows, *later], opt_out_scope="person").requests == 0


def test_consent_without_an_address_or_too_old_is_withheld(sync):
    rows = [consent(100, ip=None), consent(101, timestamp=datetime.now(UTC).isoformat())]
    assert sync(rows, initial="send", max_rejected=1).report["rejected"] == 1
    assert sync(rows, require_ip=False).requests == 1
    assert sync([consent(103)], max_consent_age=timedelta(days=1), max_rejected=1).report["rejected"] == 1
    assert sync([consent(103)]).requests == 1


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({}, "give one of sql, path and rows; here is none"),
        ({"rows": [], "path": "/a"}, "here is path and rows"),
        ({"sql": "SELECT 1"}, "sql and sql_conn_id belong together"),
        ({"rows": [], "sql_conn_id": "warehouse"}, "sql and sql_conn_id belong together"),
        ({"rows": [], "initial": "yes"}, "initial must be 'send' or 'baseline'"),
        ({"rows": [], "on_removed": "delete"}, "on_removed must be 'opt_out'"),
        ({"rows": [], "max_change_ratio": 50}, "max_change_ratio must be a share"),
        ({"rows": [], "max_change_ratio": True}, "max_change_ratio must be a share"),
        ({"rows": [], "only_changed": True}, "only_changed: not for consents"),
        ({"rows": [], "call": "track", "event": "x"}, "call, event: not for consents"),
        ({"rows": [], "mapping": {"a": "traits.x"}}, "mapping['a'] must be one of"),
        ({"rows": [], "mapping": {"a": ["timestamp", "traits.x"]}}, "a list of such names, or None"),
        ({"rows": [], "mapping": {"a": 5}}, "mapping['a'] must be text, or None"),
        ({"rows": [], "mapping": ["a"]}, "mapping must be a dictionary"),
        ({"rows": [], "as_event": ""}, "as_event"),
        ({"rows": [], "format": "xml"}, "format"),
        ({"rows": [], "sql_hook_params": {}}, "sql_hook_params"),
        ({"rows": [], "parameters": {}}, "parameters"),
        ({"path": "/a", "as_event": "Agreed", "on_removed": "opt_out", "limit": -1}, "limit"),
        ({"rows": [], "max_consent_age": 5}, "max_consent_age"),
        ({"rows": [], "timezone": "Mars"}, "timezone"),
        ({"rows": [], "suppress_named_events": True}, "suppress_named_events: not for consents"),
        ({"rows": [], "contract": {"traits": {}}}, "contract: not for consents"),
        ({"rows": [], "opt_out_scope": "all"}, "opt_out_scope must be 'channel' or 'person'"),
    ],
)
def test_options_that_cannot_be_right_are_refused_when_the_dag_is_written(options, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        RegalOptInSyncOperator(task_id="t", **options)


def test_no_option_is_forgotten_here():
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_opt_in*.py"))
    for name, parameter in inspect.signature(RegalOptInSyncOperator.__init__).parameters.items():
        if parameter.kind is parameter.KEYWORD_ONLY:
            assert f"{name}=" in tests or f'"{name}"' in tests, name


def test_csv_of_another_program_is_read_and_its_bad_rows_are_named_by_file_and_line(regal, regal_ledger, tmp_path):
    text = "Tel;Kanal;OK;am\n+12125550101;sms;Ja;2026-03-02\n+12125550102;sms;\u00d6\n12;sms;Nein;2026-03-02\n"
    (tmp_path / "a.csv").write_bytes(text.encode("cp1252"))
    here = context()
    with pytest.raises(Exception, match="2 rejected"):
        RegalOptInSyncOperator(
            task_id="t",
            path=f"{tmp_path}/a.csv",
            format="csv",
            delimiter=";",
            encoding="cp1252",
            mapping={"Tel": "phone", "Kanal": "channel", "OK": "subscribed", "am": "timestamp"},
            values={"Ja": True, "Nein": False},
            require_ip=False,
            initial="send",
        ).execute(here)
    assert here["ti"].report["acknowledged"] == 1
    assert regal.contact(phone="+12125550101")["phones"]["+12125550101"]["sms"]["status"] == "Subscribed"
    letters = dead_letters(regal_ledger, here["ti"].report["delivery"])
    assert {letter["place"]: letter["message"].partition(":")[0] for letter in letters} == {
        "a.csv line 3": "the line",
        "a.csv line 4": "Tel",
    }


def test_a_rejected_row_of_a_list_is_named_by_its_number(regal, regal_ledger):
    here = context()
    rows = [{"phone": f"+1212555010{n}", "channel": "sms", "subscribed": False} for n in range(3)]
    rows[1]["phone"] = "12"
    with pytest.raises(Exception, match="1 rejected"):
        RegalOptInSyncOperator(task_id="t", rows=rows, initial="send").execute(here)
    (letter,) = dead_letters(regal_ledger, here["ti"].report["delivery"])
    assert letter["place"] == "row 2"


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"delimiter": ";"}, "delimiter is for format='csv'"),
        ({"encoding": "cp1252"}, "encoding is for format='csv'"),
        ({"values": {"STOP": True}}, "is a no"),
        ({"on_shared": "reject"}, "on_shared: not for consents"),
        ({"max_change_ratio": "half"}, "max_change_ratio must be a share"),
    ],
)
def test_options_that_cannot_be_right_are_errors_when_the_dag_is_written(option, complaint):
    with pytest.raises(ValueError, match=complaint):
        RegalOptInSyncOperator(task_id="t", rows=[], **option)
