"""Where the time of a delivery goes: the stacks of all threads, looked at every two milliseconds."""

from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType
from typing import Final

import airflow_provider_regal

_EVERY_S: Final = 0.002
_SWITCH_S: Final = 0.000_5
_OURS: Final = str(Path(airflow_provider_regal.__file__).parent) + "/"
IDLE: Final = "waiting"
OTHER: Final = "other"

# The innermost frame of which the table knows the file decides; what stands first in the table wins over what follows.
_STAGES: Final = (
    ("phone", (f"{_OURS}events/identifiers.py", "/phonenumbers/")),
    ("read the query", (f"{_OURS}operators/_query.py", "/airflow/providers/")),
    ("snapshot: write and read", tuple(f"{_OURS}journal/{name}.py" for name in ("rows", "run_folder", "files"))),
    ("survey and index", (f"{_OURS}delivery/survey.py", f"{_OURS}journal/row_index.py")),
    ("map", (f"{_OURS}events/mapping.py", f"{_OURS}events/columns.py", f"{_OURS}events/coercion.py")),
    ("payload and JSON", (f"{_OURS}events/payload.py", f"{_OURS}events/consent.py")),
    ("validate", (f"{_OURS}events/", "/pydantic")),
    ("send: aiohttp", (f"{_OURS}client/many.py", "/aiohttp/", "/yarl/", "/multidict/")),
    ("send: what an answer means", (f"{_OURS}client/exchange.py", f"{_OURS}client/")),
    ("intake", (f"{_OURS}delivery/intake.py", f"{_OURS}delivery/prepare.py", f"{_OURS}delivery/keys.py")),
    ("journal", (f"{_OURS}delivery/books.py", f"{_OURS}delivery/marking.py", f"{_OURS}journal/")),
    ("engine: order, pace, start", (f"{_OURS}delivery/",)),
    ("event loop", ("/asyncio/",)),
)  # fmt: skip
STAGES: Final = (*(name for name, _ in _STAGES), OTHER)
# Where a thread waits that does nothing.
_IDLE_IN: Final = {
    ("selectors.py", "select"), ("threading.py", "wait"), ("thread.py", "_worker"), ("_base.py", "wait"),
    ("threading.py", "_wait_for_tstate_lock"), ("queue.py", "get"), ("stages.py", "_watch"),
}  # fmt: skip


def stage_of(frame: FrameType | None) -> str:
    """Say at which stage a thread is."""
    if frame is not None and (Path(frame.f_code.co_filename).name, frame.f_code.co_name) in _IDLE_IN:
        return IDLE
    while frame is not None:
        file = frame.f_code.co_filename
        for stage, parts in _STAGES:
            if any(part in file for part in parts):
                return stage
        frame = frame.f_back
    return OTHER


class Sampler:
    """Counts at which stages the threads of this process are, while it is entered."""

    def __init__(self) -> None:
        self.found: Counter[str] = Counter()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Sampler:
        self._before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH_S)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        sys.setswitchinterval(self._before)

    def _watch(self) -> None:
        me = threading.get_ident()
        while not self._done.is_set():
            time.sleep(_EVERY_S)
            stages = [stage_of(frame) for thread, frame in sys._current_frames().items() if thread != me]
            busy = [stage for stage in stages if stage != IDLE]
            self.found.update(busy or [IDLE])
