"""Work around a race in aiohttp, which builds request heads in memory shared by all threads.

Its compiled writer did so through 3.12: https://github.com/aio-libs/aiohttp/pull/11464. If garbage collection runs
while a head is being built, another thread may run, and the request can contain lines of that thread's request or
answer.
"""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp import http_writer

_SAFE_SINCE: Final = (3, 13)


def write_heads_safely() -> None:
    """Make this process use aiohttp's pure Python writer for heads where the compiled one is unsafe."""
    major, minor = aiohttp.__version__.split(".")[:2]
    if (int(major), int(minor)) < _SAFE_SINCE:
        vars(http_writer)["_serialize_headers"] = vars(http_writer)["_py_serialize_headers"]
