"""Time and chance, handed in wherever they decide something."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime


@dataclass(frozen=True, slots=True)
class Clock:
    """Time and chance, so that tests can bring their own.

    :param monotonic: seconds that only grow.
    :param sleep: waits for so many seconds.
    :param now: the current time (aware).
    :param jitter: a random number from 0 to 1.
    """

    monotonic: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    jitter: Callable[[], float] = random.random
