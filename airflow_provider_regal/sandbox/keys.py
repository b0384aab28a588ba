"""Keys that the parts of the web application share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from aiohttp import web

from airflow_provider_regal.sandbox.account import Account

ACCOUNT = web.AppKey("account", Account)
WAKE = web.AppKey("wake", asyncio.Event)
STOPPING = web.AppKey("stopping", asyncio.Event)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
