"""Clock and randomness, injected wherever they affect a decision."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Clock and randomness, which tests can replace.

    :param monotonic: returns monotonic seconds.
    :param sleep: waits for this many seconds.
    :param now: returns the current time (aware).
    :param jitter: returns a random number from 0 to 1.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    jitter: Callable[[], float] = random.random
