"""A sandbox on a real socket, and a plain HTTP client to talk to it."""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_regal.testing import Sandbox

MISSING = object()


@dataclass
class Reply:
    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Talker:
    """Sends requests to one sandbox and returns its answers."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        timeout: float = 5,
    ) -> Reply:
        connection = http.client.HTTPConnection(urlsplit(self.sandbox.url).netloc, timeout=timeout)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            return Reply(response.status, response.read(), dict(response.getheaders()))
        finally:
            connection.close()

    def post(
        self, body: object = MISSING, *, raw: bytes = b"", key: str | None = "sandbox-key", timeout: float = 5
    ) -> Reply:
        headers = {"Content-Type": "application/json"} | ({} if key is None else {"Authorization": key})
        data = raw if body is MISSING else json.dumps(body).encode()
        return self.request("POST", "/events", data, headers, timeout)

    def get(self, path: str, accept: str = "application/json") -> Reply:
        return self.request("GET", path, headers={"Accept": accept})

    def page(self, path: str) -> str:
        reply = self.get(path, "text/html")
        assert reply.status == 200
        return reply.text

    def findings(self) -> list[str]:
        """The kinds found in the newest request."""
        return [finding["kind"] for finding in self.sandbox.events()[-1]["findings"]]


@pytest.fixture
def run_sandbox() -> Iterator[Callable[..., Talker]]:
    """Start a sandbox with the options given; it stops with the test."""
    with ExitStack() as stack:
        yield lambda **options: Talker(stack.enter_context(Sandbox(**options)))


@pytest.fixture
def regal(run_sandbox: Callable[..., Talker]) -> Talker:
    """A sandbox with no special options."""
    return run_sandbox()
