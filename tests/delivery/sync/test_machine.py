"""Any history of consents - late, repeated, out of order, by any path, with crashes - ends in the newest decision.

The machine tracks what was read; arrivals are read from the local Regal.
"""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from airflow_provider_regal.errors import RetryLaterError
from airflow_provider_regal.ledger.database import sqlite_engine
from airflow_provider_regal.testing import Sandbox
from tests.delivery.consents import IP, NOW, known, phone
from tests.delivery.sync.syncing import dies_after, hours_pass, run_sync
from tests.ledger.view import LedgerView

LOOKING = os.environ.get("REGAL_EXAMPLES")
CHANNELS = ("sms", "email")  # few, so that histories overlap

people = st.sampled_from([1, 1, 2])
# identifier, channel, subscribed, minutes ago
consents = st.tuples(people, st.sampled_from(CHANNELS), st.booleans(), st.integers(0, 4))
# The time of an opt-in may be in the future, and past when it is retried: then the order is undefined.
too_early = st.tuples(people, st.sampled_from(CHANNELS), st.just(True), st.integers(-3, -1))
crashes = st.one_of(
    st.none(),
    st.just(("down", 0)),
    st.tuples(st.sampled_from(["lost", "lost but stored", "cut off"]), st.integers(1, 4)),
    st.tuples(st.just("ledger"), st.integers(3, 25)),
)


def whose(number, channel):
    return f"a{number}@example.com" if channel == "email" else phone(number)


class Histories(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        # In memory if possible, since every step syncs to disk.
        self.folder = tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None)
        self.path = Path(self.folder.name) / "ledger.db"
        self.regal = Sandbox()
        self.regal.start()
        self.minute = 0
        self.runs = 0
        self.table = []
        self.read = {}  # identifier, channel -> (time, is an opt-out) of the newest decision read
        self.barriers = {}
        self.perhaps = {}  # opt-outs of an interrupted reading: they may already block opt-ins
        self.seen = 0
        self.crashed = None  # the input of the next try

    @property
    def now(self):
        return NOW + timedelta(minutes=self.minute)

    def told(self, number, channel, subscribed, ago):
        at = None if ago is None else (self.now - timedelta(minutes=ago)).isoformat()
        return {
            "user_id": f"u{number}", "phone": phone(number), "email": whose(number, "email"), "channel": channel,
            "subscribed": subscribed, "timestamp": at, "ip": IP,
        }  # fmt: skip

    # actions

    @rule(said=st.lists(consents, min_size=1, max_size=4))
    def rows_come_into_the_table(self, said):
        self.minute += 1
        self.table += [self.told(*one) for one in said]

    @precondition(lambda self: self.table)
    @rule(keep=st.integers(0, 3))
    def rows_leave_the_table(self, keep):
        self.table = self.table[-keep:] if keep else []

    @precondition(lambda self: self.crashed is None)
    @rule(number=people, channel=st.sampled_from(CHANNELS))
    def somebody_opts_out_without_saying_when(self, number, channel):
        self.minute += 1
        self.deliver([self.told(number, channel, False, None)], None)

    @rule(crash=crashes, again=st.booleans(), resync=st.booleans(), order=st.randoms(use_true_random=False))
    def the_table_is_synced(self, crash, again, resync, order):
        self.minute += 1
        rows = self.table * (1 + again)
        order.shuffle(rows)
        self.deliver(rows, crash, full_resync=resync)

    @rule(said=st.lists(consents, min_size=1, max_size=4), crash=crashes)
    def a_late_file_is_synced(self, said, crash):
        self.minute += 1
        self.deliver([self.told(*one) for one in said], crash)

    @rule(said=st.lists(consents | too_early, min_size=1, max_size=5), crash=crashes, only_changed=st.booleans())
    def contacts_are_identified_with_opt_ins(self, said, crash, only_changed):
        self.minute += 1
        told = [self.told(*one) for one in said]
        if only_changed:
            told = list({one["user_id"]: one for one in told}.values())
        self.deliver(told, crash, sync=False, only_changed=only_changed)

    @precondition(lambda self: self.crashed is not None)
    @rule(crash=crashes)
    def the_crashed_delivery_is_tried_again(self, crash):
        self.minute += 1
        self.crashed["number"] += 1
        self.run(self.crashed, crash)

    # checks used by actions

    def deliver(self, told, crash, *, sync=True, **options):
        self.runs += 1
        rows = told if sync else [in_wide_form(one) for one in told]
        given = {"rows": rows, "told": told, "run": f"run-{self.runs}", "number": 1, "sync": sync}
        if sync:
            options |= {"initial": "send", "max_change_ratio": None}
        self.run({**given, "options": options, "reading": True}, crash)

    def run(self, given, crash):
        kind, after = crash or (None, 0)
        self.regal.set_faults(faults_of(kind, self.regal.stats()["requests"] + after))
        opened = []

        def engine():
            opened.append(sqlite_engine(self.path))
            if kind == "ledger":
                dies_after(opened[0], after)
            return opened[0]

        try:
            run_sync(
                given["rows"], self.regal, given["run"], None, engine=engine, number=given["number"], now=self.now,
                lease_s=0, sync=given["sync"], outage_patience=0.03, **given["options"],
            )  # fmt: skip
            self.crashed = None if given is self.crashed else self.crashed
        except RetryLaterError:
            self.crashed = given
        self.regal.set_faults([])
        hours_pass(self.path)
        if given["reading"] and self.was_read(given["run"]):
            given["reading"] = False
            self.note(given["told"])
        elif given["reading"]:
            self.note_perhaps(given["told"])
        self.check_what_arrived()

    def was_read(self, run):
        """Return whether the rows of a run were read to their end."""
        found = LedgerView(self.path).deliveries(run)
        return bool(found) and found[-1].kept_rows is not None

    def note(self, told):
        """Keep what was read, with the time at which what has none counts as given."""
        for one in told:
            key = (one["email"] if one["channel"] == "email" else one["phone"], one["channel"])
            at = one["timestamp"] and datetime.fromisoformat(one["timestamp"])
            newest = self.read.get(key)
            at = at or self.now
            if at > self.now:
                continue
            self.read[key] = max(newest or (at, not one["subscribed"]), (at, not one["subscribed"]))
            if not one["subscribed"]:
                self.barriers[key] = max(self.barriers.get(key, at), at)

    def note_perhaps(self, told):
        """Keep which opt-outs may have been read."""
        for one in told:
            if not one["subscribed"]:
                key = (one["email"] if one["channel"] == "email" else one["phone"], one["channel"])
                at = datetime.fromisoformat(one["timestamp"]) if one["timestamp"] else self.now
                self.perhaps[key] = max(self.perhaps.get(key, at), at)

    # invariants

    def check_what_arrived(self):
        events = self.regal.events()
        for one in events[self.seen :]:
            for key, subscribed, at in opt_ins_of(one["body"]):
                assert not subscribed or key not in self.barriers or at > self.barriers[key], "older than an opt-out"
        self.seen = len(events)

    def check_what_the_ledger_says(self):
        """Nothing that did not arrive: what was withheld by one try must not be marked by the next."""
        arrived = {told for one in self.regal.events() for told in opt_ins_of(one["body"])}
        for key, (subscribed, evidence, *_) in known(self.path).items():
            at = evidence and datetime.fromisoformat(evidence).replace(microsecond=0)
            timeless = not subscribed and (key, False, None) in arrived
            assert subscribed is None or timeless or (key, bool(subscribed), at) in arrived, "never sent"

    def teardown(self):
        try:
            self.minute += 1
            self.regal.set_faults([])
            rows = [self.newest_row(*key, *word) for key, word in self.read.items()]
            self.deliver(rows, None)
            for (identifier, channel), (at, opted_out) in self.read.items():
                member = "emails" if channel == "email" else "phones"
                contact = self.regal.contact(**{member[:-1]: identifier})
                status = contact[member][identifier][channel]["status"]
                barred = not opted_out and self.perhaps.get((identifier, channel), at - timedelta(1)) >= at
                assert status == ("Unsubscribed" if opted_out else "Subscribed") or barred
            self.check_what_the_ledger_says()
        finally:
            self.regal.stop()
            with suppress(OSError):
                self.folder.cleanup()

    def newest_row(self, identifier, channel, at, opted_out):
        number = next(number for number in (1, 2) if whose(number, channel) == identifier)
        return {**self.told(number, channel, not opted_out, 0), "timestamp": at.isoformat()}


def in_wide_form(one):
    channel = one["channel"]
    return {
        **{name: one[name] for name in ("user_id", "phone", "email")},
        f"{channel}_opt_in": one["subscribed"],
        f"{channel}_opt_in_at": one["timestamp"],
        f"{channel}_opt_in_ip": one["ip"],
    }


def faults_of(kind, after):
    do = {
        "lost": {"status": 500, "store": False},
        "lost but stored": {"status": 500, "store": True},
        "cut off": {"drop": True},
        "down": {"status": 503, "retry_after": 900, "store": False},
    }.get(kind)
    return [{"on": {"from": max(after, 1)}, "do": do}] if do else []


def opt_ins_of(body):
    for member in ("phones", "emails"):
        for identifier, info in body.get("traits", {}).get(member, {}).items():
            for channel in CHANNELS:
                if (opt_in := info.get(f"{channel}OptIn")) is not None:
                    at = opt_in.get("timestamp")
                    yield (
                        (identifier, channel),
                        opt_in["subscribed"],
                        at and datetime.fromisoformat(at.replace(" +", "+")),
                    )


TestHistories = pytest.mark.slow(Histories.TestCase)
TestHistories.settings = settings(
    max_examples=int(LOOKING or 15),
    stateful_step_count=int(os.environ.get("REGAL_STEPS", "10")),
    derandomize=not LOOKING,
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate, Phase.shrink] if LOOKING else [Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
