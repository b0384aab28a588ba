"""Judge a storm by what arrived: the local Regal's journal and the front's exchanges, not the package's own report.

Each check is a promise of ``docs/delivery-guarantees.md``, and yields violations.
"""

from __future__ import annotations

import bisect
import json
import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

from benchmarks.pacing import MOST_STALL_MS, worst_window
from tests.chaos.front import Exchange
from tests.chaos.happening import Happened, OneTry
from tests.consent_model.received import decisions_in

#: A commit settles a row within a second, on a busy machine within 3: nothing is sent after an older commit.
COMMITTED_S = 4.0
LEAST_AHEAD, AHEAD_S = 32, 0.25
#: The latest time for requests in flight to arrive after Regal asked to wait.
UNDER_WAY_S = 0.3
MOST_TRIES_OF_A_ROW = 10
#: Number of processes per core from which even a server without trouble may take seconds to answer.
MOST_LOAD, CORES = 3, os.cpu_count() or 1
UNAVAILABLE = 503

Key = int | str


@dataclass(frozen=True)
class Verdict:
    """The result of a storm.

    :param broken: violated promises.
    :param late: the machine was too busy for a judgment: the server stalled in the second in which the rate was
        exceeded, or a try was not answered during calm, where processes wait for a core.
    """

    broken: list[str]
    late: bool
    repeats: int
    unknown: int
    worst_window: int
    stall_ms: float
    counts: dict[str, int] = field(default_factory=dict)


def judge(found: Happened) -> Verdict:
    """Judge a storm."""
    court = Court(found)
    broken, rate, calm = [*court.all_but_the_machine()], [*court.rate()], [*court.calm()]
    stood_still = not rate or court.stall_ms > MOST_STALL_MS
    late = bool(rate or calm) and not broken and stood_still and (not calm or found.load > MOST_LOAD * CORES)
    return Verdict(
        broken=broken + rate + calm,
        late=late,
        repeats=court.repeats,
        unknown=sum(line["status"] == "unknown" for line in found.outcomes),
        worst_window=court.worst,
        stall_ms=round(court.stall_ms, 1),
        counts=court.counts(),
    )


class Court:
    """The checks.

    A row of the source is identified by its number. The rows of a sync have none, and those of one person may be sent
    in one request: then the request is identified, and outcomes are counted for each phone.

    :ivar rows: the exchanges of each row, or request of a sync.
    """

    def __init__(self, found: Happened) -> None:
        self.found, self.storm = found, found.storm
        self.once = found.storm.guarantee == "at_most_once"
        self.sync = found.storm.source == "sync"
        self.repeats = 0
        self.rows: dict[Key, list[Exchange]] = defaultdict(list)
        for exchange in found.exchanges:
            key = key_of(exchange.body)
            if key is not None and (self.sync or isinstance(key, int)):
                self.rows[key].append(exchange)
        self.status = {line["position"]: line["status"] for line in found.outcomes}
        self._begins = [one.began for one in found.tries]

    def all_but_the_machine(self) -> Iterator[str]:
        """Check what does not depend on how busy the machine is."""
        yield from self.ends()
        if not self.found.delivery:
            yield "there is no delivery in the ledger"
            return
        yield from self.identity()
        yield from self.nothing_lost()
        yield from self.twice()
        yield from self.unknowns()
        yield from self.asked_to_wait()
        yield from self.order()
        yield from self.consent()
        yield from (f"leaked: {leak}" for leak in self.found.leaks)

    # -- tries

    def ends(self) -> Iterator[str]:
        """A try that ends by itself has finished, or leaves rows for the next one."""
        last = self.found.tries[-1]
        if last.ended not in ("finished", "failed"):
            yield f"it did not finish: try {last.number} ended as {last.ended}, {last.error[:200]}"
        if last.ended == "failed" and not (self.found.report or {}).get("opt_outs_unknown"):
            yield f"try {last.number} failed for good: {last.error[:300]}"
        for one in self.found.tries:
            if one.ended != "retry" or one.beyond_thresholds:
                continue
            if not one.error.startswith("RetryLaterError"):
                yield f"try {one.number} ended with {one.error[:300]}"
            if one.state != "stopped":
                yield f"try {one.number} was to be retried, and its delivery is {one.state}"

    def calm(self) -> Iterator[str]:
        """A try without troubles finishes."""
        for one in self.found.tries:
            stormy = any(spell.began < one.over and spell.over > one.began for spell in self.found.spells)
            if one.ended == "retry" and one.stopped_at is None and not stormy and not one.beyond_thresholds:
                yield f"try {one.number} began and ended in calm, and did not finish: {one.error[:200]}"

    def identity(self) -> Iterator[str]:
        """Every row is accounted for, in the delivery and in the outcomes."""
        line, rows = self.found.delivery, self.storm.rows
        counts = {name: line[name] for name in ("acknowledged", "rejected", "unknown", "skipped")}
        if line["read_rows"] != rows or sum(counts.values()) != rows:
            yield f"read {line['read_rows']} of {rows}, and accounted for {counts}"
        lines = Counter(self.status.values())
        for status in ("acknowledged", "rejected", "unknown"):
            if lines[status] > counts[status] or (lines[status] < counts[status] and not self.sync):
                yield f"{counts[status]} rows are {status}, and {lines[status]} outcomes are"
        kept = sum(1 for line in self.found.outcomes if line["payload"] is not None)
        if kept != lines["rejected"] + lines["unknown"]:
            yield f"{kept} dead letters for {dict(lines)}"
        expected = {"finished"} if self.found.tries[-1].ended == "finished" else {"finished", "failed"}
        if line["state"] not in expected or (line["state"] == "finished" and self.found.chunks):
            yield f"the delivery is {line['state']}, and {self.found.chunks} chunks of rows are kept"
        if not self.sync and counts["rejected"] != self.storm.invalid:
            yield f"{counts['rejected']} rows were rejected instead of {self.storm.invalid}"
        if not self.sync and counts["skipped"]:
            yield f"{counts['skipped']} rows were skipped"

    def nothing_lost(self) -> Iterator[str]:
        """Regal has, and has acknowledged, everything that counts as acknowledged."""
        stored: set[Key] = {
            key
            for event in self.found.journal
            if event["stored"] and isinstance(event["answer"], int) and 200 <= event["answer"] < 300
            if (key := key_of(event["body"])) is not None
        }
        if self.sync:
            at_regal = Counter(phone_of(key) for key in stored)
            told = Counter(line["phone"] for line in self.found.outcomes if line["status"] == "acknowledged")
            lost: list[Any] = [phone for phone, lines in told.items() if lines > at_regal[phone]]
        else:
            lost = [row for row, status in self.status.items() if status == "acknowledged" and row not in stored]
        if lost:
            yield f"{len(lost)} rows are acknowledged and not at Regal: {lost[:10]}"
        odd = [row for row, status in self.status.items() if status == "unknown"]
        if not self.once and not self.sync and not all(len(self.rows[row]) >= MOST_TRIES_OF_A_ROW for row in odd):
            yield f"{len(odd)} rows are unknown under at_least_once: {odd[:10]}"

    def twice(self) -> Iterator[str]:
        """A row is sent again only if the last answer allows it, or the process was killed before the commit."""
        for number, exchanges in self.rows.items():
            for before, after in pairwise(exchanges):
                if _not_applied(before) and before.told_at is not None:
                    continue
                if self.once:
                    yield f"row {number} was sent again after {_said(before)}"
                    continue
                self.repeats += 1
                if _acknowledged(before) and before.read and not self._killed_after(before):
                    late = round(after.at - before.at, 2)
                    yield f"row {number} was sent again {late} s after it was acknowledged"

    def unknowns(self) -> Iterator[str]:
        """A row is unknown for a reason: an answer that could not be read, or a kill while it was reserved."""
        if not self.once:
            return
        doubted = 0
        for row, exchanges in self._unknown_rows():
            last = exchanges[-1] if exchanges else None
            if last is None or _not_applied(last):
                doubted += 1
            elif _acknowledged(last) and last.read and not self._killed_after(last):
                yield f"row {row} is unknown after {_said(last)}"
        killed = sum(one.ended == "killed" for one in self.found.tries)
        stopped = sum(one.stopped_at is not None for one in self.found.tries)
        torn = sum(exchange.body is None for exchange in self.found.exchanges)
        ahead = max(LEAST_AHEAD, int(self.storm.rate * AHEAD_S))
        under_way = self.storm.connections * (killed + stopped + len(self.found.drops))
        if doubted > killed * ahead + under_way + torn:
            after = f"{killed} kills and {torn} torn requests"
            yield f"{doubted} rows are unknown without an answer to blame, after {after}"

    def _unknown_rows(self) -> Iterator[tuple[Any, list[Exchange]]]:
        """Return the exchanges of each unknown row; for a sync, those of the phone that explain it best."""
        if not self.sync:
            yield from ((row, self.rows[row]) for row, status in self.status.items() if status == "unknown")
            return
        of_phone: dict[str, list[list[Exchange]]] = defaultdict(list)
        for key, exchanges in self.rows.items():
            of_phone[phone_of(key)].append(exchanges)
        sendable = Counter(line["phone"] for line in self.found.outcomes if line["status"] != "rejected")
        for phone, lines in Counter(one["phone"] for one in self.found.outcomes if one["status"] == "unknown").items():
            requests = sorted(of_phone[phone], key=lambda one: _acknowledged(one[-1]) and one[-1].read)
            never_came = sendable[phone] - len(requests)
            doubtful = [one for one in requests if not _acknowledged(one[-1]) or not one[-1].read]
            explained = doubtful + [[]] * never_came + requests[len(doubtful) :]
            yield from ((phone, one) for one in explained[:lines])

    def _killed_after(self, exchange: Exchange) -> bool:
        one = self._try_at(exchange.at)
        told_at = exchange.at if exchange.told_at is None else exchange.told_at
        return one is None or (one.ended == "killed" and one.over - told_at < COMMITTED_S)

    def _try_at(self, at: float) -> OneTry | None:
        """Return the try that made a request; requests of a killed one may arrive after its end."""
        number = bisect.bisect_right(self._begins, at)
        return self.found.tries[number - 1] if number else None

    # -- pace and order

    @cached_property
    def worst(self) -> int:
        """The most requests in any second."""
        return worst_window([exchange.at for exchange in self.found.exchanges])

    @cached_property
    def stall_ms(self) -> float:
        """Return how long the server stalled within the worst seconds."""
        times = [exchange.at for exchange in self.found.exchanges]
        begin, longest = 0, 0.0
        for end, at in enumerate(times):
            while at - times[begin] >= 1.0:
                begin += 1
            if end - begin + 1 == self.worst:
                longest = max(longest, self.found.stalls.worst_ms(times[begin], at))
        return longest

    def rate(self) -> Iterator[str]:
        """The rate limit holds in every second of the server's clock."""
        if self.worst > self.storm.rate:
            stood_still = f"the server stood still for {self.stall_ms:.0f} ms"
            yield f"{self.worst} requests in a second, of {self.storm.rate} ({stood_still})"

    def asked_to_wait(self) -> Iterator[str]:
        """After a 429 nothing is sent until Retry-After is over; after a 503 with it, not that row."""
        pauses = []
        for number, exchanges in self.rows.items():
            for before, after in pairwise(exchanges):
                if before.retry_after_s is None or before.told_at is None or not before.read:
                    continue
                same = self._try_at(before.at) is self._try_at(after.at)
                if same and after.at - before.told_at < before.retry_after_s - 0.05:
                    yield f"row {number} came again {after.at - before.told_at:.2f} s after {_said(before)}"
        for exchange in self.found.exchanges:
            if exchange.status == 429 and exchange.told_at is not None and exchange.read:
                pauses.append((exchange.told_at, exchange.retry_after_s or 0, self._try_at(exchange.at)))
        times = [exchange.at for exchange in self.found.exchanges]
        for told_at, asked_s, one in pauses:
            early = [
                at
                for at in times[
                    bisect.bisect(times, told_at + UNDER_WAY_S) : bisect.bisect(times, told_at + asked_s - 0.05)
                ]
                if self._try_at(at) is one
            ]
            if early:
                yield f"{len(early)} requests came within the {asked_s} s of a 429 with Retry-After"
                return

    def order(self) -> Iterator[str]:
        """A person's row is sent only after the previous one was answered or given up; checked for each try."""
        if self.sync:  # opt-outs go first, wherever they are
            return
        people = self.found.source.people
        sent: dict[tuple[str, int], list[tuple[float, int, Exchange]]] = defaultdict(list)
        for row, exchanges in self.rows.items():
            for exchange in exchanges:
                one = self._try_at(exchange.at)
                if one is not None and isinstance(row, int):
                    sent[people[row], one.number].append((exchange.at, row, exchange))
        for (_, number), of_one in sent.items():
            of_one.sort(key=lambda entry: entry[0])
            for (_, row, before), (at, following, _) in pairwise(of_one):
                if following < row:
                    yield f"row {following} was sent after row {row} of the same person, in try {number}"
                busy = before.read and before.told_at is not None and at < before.told_at - 0.02
                if following != row and busy:
                    yield f"row {following} was sent while row {row} of the same person was under way, in try {number}"

    # -- consent

    def consent(self) -> Iterator[str]:
        """No opt-in is sent that the source does not state with its evidence, or that an opt-out supersedes."""
        said = [*_statements(self.found.source.rows)]
        yes = {(point, channel, at, ip) for point, channel, subscribed, at, ip in said if subscribed and at and ip}
        no = {(point, channel, at) for point, channel, subscribed, at, _ in said if not subscribed}
        newest: dict[tuple[str, str], datetime] = {}
        for point, channel, at in no:
            if at is not None:
                newest[point, channel] = max(at, newest.get((point, channel), at))
        held: dict[tuple[str, str], bool] = {}
        for event in self.found.journal:
            for one in decisions_in(event):
                key = (str(one.point), one.channel)
                at = None if one.at is None else one.at.replace(microsecond=0)
                if one.subscribed and (*key, at, one.ip) not in yes:
                    yield f"an opt-in was invented: {one}"
                elif one.subscribed and at is not None and key in newest and at <= newest[key]:
                    yield f"an opt-in was sent that a newer opt-out follows: {one}"
                elif not one.subscribed and (*key, at) not in no:
                    yield f"an opt-out was invented: {one}"
                if one.stored:
                    held[key] = one.subscribed
        unknown = any(status == "unknown" for status in self.status.values())
        for key, at in newest.items():
            later = any(
                (point, channel) == key and subscribed and when and when > at
                for point, channel, subscribed, when, _ in said
            )
            if not later and not unknown and held.get(key) is not False:
                yield f"Regal holds {held.get(key)} for {key}, who has opted out"

    def counts(self) -> dict[str, int]:
        """Count the results."""
        tries = Counter(one.ended for one in self.found.tries)
        return {
            "requests": len(self.found.exchanges), "tries": len(self.found.tries), "kills": tries["killed"],
            "retries": tries["retry"], "acknowledged": sum(one == "acknowledged" for one in self.status.values()),
        }  # fmt: skip


def key_of(body: Any) -> Key | None:
    """Return the number of a request's row, or the request itself."""
    if not isinstance(body, dict):
        return None
    said = body.get("properties") or body.get("traits") or {}
    return int(said["n"]) if "n" in said else json.dumps(body, sort_keys=True)


def phone_of(key: Key) -> str:
    """Return the person that a request of a sync is about."""
    return next(iter(json.loads(str(key)).get("traits", {}).get("phones", {})), "")


def _acknowledged(exchange: Exchange) -> bool:
    return exchange.status is not None and 200 <= exchange.status < 300


def _not_applied(exchange: Exchange) -> bool:
    """Return whether Regal reports that it did not accept the event."""
    asked = exchange.retry_after_s is not None
    return exchange.status == 429 or (exchange.status == UNAVAILABLE and asked)


def _said(exchange: Exchange) -> str:
    told = "read" if exchange.told_at is not None else "never handed over"
    return f"an answer {exchange.status} ({told})"


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text.replace(" +", "+")).replace(microsecond=0)


def _statements(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str, bool, datetime | None, str | None]]:
    """Return the decisions in the rows: phone, channel, yes or no, when, from where."""
    for row in rows:
        if "channel" in row:
            yield row["phone"], row["channel"], row["subscribed"], _time(row["timestamp"]), row["ip"]
        elif row.get("sms_opt_in") is not None:
            yield row["phone"], "sms", row["sms_opt_in"], _time(row["sms_opt_in_at"]), row["sms_opt_in_ip"]
