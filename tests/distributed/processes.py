"""Programs that a test starts, signals and stops, each in its own session with its own log."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

_WAIT_S = 0.2
_GRACE_S = 20
_GRACE_OF_ALL_S = 8


def wait_until(what: Callable[[], Any], patience_s: float, why: str, every_s: float = _WAIT_S) -> Any:
    """Wait until a condition is true, and return its value.

    :raises AssertionError: it did not become true in time.
    """
    ends = time.monotonic() + patience_s
    while time.monotonic() < ends:
        if found := what():
            return found
        time.sleep(every_s)
    raise AssertionError(f"waited {patience_s:.0f} s in vain: {why}")


def free_port() -> int:
    """Return an unused port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def members_of(session: int) -> list[int]:
    """Return the processes of a session, which includes a program's children, whatever their group."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                if int(fields[3]) == session and fields[0] != "Z":
                    found.append(int(entry.name))
    return found


class Processes:
    """The programs of a stack, by name.

    :param logs: the folder of their logs.
    """

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, command: Sequence[str], env: Mapping[str, str], **options: Any) -> None:
        """Start a program; it appends to the log of an earlier one with its name."""
        with self.log(name).open("ab") as out:
            self._running[name] = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )

    def log(self, name: str) -> Path:
        """Return the log file of a program."""
        return self._logs / f"{name}.log"

    def check(self) -> None:
        """Check that no program has ended by itself.

        :raises AssertionError: with the end of its log.
        """
        for name, process in self._running.items():
            if process.poll() is not None:
                raise AssertionError(f"{name} ended: {self.log(name).read_text(errors='replace')[-3000:]}")

    def members(self, name: str) -> list[int]:
        """Return the processes of a program and of its children."""
        return members_of(self._running[name].pid)

    def tell(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a program and its children."""
        for pid in self.members(name):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def kill(self, name: str) -> None:
        """Kill a program and its children, and wait until all have ended."""
        session = self._running[name].pid
        while members_of(session):
            self.tell(name, signal.SIGKILL)
            time.sleep(0.05)
        self._running.pop(name).wait()

    def end(self, name: str, number: signal.Signals = signal.SIGTERM) -> None:
        """Stop a program, and kill whatever does not stop."""
        process = self._running[name]
        with suppress(ProcessLookupError):
            process.send_signal(number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(_GRACE_S)
        self.kill(name)

    def end_all(self) -> None:
        """Stop everything, and after a while kill what has not stopped."""
        for name in self._running:
            self.tell(name, signal.SIGCONT)  # a frozen process can't end
            self._running[name].terminate()
        ends = time.monotonic() + _GRACE_OF_ALL_S
        while time.monotonic() < ends and any(process.poll() is None for process in self._running.values()):
            time.sleep(_WAIT_S)
        for name in list(self._running):
            self.kill(name)
