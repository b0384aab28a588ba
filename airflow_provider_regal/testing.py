"""A local Regal for tests: a real server on a free port, in a thread of the test process.

In a ``conftest.py``::

    pytest_plugins = ["airflow_provider_regal.testing"]

and in a test::

    def test_the_dag_sends_contacts(regal_sandbox, regal_ledger, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_DEFAULT", regal_sandbox.connection())
        ...
        assert regal_sandbox.contact(phone="+12125550100")["phones"]["+12125550100"]["sms"]["status"] == "Subscribed"
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.api import find_contacts
from airflow_provider_regal.sandbox.clock import Clock, ManualClock
from airflow_provider_regal.sandbox.faults import parse_rules
from airflow_provider_regal.sandbox.server import Running, connection_json, listen, start, url_of
from airflow_provider_regal.sandbox.settings import (
    DEFAULT_API_KEY,
    DEFAULT_HOST,
    IDENTIFIERS,
    SandboxSettings,
)

__all__ = ["ManualClock", "Sandbox"]
_Result = TypeVar("_Result")
_START_S = 30


class Sandbox:
    """A local Regal that runs during the ``with`` block.

    .. code-block:: python

        with Sandbox(rate_limit=100, faults=[{"on": {"requests": [3]}, "do": {"status": 500}}]) as regal:
            os.environ["AIRFLOW_CONN_REGAL_DEFAULT"] = regal.connection()
            ...
            assert regal.stats()["contract_findings"] == {}

    :param api_key: the expected key.
    :param rate_limit: maximum number of requests in any second; ``None`` for no limit.
    :param latency_ms: how long each answer takes.
    :param faults: rules for bad answers, as dictionaries; the first that matches a request applies.
    :param lookup_order: the order in which identifiers are used to find a profile.
    :param retry_after: seconds in ``Retry-After`` when over the limit; ``None`` for no header.
    :param wrong_key_status: 401, or 403 with a JSON body.
    :param clock: the sandbox's clock; a :class:`ManualClock` moves only when told to.
    :param allow_hosts: additional host names of the sandbox, besides ``localhost`` and IP addresses.
    :param settings: limits of memory, body size, connections and time, by the names of ``SandboxSettings``.
    :raises ValueError: an option or a fault rule is invalid.
    """

    def __init__(
        self,
        *,
        api_key: str = DEFAULT_API_KEY,
        rate_limit: int | None = None,
        latency_ms: float = 0,
        faults: Sequence[dict[str, Any]] | None = None,
        lookup_order: Sequence[str] = IDENTIFIERS,
        retry_after: int | None = None,
        wrong_key_status: int = 401,
        clock: Clock | None = None,
        allow_hosts: Sequence[str] = (),
        **settings: Any,
    ) -> None:
        self._account = Account(
            SandboxSettings(
                api_key=api_key,
                rate_limit=rate_limit,
                latency_ms=latency_ms,
                lookup_order=tuple(lookup_order),
                retry_after=retry_after,
                wrong_key_status=wrong_key_status,
                allow_hosts=tuple(allow_hosts),
                **settings,
            ),
            clock,
            parse_rules(list(faults or [])),
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._running: Running | None = None
        self._port = 0
        self._url = ""

    @property
    def url(self) -> str:
        """The sandbox's URL, such as ``http://127.0.0.1:40123``; unchanged after :meth:`stop` and :meth:`start`.

        :raises RuntimeError: it was never started.
        """
        if not self._url:
            raise RuntimeError("the sandbox has not been started: use it in a with block, or call start()")
        return self._url

    @property
    def api_key(self) -> str:
        """The expected key."""
        return self._account.settings.api_key

    def connection(self, **extra: object) -> str:
        """Return an Airflow connection to it, as JSON text for ``AIRFLOW_CONN_REGAL_DEFAULT``.

        :param extra: added to the connection's extras, such as ``rate_limit=50``.
        """
        return connection_json(self.url, self.api_key, extra)

    def start(self) -> None:
        """Listen, if not already listening: on a free port at first, on the same one after :meth:`stop`."""
        if self._loop is not None:
            return
        listening = listen(DEFAULT_HOST, self._port)
        self._port, self._url = listening.getsockname()[1], url_of(listening)
        loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=_run, args=(loop,), name="regal-sandbox", daemon=True)
        self._thread.start()
        self._loop = loop
        self._running = asyncio.run_coroutine_threadsafe(start(self._account, listening), loop).result(_START_S)

    def stop(self) -> None:
        """Stop listening and close all connections, including hanging ones: an outage. What was received is kept."""
        loop, thread, running = self._loop, self._thread, self._running
        if loop is None or thread is None or running is None:
            return
        asyncio.run_coroutine_threadsafe(running.stop(), loop).result(_START_S)
        self._loop = self._thread = self._running = None
        loop.call_soon_threadsafe(loop.stop)
        thread.join()

    def settle(self, timeout_s: float = 5) -> None:
        """Wait until everything received has been processed.

        :raises TimeoutError: that took longer than ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while self._loop is None and self._account.process_next():
            pass
        while self._ask(lambda account: account.pending):
            if time.monotonic() > deadline:
                raise TimeoutError(f"the sandbox still had events to process after {timeout_s} s")
            time.sleep(0.002)

    def events(self, *, stored: bool | None = None) -> list[dict[str, Any]]:
        """List every request received, oldest first.

        :param stored: only those stored, or only those not stored.
        """
        self.settle()
        events = self._ask(lambda account: [entry.to_json() for entry in account.journal.after(0)])
        return [event for event in events if stored in (None, event["stored"])]

    def contacts(self, *, hidden: bool = False) -> list[dict[str, Any]]:
        """List contacts, most recently changed first.

        :param hidden: also profiles that have neither phone nor email yet.
        """
        self.settle()
        return self._ask(lambda account: [contact.to_json() for contact in account.contacts(hidden=hidden)])

    def contact(
        self, *, phone: str | None = None, email: str | None = None, user_id: str | None = None
    ) -> dict[str, Any] | None:
        """Find the contact that all given identifiers lead to, if there is one.

        :raises ValueError: none is given.
        """
        if phone is None and email is None and user_id is None:
            raise ValueError("contact() needs a phone, an email or a user_id")
        self.settle()
        found = self._ask(
            lambda account: [
                contact.to_json() for contact in find_contacts(account, phone=phone, email=email, user_id=user_id)
            ]
        )
        return found[0] if found else None

    def stats(self) -> dict[str, Any]:
        """Return the counts: requests, answers, findings, the busiest second and so on."""
        self.settle()
        return self._ask(lambda account: account.stats())

    def set_faults(self, rules: Sequence[dict[str, Any]]) -> None:
        """Replace the fault rules; the numbering of requests continues.

        :raises ValueError: a rule is invalid; the text names rule and key.
        """
        parsed = parse_rules(list(rules))
        self._ask(lambda account: account.set_rules(parsed))

    def reset(self) -> None:
        """Delete all data and counts, and number requests from 1 again; the fault rules stay."""
        self._ask(lambda account: account.reset())

    def _ask(self, question: Callable[[Account], _Result]) -> _Result:
        # The account belongs to the server's thread while that is running.
        async def ask() -> _Result:
            return question(self._account)

        if self._loop is None:
            return question(self._account)
        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result()

    def __enter__(self) -> Sandbox:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _run(loop: asyncio.AbstractEventLoop) -> None:
    """Run a loop until it is stopped; then end what is still under way in it, and close it."""
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.get_loop().run_forever()


try:
    import pytest
except ModuleNotFoundError:
    pass
else:

    @pytest.fixture
    def regal_sandbox() -> Iterator[Sandbox]:
        """Run a fresh local Regal for one test."""
        with Sandbox() as sandbox:
            yield sandbox

    @pytest.fixture
    def regal_ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """Create an empty ledger for one test; return its SQLite file."""
        file = tmp_path / "regal-ledger" / "ledger.db"
        monkeypatch.setenv("AIRFLOW_CONN_REGAL_TEST_LEDGER", json.dumps({"conn_type": "sqlite", "host": str(file)}))
        monkeypatch.setenv("AIRFLOW__REGAL__LEDGER_CONN_ID", "regal_test_ledger")
        return file
