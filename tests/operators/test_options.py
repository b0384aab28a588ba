"""Every option of a delivery, with every way to deliver: the result with it, and without it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_provider_regal.testing import Sandbox
from tests.operators.ways import WAYS, context

DELAY_S = 0.2
PEOPLE = [{"user_id": f"u{number}", "plan": number} for number in range(12)]
CONSENT = {
    "user_id": "anne",
    "phone": "+12125550100",
    "sms_opt_in": 1,
    "sms_opt_in_at": "2026-01-02T03:04:05Z",
}
LONG_AGO = "2026-03-02T14:05:09"


@dataclass
class Seen:
    """What one delivery left behind."""

    regal: Sandbox
    report: dict
    error: str
    log: str

    @property
    def requests(self):
        return self.regal.stats()["requests"]

    @property
    def first(self):
        return self.regal.events()[0]["body"]

    @property
    def at_once(self):
        """Requests under way at the same time: each takes so long, so those that came within that time."""
        came = self.regal._ask(lambda account: [entry.received_at for entry in account.journal.after(0)])
        return max(sum(0 <= one - other < DELAY_S * 0.9 for one in came) for other in came)


@dataclass
class Case:
    """One option.

    :param see: what to look at.
    :param without: what is seen there without the option.
    :param common: options of both deliveries.
    """

    option: dict[str, Any]
    see: Callable[[Seen], Any]
    with_it: Any
    without: Any
    rows: list[dict] = field(default_factory=lambda: PEOPLE[:3])
    common: dict[str, Any] = field(default_factory=dict)
    faults: list[dict] = field(default_factory=list)
    again: bool = False


IDENTIFY = {"call": "identify", "event": None}
LOSE_ONE = [{"on": {"requests": [2], "times": 1}, "do": {"drop": True}}]
ONE_BAD = [*PEOPLE[:2], {"user_id": None, "plan": 3}]
IN_NEW_YORK = {"timezone": "America/New_York"}
CASES = {
    "guarantee": Case(
        {"guarantee": "at_least_once"}, lambda seen: (seen.report["acknowledged"], seen.requests), (3, 4), (2, 3),
        faults=LOSE_ONE,
    ),
    "restart": Case({"restart": True}, lambda seen: (seen.requests, seen.report["status"]),
                    (6, "finished"), (3, "nothing_to_do"), again=True),
    "max_rejected": Case({"max_rejected": 1}, lambda seen: "more than max_rejected=0" in seen.error, False, True,
                         rows=ONE_BAD),
    "max_unknown": Case({"max_unknown": 0}, lambda seen: "more than max_unknown=0" in seen.error, True, False,
                        faults=LOSE_ONE),
    "min_rows": Case({"min_rows": 4}, lambda seen: ("min_rows=4" in seen.error, seen.requests), (True, 0), (False, 3)),
    "max_rows": Case({"max_rows": 2}, lambda seen: ("max_rows=2" in seen.error, seen.requests), (True, 0), (False, 3)),
    "volume": Case({"volume": (1.0, 1.0)}, lambda seen: "volume is not checked yet" in seen.log, True, False),
    "max_refused": Case({"max_refused": 0.01}, lambda seen: ("max_refused=0.01 stops at 1" in seen.error), True, False,
                        faults=[{"do": {"status": 400}}], common={"max_rejected": 3}),
    "rate": Case({"rate": 8}, lambda seen: seen.regal.stats()["worst_window_1s_all"] <= 8, True, False, rows=PEOPLE),
    "max_connections": Case({"max_connections": 2}, lambda seen: seen.at_once <= 2, True, False, rows=PEOPLE,
                            faults=[{"do": {"delay_ms": DELAY_S * 1_000}}]),
    "outage_patience": Case(
        {"outage_patience": 0.5}, lambda seen: ("outage_patience (0.5 s)" in seen.error, seen.report["acknowledged"]),
        (True, 0), (False, 1), rows=PEOPLE[:1],
        faults=[{"on": {"times": 1}, "do": {"status": 503, "retry_after": 1}}],
    ),
    "max_event_age": Case(
        {"max_event_age": None}, lambda seen: (seen.report["rejected"], seen.requests), (0, 1), (1, 0),
        rows=[{"user_id": "a", "timestamp": LONG_AGO}],
    ),
    "dry_run": Case({"dry_run": True}, lambda seen: (seen.report["status"], seen.requests),
                    ("dry_run", 0), ("finished", 3)),
    "plan": Case({"plan": True}, lambda seen: (seen.report["status"], seen.report["left"], seen.requests),
                 ("planned", 3, 0), ("finished", 0, 3)),
    "limit": Case({"limit": 2}, lambda seen: (seen.report["read"], seen.requests), (2, 2), (3, 3)),
    "types": Case({"types": {"plan": str}}, lambda seen: seen.first["properties"]["plan"], "0", 0,
                  rows=[{"user_id": "u0", "plan": 0}]),
    "types-json": Case({"types": {"prefs": "json"}}, lambda seen: seen.first["properties"]["prefs"],
                       {"a": [1]}, '{"a": [1]}', rows=[{"user_id": "u0", "prefs": '{"a": [1]}'}]),
    "values": Case(
        {"values": {"Yes": True, "No": False}},
        lambda seen: (seen.report["rejected"], seen.requests),
        (0, 1), (1, 0), rows=[{**CONSENT, "sms_opt_in": "Yes"}], common={**IDENTIFY, "require_ip": False},
    ),
    "on_shared": Case(
        {"on_shared": "reject"}, lambda seen: (seen.report["rejected"], seen.requests), (2, 1), (0, 3),
        rows=[{"user_id": f"u{n}", "phone": f"212555010{n // 2}"} for n in range(3)], common=IDENTIFY,
    ),
    "on_invalid_phone": Case({"on_invalid_phone": "drop"}, lambda seen: (seen.report["rejected"], seen.requests),
                             (0, 1), (1, 0), rows=[{"user_id": "a", "phone": "12"}], common=IDENTIFY),
    "on_invalid_email": Case({"on_invalid_email": "drop"}, lambda seen: (seen.report["rejected"], seen.requests),
                             (0, 1), (1, 0), rows=[{"user_id": "a", "email": "none@"}], common=IDENTIFY),
    "timezone": Case(
        IN_NEW_YORK, lambda seen: seen.first["originalTimestamp"],
        "2026-03-02 19:05:09 +00:00", "2026-03-02 14:05:09 +00:00",
        rows=[{"user_id": "a", "timestamp": LONG_AGO}], common={"max_event_age": None},
    ),
    "send_nulls": Case({"send_nulls": True}, lambda seen: seen.first["properties"], {"a": 1, "b": None}, {"a": 1},
                       rows=[{"user_id": "a", "a": 1, "b": None}]),
    "column_names": Case({"column_names": "keep"}, lambda seen: seen.first["properties"], {"PLAN": "gold"},
                         {"plan": "gold"}, rows=[{"USER_ID": "a", "PLAN": "gold"}],
                         common={"mapping": {"USER_ID": "user_id"}}),
    "require_ip": Case({"require_ip": False}, lambda seen: seen.report["opt_ins_withheld"], 0, 1, rows=[CONSENT],
                       common=IDENTIFY),
    "max_consent_age": Case(
        {"max_consent_age": timedelta(days=30)}, lambda seen: seen.report["opt_ins_withheld"], 1, 0,
        rows=[{**CONSENT, "sms_opt_in_ip": "203.0.113.9"}], common=IDENTIFY,
    ),
    "opt_out_scope": Case(
        {"opt_out_scope": "person"}, lambda seen: sorted(seen.first["traits"]["phones"]["+12125550100"]),
        ["isPrimary", "smsOptIn", "voiceOptIn"], ["isPrimary", "smsOptIn"],
        rows=[{"user_id": "a", "phone": "+12125550100", "sms_opt_in": False}], common=IDENTIFY,
    ),
    "suppress_named_events": Case(
        {"suppress_named_events": True}, lambda seen: (seen.report["skips"], seen.first.get("name")),
        ({"suppressed": 1}, None), ({}, "Lesson Booked"),
        rows=[{"user_id": "a", "phone": "+12125550100", "sms_opt_in": False}],
    ),
    "contract": Case(
        {"contract": {"events": {"Lesson Booked": {"properties": {"plan": {"maximum": 1}}}}}},
        lambda seen: (seen.report["rejected"], seen.requests), (1, 2), (0, 3),
    ),
    "mapping": Case({"mapping": {"plan": "properties.tariff"}}, lambda seen: seen.first["properties"],
                    {"tariff": 0}, {"plan": 0}, rows=[{"user_id": "u0", "plan": 0}]),
    "event": Case({"event": "Lesson Moved"}, lambda seen: seen.first["name"], "Lesson Moved", "Lesson Booked"),
    "call": Case({"call": "page", "event": None}, lambda seen: seen.first["name"], "pageview", "Lesson Booked"),
}  # fmt: skip
# Each case has its own rate, and therefore a pacer that no other case has slowed down.
RATES = itertools.count(101)


@pytest.fixture(scope="module")
def sandbox():
    with Sandbox() as regal:
        yield regal


@pytest.fixture
def deliver(sandbox, tmp_path, monkeypatch, caplog):
    """Deliver in one way, to a Regal and with a ledger that know of nothing before."""
    tries = itertools.count(1)
    monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "options_ledger")
    monkeypatch.setenv(
        "AIRFLOW_CONN_WAREHOUSE", json.dumps({"conn_type": "sqlite", "host": str(tmp_path / "warehouse.db")})
    )

    def run(way, case, option):
        number = next(tries)
        sandbox.reset()
        sandbox.set_faults(case.faults)
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", sandbox.connection(rate_limit=next(RATES)))
        ledger = {"conn_type": "sqlite", "host": str(tmp_path / f"ledger-{number}.db")}
        monkeypatch.setenv("AIRFLOW_CONN_OPTIONS_LEDGER", json.dumps(ledger))
        options = {"call": "track", "event": "Lesson Booked", **case.common, **option}
        if options["event"] is None:
            del options["event"]
        here = context()
        caplog.clear()
        before = options if not case.again else {**options, "restart": False}
        error = attempt(way, case.rows, here, before)
        if case.again:
            here = context(try_number=2, max_tries=1)
            error = attempt(way, case.rows, here, options)
        return Seen(sandbox, here["ti"].report, error, caplog.text)

    def attempt(way, rows, here, options):
        try:
            WAYS[way](rows, here, warehouse=tmp_path / "warehouse.db", **options)
        except Exception as error:  # noqa: BLE001 - what kind of error it is belongs to other tests
            return str(error)
        return ""

    return run


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CASES)
def test_an_option_does_what_it_says_in_every_way_to_deliver(name, way, deliver):
    case = CASES[name]
    assert case.see(deliver(way, case, {})) == case.without, "without the option"
    assert case.see(deliver(way, case, case.option)) == case.with_it, "with the option"


@pytest.mark.parametrize("way", WAYS)
def test_an_option_nobody_knows_is_refused(way, deliver):
    assert "no_such_option" in deliver(way, CASES["limit"], {"no_such_option": 1}).error


def test_no_option_is_forgotten_here():
    import inspect

    from airflow_provider_regal.operators.bulk import RegalBulkOperator

    known = {name for name, kind in inspect.signature(RegalBulkOperator.__init__).parameters.items()
             if kind.kind is kind.KEYWORD_ONLY}  # fmt: skip
    tested = {option for case in CASES.values() for option in case.option}
    elsewhere = {"regal_conn_id", "only_changed", "key", "ledger_conn_id"}  # test_ledger_options
    assert known - tested <= elsewhere
    assert tested <= known
    assert all(case.with_it != case.without for case in CASES.values()), "a test that cannot fail"


@pytest.mark.parametrize(
    ("option", "complaint"),
    [
        ({"dry_run": "{{ params.dry }}"}, "dry_run must be True or False"),
        ({"plan": "{{ params.plan }}"}, "plan must be True or False"),
        ({"plan": True, "dry_run": True}, "plan and dry_run"),
        ({"dry_run": "False"}, "dry_run must be True or False"),
        ({"only_changed": "True"}, "only_changed must be True or False"),
        ({"send_nulls": 1}, "send_nulls must be True or False"),
        ({"require_ip": "no"}, "require_ip must be True or False"),
        ({"limit": "10"}, "limit must be a whole number, not '10'"),
        ({"min_rows": True}, "min_rows must be a whole number, not True"),
        ({"max_rejected": "2%"}, "max_rejected must be a whole number of rows, or a share"),
        ({"rate": "x"}, "rate must be a whole number, not 'x'"),
        ({"outage_patience": "soon"}, "outage_patience must be seconds or a timedelta"),
        ({"values": {"no": True}}, "is a no"),
        ({"types": {"x": "text"}}, "must be str, int"),
        ({"on_invalid_phone": "skip"}, "must be 'reject' or 'drop'"),
        ({"on_shared": "merge"}, "on_shared must be 'report' or 'reject'"),
        ({"call": "identify", "event": "Booked"}, "event names track events"),
        ({"mapping": {"x": 5}}, "must be text, or None"),
        ({"mapping": {"x": ["properties.a", 5]}}, "each entry of the list must be text, not a int"),
        ({"mapping": {"x": ["properties.a", "nowhere"]}}, "a list of such names, or None"),
        ({"mapping": ["x"]}, "mapping must be a dictionary"),
        ({"contract": "contract.json"}, "contract must be a dictionary, an absolute path, or a URI"),
        ({"contract": {"Order Placed": {}}}, "Order Placed is not part of a contract"),
        ({"contract": {"traits": {}}}, 'has no "events", so track events cannot be checked'),
        ({"contract": {"events": {}}, "event": "Booked"}, "events have no 'Booked'"),
    ],
)
def test_an_option_that_cannot_be_right_is_an_error_when_the_dag_is_written(option, complaint):
    from airflow_provider_regal.operators.rows import RegalRowsOperator

    with pytest.raises(ValueError, match=complaint):
        RegalRowsOperator(task_id="t", rows=[], **{"call": "track", **option})


@pytest.mark.parametrize("option", ["full_resync", "known_to_regal"])
def test_a_switch_of_a_sync_is_a_boolean(option):
    from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator

    with pytest.raises(ValueError, match=f"{option} must be True or False"):
        RegalOptInSyncOperator(task_id="t", rows=[], **{option: "False"})


@pytest.mark.parametrize("way", ["RegalRowsOperator", "hook.deliver"])
def test_one_dictionary_is_one_row(way, deliver):
    seen = deliver(way, replace(CASES["limit"], rows=PEOPLE[0]), {})
    assert (seen.report["read"], seen.report["acknowledged"]) == (1, 1)


def test_a_restart_that_renders_as_neither_is_an_error_that_names_it(deliver):
    assert "restart must be True or False, or render as one of them, not as 'None'" in deliver(
        "RegalRowsOperator", CASES["limit"], {"restart": "None"}
    ).error  # fmt: skip
