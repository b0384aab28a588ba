"""Run a storm: a local Regal, the network in front of it, tries of the task, and the troubles of the script."""

from __future__ import annotations

import json
import multiprocessing
import os
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from airflow_provider_regal.testing import Sandbox
from tests.chaos import names, sender, sources
from tests.chaos.front import Exchange, Front, Stalls
from tests.chaos.storm import ANSWERS, NETWORK, Storm, Trouble, rules_of
from tests.client.certificates import Authority
from tests.databases import POSTGRES, administer

MOST_TRIES = 60
LONGEST_S = 300.0
KEY = "key-of-the-storm-5f1d"
_LOOK_S = 0.02


@dataclass
class OneTry:
    """A try.

    :param ended: ``finished``, ``retry``, ``failed``, or ``killed``.
    :param state: of the delivery then.
    """

    number: int
    began: float
    over: float = 0.0
    ended: str = ""
    error: str = ""
    state: str = ""
    stopped_at: float | None = None

    @property
    def beyond_thresholds(self) -> bool:
        """Whether a user's own task got the error after which an operator would not be retried."""
        return self.error.startswith("TooManyFailedRowsError")

    def failed_again(self, tries: list[OneTry]) -> bool:
        """Whether Airflow's retry after that error had the same result."""
        return self.beyond_thresholds and len(tries) > 1 and tries[-2].beyond_thresholds


@dataclass
class Spell:
    """A trouble that happened, by the front's clock."""

    trouble: Trouble
    began: float
    over: float = float("inf")


@dataclass
class Happened:
    """Everything known about a storm when it is over.

    :param journal: what the local Regal received.
    :param delivery: its line in the ledger.
    :param outcomes: its lines in the ledger.
    :param chunks: of the snapshot that are left.
    :param leaks: which secrets were found, and where.
    """

    storm: Storm
    source: sources.Source
    tries: list[OneTry] = field(default_factory=list)
    spells: list[Spell] = field(default_factory=list)
    exchanges: list[Exchange] = field(default_factory=list)
    stalls: Stalls = field(default_factory=Stalls)
    drops: list[float] = field(default_factory=list)
    journal: list[dict[str, Any]] = field(default_factory=list)
    delivery: dict[str, Any] = field(default_factory=dict)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    chunks: int = 0
    leaks: list[str] = field(default_factory=list)
    seconds: float = 0.0
    load: float = 0.0
    report: dict[str, Any] = field(default_factory=dict)


class Ledger:
    """An empty ledger, queried with plain SQL, without code of the package."""

    def __init__(self, kind: str, folder: Path) -> None:
        self._name = ""
        if kind == "sqlite":
            file = folder / "ledger.db"
            self.url, self.connection = f"sqlite:///{file}", json.dumps({"conn_type": "sqlite", "host": str(file)})
            return
        self._name = f"regal_storm_{uuid4().hex[:12]}"
        administer(POSTGRES, f"CREATE DATABASE {self._name}")
        url = make_url(POSTGRES).set(database=self._name)
        self.url = url.render_as_string(hide_password=False)
        self.connection = json.dumps(
            {
                "conn_type": "postgres", "host": url.host, "port": url.port, "login": url.username,
                "password": url.password, "schema": self._name,
            }
        )  # fmt: skip

    def rows(self, statement: str) -> list[dict[str, Any]]:
        """Query; return nothing while there is no table yet."""
        engine = create_engine(self.url)
        try:
            with engine.connect() as connection:
                return [dict(row) for row in connection.execute(text(statement)).mappings()]
        finally:
            engine.dispose()

    def close(self) -> None:
        """Drop it."""
        if self._name:
            administer(POSTGRES, f"DROP DATABASE {self._name} WITH (FORCE)")


class Certificates:
    """The right certificate, and wrong ones: from another authority, and for another name."""

    def __init__(self, folder: Path) -> None:
        ours, other = Authority(folder / "ours"), Authority(folder / "other", "authority of nobody")
        self.file = ours.file
        self._right = ours.server("localhost", names.HOST)
        self._wrong = [other.server("localhost", names.HOST), ours.server("elsewhere.test")]
        self.replaced = 0

    def context(self) -> ssl.SSLContext:
        """Return the certificate to present; wrong ones take turns."""
        return self._wrong[self.replaced % 2] if self.replaced else self._right


class Happening:
    """One storm."""

    def __init__(self, storm: Storm, folder: Path, *, broken: str | None = None) -> None:
        self._storm = storm
        self._folder = folder
        self._broken = broken
        self._pending = [*storm.troubles]
        self._since: dict[int, float] = {}
        self._processes = multiprocessing.get_context("forkserver")
        self._process: Any = None

    def happen(self) -> Happened:
        """Run it until the task has finished."""
        storm, began = self._storm, time.monotonic()
        source = sources.make(storm, self._folder)
        self.found = found = Happened(storm, source)
        with ExitStack() as stack:
            self._regal = regal = stack.enter_context(
                Sandbox(api_key=KEY, latency_ms=storm.latency_ms, allow_hosts=[names.HOST])
            )
            self._certificates = Certificates(self._folder) if storm.tls else None
            shown = None if self._certificates is None else self._certificates.context
            port = int(regal.url.rpartition(":")[2])
            self._front = front = stack.enter_context(Front(port, context=shown, seed=storm.seed))
            self._ledger = ledger = Ledger(storm.ledger, self._folder)
            stack.callback(ledger.close)
            self._task = self._task_of(source)
            names.write(self._task.hosts, there=True)
            stack.callback(self._end_process)
            self._tries()
            found.journal = regal.events()
            found.exchanges, found.stalls, found.drops = front.exchanges, front.stalls, front.drops
            for delivery in ledger.rows("SELECT * FROM regal_deliveries"):
                found.delivery = delivery
            found.outcomes = ledger.rows("SELECT * FROM regal_outcomes ORDER BY delivery, position")
            found.chunks = len(ledger.rows("SELECT chunk FROM regal_row_chunks"))
        found.leaks = [*self._leaks()]
        found.seconds, found.load = time.monotonic() - began, os.getloadavg()[0]
        return found

    def _task_of(self, source: sources.Source) -> sender.Task:
        storm, tls = self._storm, self._certificates
        host = f"{'https' if tls else 'http'}://{storm.host}"
        extra = {"rate_limit": storm.rate, "timeout": storm.timeout_s, "account": "storm"}
        connection = {
            "conn_type": "regal", "host": f"{host}:{self._front.port}", "password": KEY, "extra": extra,
        }  # fmt: skip
        return sender.Task(
            storm, source, json.dumps(connection), self._ledger.connection, self._folder,
            None if tls is None else tls.file, self._broken,
        )  # fmt: skip

    # -- tries

    def _tries(self) -> None:
        """Try until the task has finished or failed, as Airflow's retries do."""
        gives_up_at = time.monotonic() + LONGEST_S + sum(one.lasts_s for one in self._storm.troubles)
        for number in range(1, MOST_TRIES + 1):
            one = OneTry(number, time.monotonic())
            self.found.tries.append(one)
            self._process = self._processes.Process(target=sender.run, args=(self._task, number))
            self._process.start()
            while self._process.is_alive() and time.monotonic() < gives_up_at:
                self._look(one)
                time.sleep(_LOOK_S)
            self._end_process()
            one.over = time.monotonic()
            self._note(one)
            if one.failed_again(self.found.tries):
                one.ended = "failed"
            if one.ended in ("finished", "failed") or one.over >= gives_up_at:
                return
            back_at = one.over + self._storm.retry_delay_s
            while time.monotonic() < back_at:
                self._look(None)
                time.sleep(_LOOK_S)

    def _note(self, one: OneTry) -> None:
        told = self._task.told(one.number)
        what = json.loads(told.read_text()) if told.exists() else {"ended": "killed", "error": ""}
        one.ended, one.error = what["ended"], what["error"]
        self.found.report = what.get("report") or self.found.report
        if one.ended != "killed":
            one.state = self._ledger.rows("SELECT state FROM regal_deliveries")[0]["state"]

    def _end_process(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.join()

    # -- troubles

    def _look(self, one: OneTry | None) -> None:
        """Start and end the troubles that are due."""
        now = time.monotonic()
        for spell in self._in_force():
            if now >= spell.began + spell.trouble.lasts_s:
                spell.over = now
                self._end(spell.trouble)
        come = len(self._front.exchanges)
        for trouble in [*self._pending]:
            if come < trouble.after:
                continue
            since = self._since.setdefault(id(trouble), now)
            if now < since + trouble.later_s or (trouble.kind in NETWORK and any(self._in_force(NETWORK))):
                continue
            if trouble.kind in ("kill", "stop") and one is None:
                continue  # there is nothing to kill
            self._pending.remove(trouble)
            self._begin(trouble, one)

    def _in_force(self, kinds: tuple[str, ...] = NETWORK + ANSWERS) -> Iterator[Spell]:
        return (one for one in self.found.spells if one.over == float("inf") and one.trouble.kind in kinds)

    def _begin(self, trouble: Trouble, one: OneTry | None) -> None:
        spell = Spell(trouble, time.monotonic())
        self.found.spells.append(spell)
        if trouble.kind in NETWORK:
            if trouble.kind == "certificate" and self._certificates is not None:
                self._certificates.replaced = self._storm.seed + 1
            if trouble.kind == "dns":
                names.write(self._task.hosts, there=False)
                self._kill(one)  # a process that has resolved the name caches it for a minute
            self._front.trouble(trouble.kind, trouble.share)
        elif trouble.kind in ANSWERS:
            self._answer()
        elif trouble.kind == "kill":
            self._kill(one)
            spell.over = time.monotonic()
        elif one is not None and self._process.is_alive():
            one.stopped_at = spell.over = time.monotonic()
            self._process.terminate()

    def _end(self, trouble: Trouble) -> None:
        if trouble.kind in ANSWERS:
            self._answer()
            return
        names.write(self._task.hosts, there=True)
        if self._certificates is not None:
            self._certificates.replaced = 0
        self._front.calm()

    def _answer(self) -> None:
        self._regal.set_faults(rules_of(self._storm, [one.trouble for one in self._in_force(ANSWERS)]))

    def _kill(self, one: OneTry | None) -> None:
        if one is not None:
            self._process.kill()

    # -- what must not be there

    def _leaks(self) -> Iterator[str]:
        """Search everything the sender wrote and raised for the key and for personal data."""
        for file in sorted([*self._folder.glob("try-*.log"), *self._folder.glob("try-*.json")]):
            written = file.read_text(errors="replace")
            counts = Counter({secret: written.count(secret) for secret in (KEY, *self.found.source.secrets)})
            yield from (f"{file.name}: {secret!r} {count} times" for secret, count in counts.items() if count)
