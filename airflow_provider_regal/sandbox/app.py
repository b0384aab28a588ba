"""The web application: ``POST /events`` as Regal offers it, and everything around it.

``Account`` decides; this module only executes the decision on the wire: answers, waits, hangs up.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator

from aiohttp import web

from airflow_provider_regal.sandbox import api
from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.answers import Answer
from airflow_provider_regal.sandbox.callers import refuse_strangers
from airflow_provider_regal.sandbox.gate import Arrival
from airflow_provider_regal.sandbox.keys import ACCOUNT, STOPPING, WAKE
from airflow_provider_regal.sandbox.pages import routes as pages

# Events processed before control returns to the event loop: accepting events comes first, until too many wait.
_SLICE = 1
_BUSY_SLICE = 500
_LAST_WORK_S = 0.5


def build_app(account: Account) -> web.Application:
    """Build the application around one account."""
    app = web.Application(
        middlewares=[refuse_strangers, pages.helpful_errors], client_max_size=account.settings.max_body_bytes
    )
    app[ACCOUNT] = account
    app[WAKE] = asyncio.Event()
    app[WAKE].set()
    app[STOPPING] = asyncio.Event()
    app.router.add_post("/events", post_event)
    app.router.add_routes(api.ROUTES)
    app.router.add_routes(pages.ROUTES)
    app.cleanup_ctx.append(_processing)
    app.on_shutdown.append(_let_go)
    return app


async def post_event(request: web.Request) -> web.StreamResponse:
    """Read one event completely, get the account's decision, and execute it."""
    body: bytes | None
    try:
        body = await api.read_body(request)
    except web.HTTPRequestEntityTooLarge:
        body = None
    account = request.app[ACCOUNT]
    journal = account.journal
    arrival = Arrival(request.headers.get("Authorization"), request.content_type, body)
    entry, answer = account.receive(arrival)
    request.app[WAKE].set()
    try:
        return await _play(request, answer, account.settings.latency_ms)
    except (asyncio.CancelledError, ConnectionError):
        if answer.way in ("answer", "slow_body"):
            journal.unanswered(entry)
        raise


async def _play(request: web.Request, answer: Answer, latency_ms: float) -> web.StreamResponse:
    stopping = request.app[STOPPING]
    wait_ms = latency_ms if answer.way == "slow_body" else latency_ms + answer.delay_ms
    if await _pause(stopping, wait_ms):
        return _hang_up(request)
    if answer.way == "hang":
        await stopping.wait()
    if answer.way in ("hang", "drop"):
        return _hang_up(request)
    if answer.way == "reset":
        return _hang_up(request, abruptly=True)
    headers = {} if answer.retry_after is None else {"Retry-After": answer.retry_after}
    if answer.way == "slow_body":
        return await _drip(request, answer, headers)
    if not answer.body:
        return web.Response(status=answer.status, headers=headers)
    return web.Response(
        status=answer.status,
        body=answer.body,
        content_type=answer.content_type,
        charset="utf-8",
        headers=headers,
    )


async def _drip(request: web.Request, answer: Answer, headers: dict[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(status=answer.status, headers=headers)
    response.content_type = answer.content_type
    response.content_length = len(answer.body)
    await response.prepare(request)
    for position in range(len(answer.body)):
        if await _pause(request.app[STOPPING], answer.delay_ms):
            return _hang_up(request)
        await response.write(answer.body[position : position + 1])
    return response


async def _pause(stopping: asyncio.Event, milliseconds: float) -> bool:
    """Wait; return whether the sandbox is being stopped in the meantime."""
    if milliseconds <= 0:
        return False
    try:
        await asyncio.wait_for(stopping.wait(), milliseconds / 1000)
    except TimeoutError:
        return False
    return True


def _hang_up(request: web.Request, *, abruptly: bool = False) -> web.Response:
    transport = request.transport
    if transport is not None and not transport.is_closing():
        connection = transport.get_extra_info("socket")
        if abruptly and connection is not None:
            # A linger time of zero closes with a reset (RST) instead of an orderly end (FIN).
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort() if abruptly else transport.close()
    # aiohttp requires a response, but the connection is already closed.
    return web.Response()


async def _processing(app: web.Application) -> AsyncIterator[None]:
    task = asyncio.create_task(_process(app[ACCOUNT], app[WAKE]))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    until = asyncio.get_running_loop().time() + _LAST_WORK_S
    while asyncio.get_running_loop().time() < until and app[ACCOUNT].process_next():
        pass  # what is left is kept, for a start after this stop


async def _process(account: Account, wake: asyncio.Event) -> None:
    while True:
        await wake.wait()
        wake.clear()
        while account.pending:
            for _ in range(_BUSY_SLICE if account.is_busy else _SLICE):
                account.process_next()
            await asyncio.sleep(0)


async def _let_go(app: web.Application) -> None:
    app[STOPPING].set()
