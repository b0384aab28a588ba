"""Metrics of deliveries: what a StatsD server receives; documents and dashboard name exactly these."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.delivery.delivery import Delivery
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import CheckRegalError, InvalidEventError, RefusedEventError, RetryLaterError
from airflow_provider_regal.hooks._ledger import open_account
from airflow_provider_regal.hooks._metrics import COUNTERS, EVERY_S, TIMINGS, EventMetrics, Metrics
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger.deliveries import Counts, Place
from airflow_provider_regal.operators.rows import RegalRowsOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from tests.operators.ways import context
from tests.people import SECRETS

DOCS = Path(__file__).parents[2] / "docs"
TRACK = {"call": "track", "event": "Lesson Booked"}
pytest_plugins = ["tests.statsd"]


def people(count):
    return [{"user_id": f"u{number}"} for number in range(count)]


def deliver(rows, here=None, **options):
    return RegalRowsOperator(task_id="t", rows=rows, **{**TRACK, **options}).execute(here or context())


def test_every_row_is_told_once_with_its_outcome(regal, statsd, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(account="Shop, west"))
    regal.set_faults(
        [
            {"on": {"requests": [2]}, "do": {"status": 400}},
            {"on": {"requests": [3]}, "do": {"status": 429, "retry_after": 0}},
            {"on": {"requests": [4]}, "do": {"status": 500}},
        ]
    )
    rows = [*people(6), {"user_id": None}, {"user_id": "u", "phone": SECRETS["phone"] + "x"}]
    with pytest.raises(AirflowFailException):
        deliver(rows, max_connections=1)
    counted = statsd.counters("reason", "outcome")
    assert counted["read",] == 8
    assert counted["acknowledged",] == 4
    assert (counted["rejected", "invalid"], counted["rejected", "http_400"]) == (2, 1)
    assert counted["unknown", "http_500"] == 1
    assert (counted["requests",], counted["repeats",], counted["answers_429",]) == (7, 1, 1)
    assert counted["deliveries", "failed"] == 1
    told = statsd.read()
    assert {(tags["account"], tags["call"]) for _, tags, _, _ in told} == {("shop_west", "track")}
    assert {name for name, _, _, kind in told if kind == "ms"} == set(TIMINGS)
    assert not [secret for secret in SECRETS.values() if secret in "".join(statsd.lines)]
    (duration,) = [value for name, _, value, _ in told if name == "duration"]
    (latency,) = [value for name, _, value, _ in told if name == "latency_median"]
    (rate,) = [value for name, _, value, _ in told if name == "rate"]
    assert 0 < latency < duration < 60_000
    assert rate >= 7 / duration * 1_000 * 0.9, "of the seconds in which it sent, which are no more than all"


def test_a_retry_tells_only_what_it_did(regal, statsd):
    regal.set_faults(
        [
            {"on": {"requests": [1]}, "do": {"status": 400}},
            {"on": {"from": 3}, "do": {"status": 503, "retry_after": 900}},
        ]
    )
    with pytest.raises(RetryLaterError):
        deliver(people(5), max_connections=1, outage_patience=0.1, max_rejected=1, max_refused=None)
    regal.set_faults([])
    deliver(people(5), context(try_number=2), max_rejected=1, max_refused=None)
    counted = statsd.counters("reason", "outcome")
    assert (counted["read",], counted["acknowledged",], counted["rejected", "http_400"]) == (5, 4, 1)
    assert (counted["deliveries", "stopped"], counted["deliveries", "finished"]) == (1, 1)
    assert counted["requests",] == regal.stats()["requests"]


def test_an_outage_is_counted(regal, statsd):
    regal.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 0}}])
    with pytest.raises(RetryLaterError):
        deliver(people(30), outage_patience=0.5)
    assert statsd.counters()["outages",] == 1


def test_what_is_skipped_withheld_and_owed_is_told(regal, statsd):
    contact = {"user_id": "u", "phone": "+12125550101", "sms_opt_in": True}
    deliver([contact], call="identify", event=None, only_changed=True)
    deliver([contact], context(run_id="next"), call="identify", event=None, only_changed=True)
    regal.set_faults([{"on": {"from": 1}, "do": {"status": 503, "retry_after": 900}}])
    stops = {"user_id": "v", "phone": "+12125550102", "sms_opt_in": False}
    with pytest.raises(RetryLaterError):
        deliver([stops], context(run_id="last"), call="identify", event=None, outage_patience=0.1)
    counted = statsd.counters("reason")
    assert counted["skipped", "unchanged"] == 1
    assert counted["opt_ins_withheld",] == 1
    assert counted["opt_outs_owed",] == 1


def test_an_event_operator_tells_and_a_dry_run_does_not(regal, statsd):
    deliver(people(3), dry_run=True)
    assert statsd.read() == []
    RegalTrackOperator(task_id="t", event="Late", user_id="u").execute(context())
    assert statsd.counters()["acknowledged",] == 1


def test_single_events_are_told_each_with_its_outcome(regal, statsd, monkeypatch):
    monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal.connection(account="Shop, west"))
    regal.set_faults(
        [
            {"on": {"requests": [2]}, "do": {"status": 400}},
            {"on": {"requests": [3]}, "do": {"status": 500}},
            {"on": {"requests": [4]}, "do": {"status": 503, "retry_after": 0}},
        ]
    )
    hook = RegalHook()
    hook.track("Late", user_id="u", message_id="m-1")
    with pytest.raises(RefusedEventError):
        hook.track("Late", user_id="u")
    with pytest.raises(CheckRegalError):
        hook.page(user_id="u", name="Pricing")
    hook.identify(user_id="u", phone=SECRETS["phone"], opt_in=[{"channel": "sms", "subscribed": True}])
    hook.track("Late", user_id="u", message_id="m-1")
    counted = statsd.counters("call", "reason")
    assert counted["read", "track"] == 3
    assert counted["acknowledged", "track"] == counted["acknowledged", "identify"] == 1
    assert counted["rejected", "track", "http_400"] == 1
    assert counted["unknown", "page", "http_500"] == 1
    assert counted["skipped", "track", "duplicate"] == 1
    assert (counted["requests", "identify"], counted["repeats", "identify"]) == (2, 1)
    assert counted["opt_ins_withheld", "identify"] == 1
    told = statsd.read()
    assert {tags["account"] for _, tags, _, _ in told} == {"shop_west"}
    timed = Counter((name, tags["call"]) for name, tags, _, kind in told if kind == "ms")
    # A skipped event has no timing.
    assert timed == {
        (name, call): count
        for name in ("latency_median", "latency_p99")
        for call, count in (("track", 2), ("page", 1), ("identify", 1))
    }
    assert not [secret for secret in SECRETS.values() if secret in "".join(statsd.lines)]


def test_the_latency_of_a_single_event_is_that_of_its_last_answer(regal, statsd):
    regal.set_faults(
        [
            {"on": {"requests": [1]}, "do": {"status": 503, "retry_after": 1}},
            {"on": {"requests": [2]}, "do": {"delay_ms": 300}},
        ]
    )
    RegalHook().identify(user_id="u")
    (latency,) = [value for name, _, value, _ in statsd.read() if name == "latency_median"]
    assert 300 <= latency < 900, "in milliseconds, without the wait between the two"


def test_an_event_that_is_not_sent_is_told_by_nothing(regal, statsd, monkeypatch):
    with pytest.raises(InvalidEventError):
        RegalHook().track("Late", user_id="u", phone="12")
    monkeypatch.setenv("AIRFLOW__REGAL__DRY_RUN", "True")
    RegalHook().track("Late", user_id="u")
    assert statsd.read() == []


def test_metrics_that_fail_do_not_stop_a_single_event(regal, caplog):
    metrics = EventMetrics("a", stats=Told(OSError(SECRETS["phone"])))
    metrics.tell("track", Counts(), Counts(read=1, acknowledged=1), reason="", latency_s=0.1)
    assert SECRETS["phone"] not in caplog.text


def test_a_delivery_with_nothing_to_do_is_one_delivery(regal, statsd):
    deliver(people(1))
    deliver(people(1), context(try_number=2))
    counted = statsd.counters("outcome")
    assert counted["deliveries", "nothing_to_do"] == 1
    assert counted["acknowledged",] == 1


class Told:
    """A backend of metrics that keeps what it is told, or fails."""

    def __init__(self, error=None):
        self.counted, self.timed, self._error = [], [], error

    def incr(self, stat, count=1, *, tags):
        if self._error:
            raise self._error
        self.counted.append((stat, count))

    def timing(self, stat, dt, *, tags):
        self.timed.append(stat)


def deliver_watched(metrics, on_progress, count=40):
    """Deliver with a look at it every few milliseconds."""
    hook = RegalHook()
    account = open_account(hook.target, None, source="")
    delivery = Delivery(
        place=Place("d", "r", "t", -1, None),
        rows=lambda held: people(count),
        fingerprint="",
        settings=DeliverySettings.of(**TRACK, rate=100),
        target=hook.target,
        account=account,
        on_begin=metrics.begin,
        on_progress=lambda line: on_progress(delivery),
        progress_every_s=0.02,
    )
    try:
        report = delivery.run()
        metrics.end(delivery, report)
    finally:
        account.database.close()
    return report


def test_it_is_told_once_a_minute_while_it_runs(regal):
    told, now = Told(), [0.0]
    metrics = Metrics(account="a", call="track", stats=told, clock=lambda: now[0])
    looks = []

    def look(delivery):
        before = len(told.counted)
        metrics.tick(delivery)
        looks.append((now[0], len(told.counted) > before))
        now[0] += 10.0

    deliver_watched(metrics, look)
    emitted_at = [at for at, emitted in looks if emitted]
    assert len(emitted_at) > 2
    assert {later - at for at, later in pairwise(emitted_at)} == {EVERY_S}
    assert EVERY_S < 60
    assert sum(count for stat, count in told.counted if stat == "regal.acknowledged") == 40
    assert "regal.latency_p99" in told.timed


def test_metrics_that_fail_do_not_stop_a_delivery(regal, caplog):
    metrics = Metrics(account="a", call="track", stats=Told(OSError(SECRETS["phone"])), clock=lambda: 0.0)
    assert deliver_watched(metrics, metrics.tick, count=3).acknowledged == 3
    assert SECRETS["phone"] not in caplog.text


def documented():
    page = (DOCS / "metrics.md").read_text()
    return {
        name: tag or None for name, tag in re.findall(r"^\| `regal\.(\w+)` \| (?:`(\w+)`)? ?\|", page, re.MULTILINE)
    }


def test_the_page_names_every_metric_with_its_tag_and_no_other():
    assert documented() == {**COUNTERS, **dict.fromkeys(TIMINGS)}


def test_the_dashboard_asks_only_for_metrics_that_there_are():
    dashboard = json.loads((DOCS / "grafana" / "regal.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    assert len(queries) >= len(dashboard["panels"]) > 8
    for query in queries:
        names = re.findall(r"airflow_regal_(\w+)\{", query)
        assert names, query
        for name in names:
            assert name in (TIMINGS if "quantile=" in query else COUNTERS), query
        for tags in re.findall(r"by \(([^)]*)\)", query):
            known = {"account", "call", *(COUNTERS.get(name) for name in names)}
            assert set(tags.split(", ")) <= known, query
    asked = {name for query in queries for name in re.findall(r"airflow_regal_(\w+)\{", query)}
    assert asked == {*COUNTERS, *TIMINGS} - {"rate"}
