"""A world in which a history happens: the package, a local Regal and a ledger; the model is told what came of it."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_regal._compat import AirflowException
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.events import ConsentPolicy
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from airflow_provider_regal.testing import Sandbox
from tests.consent_model.generator import EVENT, History, Step
from tests.consent_model.model import ConsentModel, Key, Options, Received, Row, Statement, Yes
from tests.consent_model.tries import OneTry, run, run_and_tell
from tests.ledger.view import LedgerView
from tests.operators.ways import context

NOT_TAKEN = (400, 401, 403, 404, 413, 422, 429, 503)
HANGS_S = 20.0
PROJECT = Path(__file__).parents[2]
IMPORTED = [
    "tests.consent_model.tries",
    "airflow_provider_regal.client.many",
    "airflow_provider_regal.delivery.engine",
]
GOES_ON = ("killed", "RetryLaterError", "LedgerError", "TakenOverError", "FixConnectionError")


@dataclass
class Pending:
    """A delivery that may be tried again."""

    step: Step
    run: str
    name: str
    first: datetime
    epoch: int = 0
    number: int = 1
    read: bool = False
    ended: bool = False


class World:
    """Lets a history happen.

    :param database: the ledger's URL. :param account: in it; several histories may share a database.
    """

    def __init__(self, history: History, database: str, monkeypatch: pytest.MonkeyPatch, *, account: str) -> None:
        self.history, self.database, self.account = history, database, account
        self.model = ConsentModel()
        self.regal = Sandbox(api_key=f"key-of-{account}")
        self.now = history.begin
        self.view = LedgerView(database, account=account)
        self.deliveries: list[Pending] = []
        self.broken: list[str] = []
        self.trace: list[str] = []
        self.seen = 0
        self.monkeypatch = monkeypatch

    def happens(self) -> list[str]:
        """Let everything happen; returns the rules that were broken."""
        with self.regal:
            self._connect()
            for number, step in enumerate(self.history.steps):
                self.now += timedelta(minutes=step.minutes)
                self._step(number, step)
                if self.broken:
                    return self.broken
            self._close()
        return self.broken

    def _connect(self) -> None:
        extras = {"rate_limit": 300, "timeout": 2, "account": self.account}
        self.monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", self.regal.connection(**extras))
        self.monkeypatch.setenv(
            "AIRFLOW_CONN_LEDGER", self.database.replace("+psycopg2", "").replace("sqlite:///", "sqlite://")
        )
        if self.database.startswith("sqlite"):
            where = self.database.removeprefix("sqlite:///")
            self.monkeypatch.setenv("AIRFLOW_CONN_LEDGER", json.dumps({"conn_type": "sqlite", "host": where}))

    # -- steps

    def _step(self, number: int, step: Step) -> None:
        if step.kind == "one":
            self._one(number, step)
        elif step.kind == "retry":
            for pending in [one for one in self.deliveries if not one.ended]:
                pending.number += 1
                self._try(pending, step.crash)
        elif step.kind == "clear":
            if done := [one for one in self.deliveries if one.ended and one.step.kind not in ("regal", "redeliver")]:
                before = done[number % len(done)]
                first = before.first if before.step.kind == "named" else self.now
                again = replace(
                    before, epoch=before.epoch + 1, number=before.number + 1, ended=False, read=False, first=first,
                    name=f"{before.name} cleared",
                )  # fmt: skip
                self.deliveries.remove(before)
                self.deliveries.append(again)
                self._try(again, step.crash)
        else:
            if step.kind == "regal":
                self._regal_hears(step.rows[0].statements[0])
            name = f"{number} {step.kind}"
            self.deliveries.append(Pending(step, f"run-{self.account}-{number}", name, self.now))
            self._try(self.deliveries[-1], step.crash)

    def _regal_hears(self, one: Statement) -> None:
        key, at = (str(one.point), one.channel), one.at.replace(microsecond=0)
        self.model.regal_hears(key, subscribed=bool(one.answer), at=at)

    def _try(self, pending: Pending, crash: Any) -> None:
        step, model = pending.step, self.model
        model.begins(pending.name, step.options)
        letters = tuple(one.id for one in self.view.deliveries() if one.run_id.startswith(f"run-{self.account}-"))
        one = OneTry(
            step, pending.run, self.now, pending.epoch, pending.number, self.regal.url, self.regal.api_key,
            self.account, self.database, letters if step.kind == "redeliver" else (),
        )  # fmt: skip
        error = self._run(one, crash)
        found, phones, faults = self._arrived()
        reads = not pending.read
        if step.kind == "redeliver":
            model.reads_letters(self.now)
        if reads and step.kind != "redeliver":
            pending.read = self._was_read(pending.run, error)
            moments = (pending.first, self.now)
            model.reads(pending.name, step.source, step.rows, moments, certain=pending.read)
        calm = crash is None and not faults and reads
        self.broken += model.receives(pending.name, found, anew=reads, calm=calm)
        pending.ended = error not in GOES_ON
        self._end(
            pending.name, found, phones, green=error is None, faultless=pending.ended and calm,
            orderly=error not in ("killed", "LedgerError", "TakenOverError"),
        )  # fmt: skip
        self._trace(f"try {pending.number} of {pending.name} at {self.now:%H:%M}: {error}, crash {crash}", found)

    def _run(self, one: OneTry, crash: Any) -> str | None:
        kind, first = (None, 0) if crash is None else (crash.kind, self.regal.stats()["requests"] + crash.after)
        if kind == "answer":
            self.regal.set_faults([{"on": {"requests": [first]}, "do": crash.do}])
        elif kind in ("lost", "down", "silent", "killed"):
            self.regal.set_faults([{"on": {"from": first}, "do": crash.do}])
        if kind == "silent":
            one.timeout_s = 0.3
        elif kind == "ledger":
            one.dies_after = crash.after
        elif kind == "killed reading":
            one.hangs_after = crash.after
        try:
            if kind in ("killed", "killed reading"):
                return self._run_and_kill(one, first)
            return run(one)[0]
        finally:
            self.regal.set_faults([])
            self.view.change("UPDATE regal_deliveries SET held_at = '2000-01-01T00:00:00.000000Z'")

    def _run_and_kill(self, one: OneTry, request: int) -> str | None:
        self.monkeypatch.setenv("PYTHONPATH", str(PROJECT))  # of the fork server, which does not know our path
        processes = multiprocessing.get_context("forkserver")
        processes.set_forkserver_preload(IMPORTED)
        ours, theirs = processes.Pipe()
        process = processes.Process(target=run_and_tell, args=(one, theirs))
        process.start()
        ends = time.monotonic() + HANGS_S
        reading = 0.0 if one.hangs_after is None else time.monotonic() + 0.25
        while process.is_alive() and not ours.poll():
            if self._requests() >= request and one.hangs_after is None:
                break
            if reading and time.monotonic() > reading:
                break
            assert time.monotonic() < ends, "it neither ended nor sent"
            time.sleep(0.001)
        told = ours.recv() if ours.poll(0.01) else None
        process.kill()
        process.join()
        self._wait_for_what_is_on_its_way()
        return "killed" if told is None else told[0]

    def _requests(self) -> int:
        return self.regal._ask(lambda account: account.requests)

    def _wait_for_what_is_on_its_way(self) -> None:
        before = -1
        while before != (before := self._requests()):
            time.sleep(0.02)

    def _was_read(self, run: str, error: str | None) -> bool:
        if error in (None, "TooManyFailedRowsError", "FixSourceError"):
            return True
        records = self.view.deliveries(run)
        return bool(records) and records[-1].kept_rows is not None

    def _one(self, number: int, step: Step) -> None:
        """Send one event: by the real clock, which runs ahead of that of the history."""
        model, name, moment, crash = self.model, f"{number} one", datetime.now(UTC), step.crash
        model.begins(name, step.options)
        if crash is not None:
            first = self.regal.stats()["requests"] + 1
            self.regal.set_faults([{"on": {"from": first}, "do": {**crash.do}}])
        error: Exception | None = None
        try:
            self._send_one(number, step)
        except (RegalError, AirflowException) as raised:
            error = raised
        self.regal.set_faults([])
        later = datetime.now(UTC)
        self.view.change("UPDATE regal_deliveries SET held_at = '2000-01-01T00:00:00.000000Z'")
        found, phones, faults = self._arrived()
        model.reads(name, step.source, step.rows, (moment, later), certain=True)
        self.broken += model.receives(name, found, anew=True, calm=False)
        # What the hook sends is nothing but the event; an operator's is a delivery.
        faultless = crash is None and error is None and step.settings["by"] == "operator" and not faults
        self._end(name, found, phones, green=error is None, orderly=True, faultless=faultless)
        self._trace(f"{name} at {moment}: {type(error).__name__}, crash {crash}", found)

    def _send_one(self, number: int, step: Step) -> None:
        written, options, call = step.written[0], step.options, step.settings["call"]
        if step.settings["by"] == "hook":
            policy = ConsentPolicy(require_ip=options.require_ip, opt_out_scope=options.scope)
            hook = RegalHook(outage_patience_s=0.05, consent=policy, ledger_conn_id="ledger")
            (hook.identify if call == "identify" else hook.track)(**written)
            return
        operator = RegalIdentifyOperator if call == "identify" else RegalTrackOperator
        operator(
            task_id="t", require_ip=options.require_ip, opt_out_scope=options.scope, outage_patience=0.05,
            ledger_conn_id="ledger", **written,
        ).execute(context(run_id=f"one-{self.account}-{number}"))  # fmt: skip

    def _end(self, name: str, found: list[Received], phones: list[tuple[str, str]], **how: bool) -> None:
        self.broken += self.model.ends(name, found, phones, owed=self._owed(), **how)

    def _owed(self) -> set[Key]:
        with self.view.account() as account:
            return {(one.identifier, one.channel) for one in account.owed_opt_outs()}

    def _trace(self, what: str, found: list[Received]) -> None:
        self.trace.append("\n".join([what, *(f"    {one}" for one in found)]))

    # -- what Regal received

    def _arrived(self) -> tuple[list[Received], list[tuple[str, str]], bool]:
        events = [one for one in self.regal.events() if one["number"] > self.seen]
        self.seen = max((one["number"] for one in events), default=self.seen)
        found = [one for event in events for one in decisions_in(event)]
        phones = [
            (event["body"]["userId"], phone)
            for event in events
            if event["answer"] == 200 and "userId" in event["body"]
            for phone in event["body"].get("traits", {}).get("phones", {})
        ]
        return found, phones, any(event["answer"] != 200 for event in events)

    # -- the end

    def _close(self) -> None:
        """Deliver everything sound again without a fault: first a contact of no importance, then what was decided."""
        self.now = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1)
        somebody = {"user_id": "somebody", "phone": "+12125550199"}
        self._deliver(Step("contacts", written=(somebody,)))
        rows, told = [], []
        for key in sorted(self.model.stated):
            if key[0].startswith("user:"):
                continue
            statement = self._as_statement(key, self.model.stated[key])
            told.append(Row((statement,)))
            name = "email" if key[1] == "email" else "phone"
            rows.append({
                name: key[0], "channel": key[1], "subscribed": True, "timestamp": statement.at.isoformat(),
                "ip": statement.ip,
            })  # fmt: skip
        options = Options(require_ip=False, once=True)
        sync = {"initial": "send", "max_change_ratio": None}
        settings = {"require_ip": False, "max_rejected": 0}
        self._deliver(Step("sync", "dag.table", 1, tuple(rows), tuple(told), settings, sync, options))
        for key in sorted(self.model.keys()):
            allowed, has = self.model.final(key), self.model.regal.get(key, (None, None))[0]
            if has not in allowed:
                self.broken.append(f"in the end Regal has {has} for {key}, not one of {allowed}")
            shown = self._shown(key)
            if key in self._only_by_identify() and shown != has:
                self.broken.append(f"Regal shows {shown} for {key}, and was last told {has}")

    def _deliver(self, step: Step) -> None:
        number = 1_000 + len(self.deliveries)
        pending = Pending(step, f"run-{self.account}-{number}", f"closing {number}", self.now)
        self.deliveries.append(pending)
        self._try(pending, None)
        if not pending.ended:
            self.broken.append(f"{pending.name} did not end")

    def _as_statement(self, key: Key, yes: Yes) -> Statement:
        return Statement("", key[0], key[1], True, yes.at, yes.ip)

    def _only_by_identify(self) -> set[Key]:
        """Return what the local Regal shows as it was told: it knows nothing of events that stand for an opt-in."""
        by_event = {key for key, _ in self.model.events}
        channels = {channel for who, channel in by_event if who.startswith("user:")}
        return {key for key in self.model.keys() - by_event - self.model.heard if key[1] not in channels}

    def _shown(self, key: Key) -> bool | None:
        name, member = ("email", "emails") if key[1] == "email" else ("phone", "phones")
        contact = self.regal.contact(**{name: key[0]})
        status = "No Status" if contact is None else contact[member][key[0]][key[1]]["status"]
        return {"Subscribed": True, "Unsubscribed": False, "No Status": None}[status]


def decisions_in(event: dict[str, Any]) -> Iterator[Received]:
    """Return what one request says of consent."""
    body, answer = event["body"], event["answer"]
    if body is None:
        return
    told = {
        "number": event["number"], "user": body.get("userId"), "stored": event["stored"], "told": answer == 200,
        "refused": answer in NOT_TAKEN,
    }  # fmt: skip
    traits = body.get("traits", {})
    if body.get("name") == EVENT:
        told |= {"channel": body["properties"]["channel"], "ip": body["properties"].get("ip"), "event": True}
        at = _time(body["originalTimestamp"])
        for phone in traits.get("phones", {None: {}}):
            yield Received(point=phone, subscribed=True, at=at, **told)
        return
    for member in ("phones", "emails"):
        for point, info in traits.get(member, {}).items():
            for channel in ("sms", "voice", "email"):
                if (opt_in := info.get(f"{channel}OptIn")) is not None:
                    at, yes = _time(opt_in.get("timestamp")), opt_in["subscribed"]
                    yield Received(point=point, channel=channel, subscribed=yes, at=at, ip=opt_in.get("ip"), **told)


def _time(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text.replace(" +", "+"))
