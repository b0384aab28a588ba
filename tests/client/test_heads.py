"""Request heads that two threads write at the same time."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest
from aiohttp import http_writer
from multidict import CIMultiDict

from airflow_provider_regal.client.heads import write_heads_safely

TIMES = 30_000


class Garbage:
    """Is only freed by a garbage collection, which then runs code, so that another thread may run in between."""

    def __init__(self) -> None:
        self.itself = self

    def __del__(self) -> None:
        for _ in range(50):
            pass


@pytest.fixture
def hasty_threads() -> Any:
    """Let threads take turns as often as they can."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


@pytest.mark.usefixtures("hasty_threads")
def test_a_head_has_no_lines_of_another_threads_head() -> None:
    write_heads_safely()
    write = vars(http_writer)["_serialize_headers"]
    wrong: list[bytes] = []

    def write_many(first_line: str) -> None:
        headers = CIMultiDict({f"Name-{number}": first_line * 3 for number in range(20)})
        right = write(first_line, headers)
        for _ in range(TIMES):
            Garbage()
            if (written := write(first_line, headers)) != right:
                wrong.append(written)

    threads = [
        threading.Thread(target=write_many, args=(line,)) for line in ("POST /events HTTP/1.1", "HTTP/1.1 200 OK")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
