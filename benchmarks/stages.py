"""Where the CPU time of a delivery goes: py-spy samples the stacks of running threads, from outside.

Sampling from inside would need the interpreter's lock, and so see a thread mostly where it releases the lock.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import airflow_provider_regal
from benchmarks.running import SERVER_CORE

_A_SECOND: Final = 500
_FRAME: Final = re.compile(r"\((?P<file>.+?)(:\d+)?\)$")
_OURS: Final = str(Path(airflow_provider_regal.__file__).parent) + "/"
OTHER: Final = "other"

# The innermost frame that the table contains decides; earlier entries of the table take precedence.
_STAGES: Final = (
    ("phone", (f"{_OURS}events/identifiers.py", "/phonenumbers/")),
    ("read the query", (f"{_OURS}operators/_query.py", "/airflow/providers/")),
    ("snapshot: write and read", (f"{_OURS}ledger/rows.py",)),
    ("first pass and index", (f"{_OURS}delivery/reading/first_pass.py", f"{_OURS}delivery/reading/row_index.py")),
    ("map", (f"{_OURS}events/rows/mapping.py", f"{_OURS}events/rows/columns.py", f"{_OURS}events/rows/coercion.py")),
    ("payload and JSON", (f"{_OURS}events/payload.py", f"{_OURS}events/consent.py")),
    ("validate", (f"{_OURS}events/", "/pydantic")),
    ("send: aiohttp", (f"{_OURS}client/many.py", f"{_OURS}client/deadlines.py", "/aiohttp/", "/yarl/", "/multidict/")),
    ("send: what an answer means", (f"{_OURS}client/exchange.py", f"{_OURS}client/")),
    (
        "admission",
        tuple(f"{_OURS}delivery/{m}.py" for m in ("sending/admission", "reading/prepare", "reading/keys")),
    ),
    ("ledger", (f"{_OURS}delivery/sending/recorder.py", f"{_OURS}ledger/", "/sqlalchemy/", "/psycopg2/")),
    ("engine: order, pace, start", (f"{_OURS}delivery/",)),
    ("event loop", ("/asyncio/",)),
)  # fmt: skip
STAGES: Final = (*(name for name, _ in _STAGES), OTHER)


def stage_of(stack: str) -> str:
    """Return the stage in which a thread was.

    :param stack: in py-spy's format: ``function (file:line);function (file:line)``, innermost last.
    """
    for frame in reversed(stack.split(";")):
        found = _FRAME.search(frame)
        file = found["file"] if found else ""
        for stage, parts in _STAGES:
            if any(part in file for part in parts):
                return stage
    return OTHER


class Sampler:
    """A context manager that counts the stages of this process's running threads.

    :param file: for the stacks.
    """

    def __init__(self, file: Path) -> None:
        self.found: Counter[str] = Counter()
        self._file = file

    def __enter__(self) -> Sampler:
        spy = Path(sys.executable).with_name("py-spy")
        command = [str(spy), "record", "--pid", str(os.getpid()), "--rate", str(_A_SECOND), "--format", "raw"]
        command += ["--full-filenames", "--nonblocking", "--output", str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        os.sched_setaffinity(self._process.pid, {SERVER_CORE})  # where it does not disturb the measurement
        time.sleep(1)  # until it starts sampling
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        said, _none = self._process.communicate(timeout=60)
        if not self._file.exists():
            raise RuntimeError(f"py-spy saw nothing: {said.decode()}")
        for line in filter(None, self._file.read_text().splitlines()):  # py-spy may write empty ones
            stack, _space, count = line.rpartition(" ")
            self.found[stage_of(stack)] += int(count)
