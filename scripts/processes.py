"""Child processes that end with this process, and free ports."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path


def free_port(wished: int) -> int:
    """Return the requested port of 127.0.0.1, or another one if it is taken.

    The port is reserved as long as this process runs, so that two processes starting at the same time get different
    ones.
    """
    for port in (wished, *[0] * 20):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                found: int = probe.getsockname()[1]
                _reserve(found)
                if found != wished:
                    print(f"Port {wished} is taken; using {found}.")
                return found
    raise SystemExit("No port of 127.0.0.1 is free.")


_RESERVED: list[socket.socket] = []


def _reserve(port: int) -> None:
    """Reserve a port among processes that use this function; a program may take long until it listens.

    :raises OSError: another process has reserved it.
    """
    if sys.platform == "linux":
        mark = socket.socket(socket.AF_UNIX)
        mark.bind(f"\0airflow-provider-regal port {port}")  # has no file, and disappears with this process
        _RESERVED.append(mark)


@contextlib.contextmanager
def running(command: Sequence[str], env: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program with its children in a separate process group; on exit, stop the whole group."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        yield process
    finally:
        _end_group(process)


def _end_group(process: subprocess.Popen[bytes]) -> None:
    for number, patience_s in ((signal.SIGTERM, 15), (signal.SIGKILL, 5)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience_s)
    process.wait()


def stop_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into an orderly exit, so that all child processes are stopped."""

    def leave(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, leave)
    # A shell that starts us in the background ignores it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
