"""Run a sandbox: bind a socket, serve until stopped, close hanging connections."""

from __future__ import annotations

import argparse
import asyncio
import errno
import json
import os
import shlex
import signal
import socket
import sys
from ipaddress import ip_address
from pathlib import Path
from typing import cast

from aiohttp import web

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.app import build_app
from airflow_provider_regal.sandbox.door import Door
from airflow_provider_regal.sandbox.faults import FaultsError, Rule, parse_rules
from airflow_provider_regal.sandbox.settings import SandboxSettings

_GRACE_S = 0.3
_KEPT_ALIVE_S = 75
_LINGERING_S = 2
_BACKLOG = 1024


def listen(host: str, port: int) -> socket.socket:
    """Bind and listen, so that the port is known and reserved before anything else starts.

    :param port: 0 picks a free one.
    :raises OSError: the address can't be used.
    """
    family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    return socket.create_server(address[:2], family=family, backlog=_BACKLOG)


def url_of(listening: socket.socket) -> str:
    """Return the URL for clients; a sandbox on all interfaces is reached on loopback."""
    host, port = listening.getsockname()[:2]
    if ip_address(host).is_unspecified:
        host = "::1" if ":" in host else "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def connection_json(url: str, api_key: str, extra: dict[str, object] | None = None) -> str:
    """Return an Airflow connection to the sandbox, as JSON text."""
    connection: dict[str, object] = {"conn_type": "regal", "host": url, "password": api_key}
    return json.dumps(connection | ({"extra": extra} if extra else {}))


class Running:
    """A running sandbox."""

    def __init__(self, runner: web.AppRunner, door: Door, listening: asyncio.Server) -> None:
        self._runner, self._door, self._listening = runner, door, listening

    async def stop(self) -> None:
        """Stop listening and close all connections, including half-sent and hanging requests, within two seconds."""
        self._listening.close()
        self._door.close()
        await self._runner.cleanup()


async def start(account: Account, listening: socket.socket) -> Running:
    """Serve ``account`` on a listening socket."""
    runner = web.AppRunner(
        build_app(account),
        access_log=None,
        shutdown_timeout=_GRACE_S,
        keepalive_timeout=_KEPT_ALIVE_S,  # the next head must arrive within this time
        lingering_time=_LINGERING_S,
        handler_cancellation=True,  # when the client disconnects, so that a hanging answer ends
    )
    await runner.setup()
    settings = account.settings
    door = Door(cast("web.Server", runner.server), most=settings.max_connections, patience_s=settings.request_timeout_s)
    server = await asyncio.get_running_loop().create_server(door, sock=listening, backlog=_BACKLOG)
    return Running(runner, door, server)


def run_sandbox(args: argparse.Namespace) -> int:
    """Run the command ``sandbox`` until Ctrl-C or SIGTERM.

    :return: the exit code; 2 if it could not start.
    """
    try:
        settings = SandboxSettings(
            api_key=args.api_key,
            rate_limit=args.rate_limit or None,
            retry_after=args.retry_after,
            latency_ms=args.latency_ms,
            wrong_key_status=args.wrong_key_status,
            lookup_order=tuple(args.lookup_order.split(",")),
            allow_hosts=_names(args),
        )
        rules = _rules(args.faults)
        listening = listen(args.host, args.port)
    except OSError as error:
        hint = "; give another --port, or 0 for any free one" if error.errno == errno.EADDRINUSE else ""
        return _fail(f"cannot listen on {args.host}:{args.port}: {_reason(error)}{hint}")
    except (ValueError, OverflowError) as error:
        return _fail(str(error))
    account = Account(settings, rules=rules)
    asyncio.run(_serve(account, listening))
    stats = account.stats()
    print(f"Stopped: {stats['requests']:,} requests, {stats['stored']:,} events stored.", flush=True)
    return 0


def _names(args: argparse.Namespace) -> tuple[str, ...]:
    """Return the names it answers to, including the name it listens on."""
    try:
        ip_address(args.host)
    except ValueError:
        return (*args.allow_host, args.host.lower())
    return tuple(args.allow_host)


def _rules(path: str | None) -> list[Rule]:
    if path is None:
        return []
    try:
        return parse_rules(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise ValueError(f"cannot read the faults file {path}: {_reason(error)}") from None
    except FaultsError as error:
        raise ValueError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from None


def _reason(error: OSError) -> str:
    # The message of create_server repeats the address; errors of name lookup have their own negative numbers.
    if error.errno is not None and error.errno > 0:
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _fail(reason: str) -> int:
    print(f"sandbox: {reason}", file=sys.stderr)
    return 2


async def _serve(account: Account, listening: socket.socket) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    url = url_of(listening)
    host = listening.getsockname()[0]
    running = await start(account, listening)
    print(_greeting(url, account.settings, loopback=ip_address(host).is_loopback), flush=True)
    await stop.wait()
    await running.stop()


def _greeting(url: str, settings: SandboxSettings, *, loopback: bool) -> str:
    limit = "none" if settings.rate_limit is None else f"{settings.rate_limit:,} requests in any second"
    lines = [
        "A Regal on this machine. Nothing sent here leaves it; it forgets everything when it stops.",
        "",
        f"  Pages    {url}/",
        f"  Events   {url}/events",
        f"  API key  {settings.api_key}",
        f"  Limit    {limit}",
        "",
        "Point Airflow at it:",
        "",
        f"AIRFLOW_CONN_REGAL_DEFAULT={shlex.quote(connection_json(url, settings.api_key))}",
        "",
    ]
    if not loopback:
        lines += ["Other machines can reach this: the pages and the side API ask for no key.", ""]
    return "\n".join([*lines, "Ctrl-C stops it."])
