"""The account: accepts requests, answers them, and processes accepted ones afterwards.

``receive`` runs while the client waits and only decides; ``process_next`` does the work later, as in Regal: a 200 means
that the event was accepted, not that it had any effect. No network and no waiting here.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from airflow_provider_regal.sandbox.answers import Answer, refused, scripted
from airflow_provider_regal.sandbox.bodies import Repeats, compact
from airflow_provider_regal.sandbox.clock import Clock, SystemClock
from airflow_provider_regal.sandbox.faults import FaultPlan, Rule
from airflow_provider_regal.sandbox.gate import Arrival, Verdict, check_key_and_size, check_shape
from airflow_provider_regal.sandbox.journal import Entry, Journal
from airflow_provider_regal.sandbox.processing.applying import apply
from airflow_provider_regal.sandbox.processing.contacts import Contact
from airflow_provider_regal.sandbox.processing.contract import deviations
from airflow_provider_regal.sandbox.processing.directory import Directory
from airflow_provider_regal.sandbox.processing.findings import Finding, Tally
from airflow_provider_regal.sandbox.processing.first_writes import FirstWrites
from airflow_provider_regal.sandbox.processing.reading import Reading, read
from airflow_provider_regal.sandbox.settings import SandboxSettings
from airflow_provider_regal.sandbox.window import SlidingWindow


class Account:
    """One Regal account, in memory.

    :param settings: how it behaves.
    :param clock: its clock.
    :param rules: scripted faults.
    """

    def __init__(self, settings: SandboxSettings, clock: Clock | None = None, rules: Sequence[Rule] = ()) -> None:
        self.settings = settings
        self.clock: Clock = clock or SystemClock()
        self.plan = FaultPlan(rules)
        self._begin()

    def _begin(self) -> None:
        self.requests = 0
        self.faults_fired = 0
        self.duplicates = 0
        self.duplicate_events = 0
        self.accepted = SlidingWindow()
        self.arrivals = SlidingWindow()
        self.journal = Journal(self.settings.keep_events, self.settings.keep_body_bytes)
        self.directory = Directory(self.settings.lookup_order, self.settings.keep_contacts)
        self.tally = Tally()
        self.first_writes = FirstWrites()
        self._repeats = Repeats()
        self._inbox: deque[tuple[Entry, dict[str, Any]]] = deque()
        self._inbox_bytes = 0

    def reset(self) -> None:
        """Delete all data and counts; the fault rules stay and count from zero."""
        self._begin()
        self.plan.rearm()

    def set_rules(self, rules: Sequence[Rule]) -> None:
        """Replace the fault rules."""
        self.plan = FaultPlan(rules)

    def set_api_key(self, api_key: str) -> None:
        """Revoke the API key, and expect another one from now on.

        :raises ValueError: it is not a valid key.
        """
        self.settings = replace(self.settings, api_key=api_key)

    @property
    def pending(self) -> int:
        """The number of events accepted and not yet processed."""
        return len(self._inbox)

    @property
    def is_busy(self) -> bool:
        """Whether the queue is half full: then processing comes first."""
        settings = self.settings
        return 2 * self.pending > settings.max_pending or 2 * self._inbox_bytes > settings.max_pending_bytes

    def receive(self, arrival: Arrival) -> tuple[Entry, Answer]:
        """Handle one request: decide its answer, record it, and queue it if it is to be stored."""
        now, wall = self.clock.monotonic(), self.clock.wall()
        self.requests += 1
        self.arrivals.add(now)
        verdict = check_key_and_size(arrival, self.settings)
        answer = verdict.refusal or self._let_through(verdict, arrival, now, wall)
        if answer.accepted:
            self.accepted.add(now)
        document = verdict.document
        entry = Entry(
            number=self.requests,
            received_at=wall,
            answer=answer.label,
            stored=answer.store and document is not None,
            raw=None if document is None else compact(document),
            rule=answer.rule,
            name=verdict.name,
            findings=list(verdict.findings),
        )
        self.journal.add(entry)
        self.tally.add(entry.number, entry.findings)
        if entry.stored and document is not None:
            self._inbox.append((entry, document))
            self._inbox_bytes += len(entry.raw or b"")
        return entry, answer

    def _let_through(self, verdict: Verdict, arrival: Arrival, now: float, wall: float) -> Answer:
        limit = self.settings.rate_limit
        if limit is not None and self.accepted.count(now) >= limit:
            return refused(429, retry_after=self.settings.retry_after)
        if self.pending >= self.settings.max_pending or self._inbox_bytes >= self.settings.max_pending_bytes:
            return refused(503, retry_after=1)
        taken = self.plan.take(self.requests, verdict.name)
        if taken is not None:
            self.faults_fired += 1
            rule, do = taken
            return scripted(do, rule, wall=wall)
        shaped = check_shape(verdict, arrival.body or b"")
        verdict.findings = shaped.findings
        return shaped.refusal or Answer()

    def process_next(self) -> bool:
        """Process the event that has waited longest; return whether there was one."""
        if not self._inbox:
            return False
        entry, document = self._inbox.popleft()
        self._inbox_bytes -= len(entry.raw or b"")
        before = len(entry.findings)
        entry.repeats = self._repeats.seen(document, entry.number)
        if entry.repeats is not None:
            self.duplicates += 1
            self.duplicate_events += entry.name is not None
            entry.findings.append(Finding("duplicate", f"the same body as request {entry.repeats}"))
        entry.findings += deviations(document)
        reading = read(document)
        entry.findings += reading.findings + self._file(reading, entry)
        entry.processed = True
        self.tally.add(entry.number, itertools.islice(entry.findings, before, None))
        return True

    def _file(self, reading: Reading, entry: Entry) -> list[Finding]:
        if not reading.identifies:
            return [Finding("nothing_stored", "nothing stored: no usable identifier")]
        found = self.first_writes.check(reading, entry.number)
        contact = self.directory.find(reading) or self.directory.create(entry.received_at)
        found += apply(reading, contact, self.directory, event=entry.number, now=entry.received_at)
        entry.contact_id = contact.id
        if not contact.visible:
            found.append(Finding("hidden_profile", "no phone or email is known: kept on a hidden profile"))
        return found

    def contacts(self, *, hidden: bool = False) -> list[Contact]:
        """Return contacts, most recently changed first; with ``hidden`` also profiles without phone and email."""
        return [contact for contact in self.directory.newest_first() if hidden or contact.visible]

    def stats(self) -> dict[str, Any]:
        """Add up the counts, as the side API shows them."""
        visible = sum(1 for _ in self.contacts())
        return {
            "requests": self.requests,
            "by_status": self.journal.counts(),
            "stored": self.journal.stored,
            "pending": self.pending,
            "contacts": visible + self.directory.forgotten_contacts,
            "hidden_profiles": len(self.directory) - visible + self.directory.forgotten_hidden,
            "duplicates": self.duplicates,
            "duplicate_events": self.duplicate_events,
            "rate_limit": self.settings.rate_limit,
            "rate_now": self.arrivals.count(self.clock.monotonic()),
            "worst_window_1s": self.accepted.worst,
            "worst_window_1s_all": self.arrivals.worst,
            "contract_findings": self.tally.to_json("contract"),
            "behaviour_findings": self.tally.to_json("behaviour"),
            "type_mismatches": self.first_writes.to_json(),
            "property_names": self.first_writes.property_names,
            "faults_fired": self.faults_fired,
            "forgotten": {"events": self.journal.forgotten, "contacts": self.directory.forgotten_contacts},
        }
