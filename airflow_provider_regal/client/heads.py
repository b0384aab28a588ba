"""Heads of requests, where aiohttp puts them together in memory that all threads share.

Its compiled writer did so up to 3.12: https://github.com/aio-libs/aiohttp/pull/11464. When garbage is collected in the
middle of a head, another thread may run, and the request goes out with lines of that thread's request or answer.
"""

from __future__ import annotations

from typing import Final

import aiohttp
from aiohttp import http_writer

_SAFE_SINCE: Final = (3, 13)


def write_heads_safely() -> None:
    """Let this process write heads with aiohttp's own code in Python, where the compiled one is not safe."""
    major, minor = aiohttp.__version__.split(".")[:2]
    if (int(major), int(minor)) < _SAFE_SINCE:
        vars(http_writer)["_serialize_headers"] = vars(http_writer)["_py_serialize_headers"]
