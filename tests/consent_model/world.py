"""The environment of a history: the package, a local Regal and a ledger; the results are reported to the model."""

from __future__ import annotations

import contextlib
import hmac
import io
import json
import multiprocessing
import os
import signal
import sqlite3
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_regal._compat import AirflowException
from airflow_provider_regal.cli import main
from airflow_provider_regal.delivery.sending.recorder import FRESH_S
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.events import ConsentPolicy
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.operators.identify import RegalIdentifyOperator
from airflow_provider_regal.operators.track import RegalTrackOperator
from airflow_provider_regal.testing import Sandbox
from tests.consent_model.generator import History, Step
from tests.consent_model.model import ConsentModel, Key, Options, Request, Row, Statement
from tests.consent_model.received import request_of
from tests.consent_model.tries import OneTry, Told, run, run_and_tell
from tests.ledger.view import LedgerView
from tests.operators.ways import context

HANGS_S = 20.0
PROJECT = Path(__file__).parents[2]
IMPORTED = [
    "tests.consent_model.tries",
    "airflow_provider_regal.client.many",
    "airflow_provider_regal.delivery.sending.engine",
]
GOES_ON = ("killed", "frozen", "RetryLaterError", "LedgerError", "TakenOverError", "FixConnectionError")
NOT_ORDERLY = ("killed", "frozen", "LedgerError", "TakenOverError")
#: A sync's reason for stopping -> the model's name for it. With the first two, nothing was read.
STOPPED = {
    "No consent is on record yet": "initial",
    "it was lost, or AIRFLOW_HOME": "lost",
    "than max_change_ratio": "guard",
    "needs the identifiers of the people to opt out": "hashed",
}
#: Tables that must not change anymore once another try has taken over.
WRITTEN = (
    "regal_deliveries", "regal_row_chunks", "regal_outcomes", "regal_contacts", "regal_messages", "regal_consents",
    "regal_consent_log",
)  # fmt: skip
#: Columns that identify people; with a ledger_key, by a hash.
NAMING = {
    "regal_outcomes": ("user_id", "phone", "email"), "regal_contacts": ("contact",), "regal_messages": ("message_id",),
    "regal_contact_phones": ("user_id", "phone"), "regal_consents": ("identifier",),
    "regal_consent_log": ("identifier",), "regal_suppressions": ("identifier",),
}  # fmt: skip


@dataclass
class Pending:
    """A delivery that may be retried."""

    step: Step
    run: str
    name: str
    first: datetime
    epoch: int = 0
    number: int = 1
    read: bool = False
    ended: bool = False


class World:
    """Runs a history.

    :param database: the ledger's URL.
    :param account: in it; several histories may share a database.
    :param elsewhere: a folder for the wrong ledgers.
    """

    def __init__(
        self, history: History, database: str, monkeypatch: pytest.MonkeyPatch, *, account: str, elsewhere: Path
    ) -> None:
        self.history, self.database, self.account = history, database, account
        self.secret = history.ledger_key
        self.model = ConsentModel(hashed=self.secret is not None)
        self.regal = Sandbox(api_key=f"key-of-{account}")
        self.now = history.begin
        self.view = LedgerView(database, account=account, secret=self.secret and self.secret.encode())
        self.on_record: dict[str, int] = {}  # task -> consents after its last run, as XCom has it
        self.frozen: list[tuple[Any, Any, float]] = []
        self.deliveries: list[Pending] = []
        self.broken: list[str] = []
        self.trace: list[str] = []
        self.seen = 0
        self.elsewhere = elsewhere
        self.monkeypatch = monkeypatch

    def happens(self) -> list[str]:
        """Run everything; return the rules that were broken."""
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
        self.monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_KEY", self.secret or "")
        # A history may lie months back, and be run again.
        self.monkeypatch.setenv("AIRFLOW__REGAL__HISTORY_DAYS", "3650")
        self.monkeypatch.setenv("AIRFLOW__REGAL__DEAD_LETTER_DAYS", "3650")
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
        elif step.kind in ("suppress", "release", "forget"):
            self._change_people(step)
        elif step.wrong == "ledger" and step.kind == "sync" and not self.on_record.get(step.source):
            self._step(number, replace(step, wrong=None))  # it cannot know better
        elif step.wrong is not None:
            self._try_with_a_wrong_ledger(number, step)
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

    def _change_people(self, step: Step) -> None:
        """Suppress, release or forget a person, in the same way as the command line."""
        where = ("--account", self.account, "--ledger-conn-id", "ledger")
        owed = {key for key in self._owed() if key[0] in step.people}
        command = {
            "suppress": ("suppress", "add"), "release": ("suppress", "remove"),
            "forget": ("forget", *["--lose-owed"] * bool(step.settings.get("lose_owed"))),
        }[step.kind]  # fmt: skip
        told = io.StringIO()
        with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
            code = main([*command, *step.people, *where])
        self._trace(f"{' '.join(command)} {' '.join(step.people)}: {code} {told.getvalue().strip()}", [])
        refused = step.kind == "forget" and bool(owed) and not step.settings["lose_owed"]
        if step.kind != "release" and code != int(refused):
            self.broken.append(f"{step.kind} of {step.people} ended with {code}, owed is {owed}: {told.getvalue()}")
        elif not refused:
            change = {
                "suppress": self.model.suppresses, "release": self.model.releases, "forget": self.model.forgets,
            }[step.kind]  # fmt: skip
            change(step.people)

    def _try_with_a_wrong_ledger(self, number: int, step: Step) -> None:
        """Run a task whose ledger is empty, uses another key, or has another account's name."""
        one = self._one_try(Pending(step, f"run-{self.account}-{number}", "", self.now))
        if step.wrong == "ledger":
            one.database = f"sqlite:///{self.elsewhere / f'{self.account}.db'}"
        elif step.wrong == "key":
            one.secret = "another key"
        else:
            one.account = f"{self.account}-renamed"
        registered = "SELECT 1 FROM regal_accounts WHERE account = :account AND api_key_hash IS NOT NULL"
        if step.wrong != "ledger" and not self.view.query(registered, account=self.account):
            return  # any key, and any name, is the first
        told = run(one)
        found, _, _ = self._arrived()
        name = f"{number} {step.kind}, with a wrong {step.wrong}"
        self._trace(f"{name}: {told.error} {told.text}", found)
        expected = "WrongLedgerError"
        if step.wrong == "ledger":
            expected = None if step.kind == "redeliver" else "FixSourceError"
        if found or told.error != expected:
            self.broken.append(f"{name}: it ended with {told.error}, and {len(found)} requests were sent")

    def _regal_hears(self, one: Statement) -> None:
        key, at = (str(one.point), one.channel), one.at.replace(microsecond=0)
        self.model.regal_hears(key, subscribed=bool(one.answer), at=at)

    def _try(self, pending: Pending, crash: Any) -> None:
        step, model = pending.step, self.model
        reads = not pending.read
        if step.options.first_run == "baseline" and model.on_record is not True and reads:
            model.fills(step.rows, step.options, self.now)
        model.begins(pending.name, step.options, anew=reads)
        one = self._one_try(pending)
        told = self._run(one, crash)
        error = told.error
        found, phones, faults = self._arrived()
        stopped = next((why for text, why in STOPPED.items() if text in told.text), None)
        refused = stopped in ("initial", "lost")
        if stopped == "lost":
            self.on_record.pop(step.source, None)  # a person has checked, and allows it to start over
        elif told.on_record:
            self.on_record[step.source] = told.on_record
        if step.kind == "redeliver":
            model.reads_letters(self.now)
        if reads and step.kind != "redeliver":
            pending.read = not refused and self._was_read(pending.run, error)
            moments = (pending.first, self.now)
            model.reads(pending.name, step.source, step.rows, moments, certain=pending.read)
        if stopped is not None:
            self.broken += model.stops(pending.name, stopped)
        calm = crash is None and not faults and reads and not refused
        self.broken += model.receives(pending.name, found, anew=reads, calm=calm)
        pending.ended = error not in GOES_ON
        self._end(
            pending.name, found, phones, green=error is None, faultless=pending.ended and calm,
            orderly=error not in NOT_ORDERLY,
        )  # fmt: skip
        self._trace(f"try {pending.number} of {pending.name} at {self.now:%H:%M}: {error}, crash {crash}", found)
        if error == "frozen":
            pending.number += 1
            self._try(pending, None)
            self._wake()

    def _one_try(self, pending: Pending) -> OneTry:
        step, letters = pending.step, tuple[int, ...]()
        if step.kind == "redeliver":
            runs = f"run-{self.account}-"
            letters = tuple(one.id for one in self.view.deliveries() if one.run_id.startswith(runs))
        return OneTry(
            step, pending.run, self.now, pending.epoch, pending.number, self.regal.url, self.regal.api_key,
            self.account, self.database, self.secret, self.on_record.get(step.source, 0), letters,
        )  # fmt: skip

    def _run(self, one: OneTry, crash: Any) -> Told:
        kind, first = (None, 0) if crash is None else (crash.kind, self.regal.stats()["requests"] + crash.after)
        if kind == "answer":
            self.regal.set_faults([{"on": {"requests": [first]}, "do": crash.do}])
        elif kind in ("lost", "down", "silent", "killed", "frozen"):
            self.regal.set_faults([{"on": {"from": first}, "do": crash.do}])
        if kind == "silent":
            one.timeout_s = 0.3
        elif kind == "ledger":
            one.dies_after = crash.after
        elif kind == "killed reading":
            one.hangs_after = crash.after
        elif kind == "backends":
            one.backends = crash.after, crash.do["times"]
        elif kind == "frozen":
            one.timeout_s = 2.0
        try:
            if kind in ("killed", "killed reading", "frozen"):
                return self._run_and_stop(one, first, freeze=kind == "frozen")
            return run(one)
        finally:
            self.regal.set_faults([])
            self.view.change("UPDATE regal_deliveries SET held_at = '2000-01-01T00:00:00.000000Z'")
            self.view.change("DELETE FROM regal_senders")  # else the share of one that was killed counts for seconds

    def _run_and_stop(self, one: OneTry, request: int, *, freeze: bool) -> Told:
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
        if told is None and freeze:
            os.kill(process.pid, signal.SIGSTOP)
            while self._holds_a_lock():  # for which the other try would wait in vain
                os.kill(process.pid, signal.SIGCONT)
                time.sleep(0.005)
                os.kill(process.pid, signal.SIGSTOP)
            self.frozen.append((process, ours, time.monotonic()))
        else:
            process.kill()
            process.join()
        self._wait_for_what_is_on_its_way()
        return told or Told("frozen" if freeze else "killed", "", 0)

    def _holds_a_lock(self) -> bool:
        """Return whether the frozen try is in a transaction."""
        if "://" not in self.database or self.database.startswith("sqlite"):
            with contextlib.closing(
                sqlite3.connect(self.database.removeprefix("sqlite:///"), timeout=0.1)
            ) as connection:
                try:
                    connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError:
                    return True
                return False
        return bool(
            self.view.query(
                "SELECT 1 FROM pg_stat_activity WHERE datname = current_database() "
                "AND pid <> pg_backend_pid() AND state LIKE 'idle in transaction%'"
            )
        )

    def _wake(self) -> None:
        """Resume a frozen try after another has taken over: it must not send or commit anything."""
        process, ours, since = self.frozen.pop()
        time.sleep(max(since + FRESH_S + 0.2 - time.monotonic(), 0))
        before = self._requests(), self._written()
        os.kill(process.pid, signal.SIGCONT)
        told = ours.recv() if ours.poll(HANGS_S) else None
        process.kill()
        process.join()
        self._wait_for_what_is_on_its_way()
        self._trace(f"the frozen try woke: {told}", [])
        requests, written = self._requests(), self._written()
        changed = [table for table in WRITTEN if written[table] != before[1][table]]
        if requests != before[0] or changed or told is None or told.error is None:
            sent = requests - before[0]
            self.broken.append(f"a frozen try woke, sent {sent} requests, and wrote to {changed}: {told}")

    def _written(self) -> dict[str, list[str]]:
        def plain(row: Any) -> str:
            return repr([bytes(one) if isinstance(one, memoryview) else one for one in row])

        return {table: sorted(map(plain, self.view.query(f"SELECT * FROM {table}"))) for table in WRITTEN}

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
        """Send one event: by the real clock, which is ahead of the history's."""
        model, name, moment, crash = self.model, f"{number} one", datetime.now(UTC), step.crash
        model.begins(name, step.options, anew=True)
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
        # The hook sends only the event; an operator sends a delivery.
        faultless = crash is None and error is None and step.settings["by"] == "operator" and not faults
        self._end(name, found, phones, green=error is None, orderly=True, faultless=faultless)
        self._trace(f"{name} at {moment}: {type(error).__name__}, crash {crash}", found)

    def _send_one(self, number: int, step: Step) -> None:
        written, options, call = step.written[0], step.options, step.settings["call"]
        more = {"suppress_named_events": True} if step.settings.get("suppress_named_events") else {}
        if step.settings["by"] == "hook":
            policy = ConsentPolicy(require_ip=options.require_ip, opt_out_scope=options.scope)
            hook = RegalHook(outage_patience_s=0.05, consent=policy, ledger_conn_id="ledger")
            (hook.identify if call == "identify" else hook.track)(**written, **more)
            return
        operator = RegalIdentifyOperator if call == "identify" else RegalTrackOperator
        operator(
            task_id="t", require_ip=options.require_ip, opt_out_scope=options.scope, outage_patience=0.05,
            ledger_conn_id="ledger", **written, **more,
        ).execute(context(run_id=f"one-{self.account}-{number}"))  # fmt: skip

    def _end(self, name: str, found: list[Request], phones: list[tuple[str, str]], **how: bool) -> None:
        self.broken += self.model.ends(name, found, phones, owed=self._owed(), **how)

    def _owed(self) -> set[Key]:
        with self.view.account() as account:
            return {(self._named(one.identifier), one.channel) for one in account.owed_opt_outs()}

    def _named(self, stored: str) -> str:
        """Return the person of an identifier in the ledger."""
        if self.secret is None:
            return stored
        known = {key[0] for key in self.model.barriers} | {key[0] for key in self.model.perhaps}
        hashes = {hmac.digest(self.secret.encode(), one.encode(), "sha256").hex(): one for one in known}
        return hashes[stored]

    def _names_in_the_ledger(self) -> set[str]:
        """Return the people whose plain identifiers are in the ledger."""
        people = {one for step in self.history.steps for row in step.rows for said in row.statements
                  for one in (said.point, said.user) if one}  # fmt: skip
        held = [
            str(value)
            for table, columns in NAMING.items()
            for row in self.view.query(f"SELECT {', '.join(columns)} FROM {table} WHERE account = :a", a=self.account)
            for value in row
        ]
        return {one for one in people for value in held if one in value.split(":") or (len(one) > 3 and one in value)}

    def _trace(self, what: str, found: list[Request]) -> None:
        decisions = [one for request in found for one in request.decisions or [request]]
        self.trace.append("\n".join([what, *(f"    {one}" for one in decisions)]))

    # -- what Regal received

    def _arrived(self) -> tuple[list[Request], list[tuple[str, str]], bool]:
        events = [one for one in self.regal.events() if one["number"] > self.seen]
        self.seen = max((one["number"] for one in events), default=self.seen)
        found = [request_of(event) for event in events]
        phones = [
            (event["body"]["userId"], phone)
            for event in events
            if event["answer"] == 200 and "userId" in event["body"]
            for phone in event["body"].get("traits", {}).get("phones", {})
        ]
        return found, phones, any(event["answer"] != 200 for event in events)

    # -- the end

    def _close(self) -> None:
        """Deliver every valid decision again without a fault, after one unrelated contact."""
        if self.secret is not None and (named := self._names_in_the_ledger()):
            self.broken.append(f"with a ledger_key, the ledger names {named}")
        for one in [*self.model.forgotten]:
            self._change_people(Step("release", people=(one,)))
        if self.model.erased:
            self.on_record.clear()  # fewer may be on record than before; a person has checked
        self.now = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=1)
        somebody = {"user_id": "somebody", "phone": "+12125550199"}
        self._deliver(Step("contacts", written=(somebody,)))
        statements = [Statement("", *key, True, yes.at, yes.ip) for key, yes in sorted(self.model.stated.items())]
        if self.secret is not None:  # only a delivery that reads an opt-out again can send it
            owed = [key for key in sorted(self.model.barriers) if self.model.is_owed(key)]
            statements += [Statement("", *key, False, self.model.barriers[key]) for key in owed]
        statements = [one for one in statements if not str(one.point).startswith("user:")]
        told = [Row((one,)) for one in statements]
        rows = [
            {
                "email" if one.channel == "email" else "phone": one.point, "channel": one.channel,
                "subscribed": one.answer, "timestamp": one.at.isoformat(), "ip": one.ip,
            }
            for one in statements
        ]  # fmt: skip
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

    def _only_by_identify(self) -> set[Key]:
        """Return the local Regal's consents without events that represent an opt-in, which it does not know."""
        by_event = {key for key, _ in self.model.events}
        channels = {channel for who, channel in by_event if who.startswith("user:")}
        return {key for key in self.model.keys() - by_event - self.model.heard if key[1] not in channels}

    def _shown(self, key: Key) -> bool | None:
        name, member = ("email", "emails") if key[1] == "email" else ("phone", "phones")
        contact = self.regal.contact(**{name: key[0]})
        status = "No Status" if contact is None else contact[member][key[0]][key[1]]["status"]
        return {"Subscribed": True, "Unsubscribed": False, "No Status": None}[status]
