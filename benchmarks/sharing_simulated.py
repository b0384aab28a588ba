"""Two to five hundred tasks that share a rate, on a simulated clock.

``python -m benchmarks.sharing_simulated [--tasks 2,10,50,100,500] [--seconds 60]``

Uses the real pacer and shares; the ledger is a dictionary, a commit takes 5 ms and may be late, and each request has
its own latency. Other systems send to the account, too: Regal answers 429 to what exceeds *its* limit in any second,
and the tasks slow down.
"""

from __future__ import annotations

import argparse
import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.delivery.sending.share import RateShare
from airflow_provider_regal.ledger.shares import TURN_S, Sender, Share, share_of
from benchmarks.pacing import in_bins, worst_window
from benchmarks.running import write_results
from benchmarks.sharing import BIN_S, jain

_COMMIT_S: Final = 0.005
_HOLD_S: Final = 4.5
_SECOND_S: Final = 1.03
_SETTLED_S: Final = 5.0
_REGALS_LIMIT: Final = 300
#: The numbers of tasks whose arrivals are stored in bins, to be drawn.
DRAWN: Final = frozenset({2, 16, 100, 500})


class Ledger:
    """The lines of an account, as in a database."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.lines: dict[str, tuple[float, Sender]] = {}

    def of(self, name: str) -> _Line:
        """Return an object that agrees on the share of one sender."""
        return _Line(self, name)


@dataclass
class _Line:
    ledger: Ledger
    name: str

    def renew(self, connection: Any, wants: int, lower: Callable[[int], int]) -> Share:
        """Agree on a share, as :class:`airflow_provider_regal.ledger.shares.Shares` does."""
        now, limit = self.ledger.world.now, self.ledger.world.limit
        alive = {name: line for name, (until, line) in self.ledger.lines.items() if until >= now}
        due, granted = share_of(self.name, wants, alive, limit, turn=int(now // TURN_S))
        self.ledger.lines[self.name] = (now + _HOLD_S, Sender(wants, max(granted, lower(granted)), limit, ""))
        others = sum(name != self.name and one.wants > 0 for name, one in alive.items())
        return Share(granted, due, others)

    def leave(self, connection: Any, lower: Callable[[int], int]) -> None:
        """Release the share."""
        world = self.ledger.world
        self.ledger.lines[self.name] = (world.now + _SECOND_S, Sender(0, lower(0), world.limit, ""))


@dataclass
class World:
    """The clock, scheduled actions, and what Regal received.

    :param limit: of the account's connection, requests per second.
    """

    limit: int
    chance: random.Random
    now: float = 0.0
    arrivals: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)
    refused: int = 0
    _due: list[tuple[float, int, Callable[[], None]]] = field(default_factory=list)
    _number: int = 0
    _last_second: deque[float] = field(default_factory=deque)

    def at(self, time: float, what: Callable[[], None]) -> None:
        """Schedule an action."""
        self._number += 1
        heapq.heappush(self._due, (time, self._number, what))

    def run(self, until: float) -> None:
        """Advance the clock."""
        while self._due and self._due[0][0] <= until:
            self.now, _, what = heapq.heappop(self._due)
            what()

    def takes(self) -> bool:
        """Return whether Regal accepts a request that arrives now, or answers 429."""
        while self._last_second and self._last_second[0] <= self.now - 1.0:
            self._last_second.popleft()
        if len(self._last_second) >= _REGALS_LIMIT:
            return False
        self._last_second.append(self.now)
        return True


class Task:
    """One task that delivers rows.

    :param rows: the number of its rows.
    """

    def __init__(self, world: World, ledger: Ledger, name: str, rows: int) -> None:
        self.world, self.rows, self.sent = world, rows, 0
        self.pacer = Pacer(0)
        clock = Clock(monotonic=lambda: world.now)
        self.line = ledger.of(name)
        self.share = RateShare(self.line, self.pacer, most=world.limit, clock=clock)  # type: ignore[arg-type]
        self.latency_s = world.chance.uniform(0.02, 0.3)
        self.running = True

    def begin(self) -> None:
        """Join: the first commit, then requests."""
        self.commit()
        self.send()

    def commit(self) -> None:
        """Commit, and schedule the next commit."""
        if not self.running:
            return
        if self.share.ask(self.rows):
            self.share.renew(None)  # type: ignore[arg-type]
            self.share.committed()
        late_s = self.world.chance.expovariate(1 / _COMMIT_S)
        self.world.at(self.world.now + self.share.every_s + late_s, self.commit)

    def send(self) -> None:
        """Send what may go now."""
        if not self.running:
            return
        while self.rows:
            if wait_s := self.pacer.take(self.world.now) or self.pacer.go(self.world.now):
                self.world.at(self.world.now + wait_s + self.world.chance.uniform(0, 0.002), self.send)
                return
            self.rows -= 1
            self.world.at(self.world.now + self.latency_s / 2 + self.world.chance.uniform(0, 0.01), self.arrive)
        self.end()

    def arrive(self) -> None:
        """Handle an answer."""
        if self.world.takes():
            self.sent += 1
            self.world.arrivals.append(self.world.now)
            return
        self.world.refused += 1
        self.rows += 1
        self.pacer.pause(self.world.now + 1.0)
        self.pacer.slow_down(self.world.now)

    def end(self) -> None:
        """Leave."""
        self.running = False
        self.share.leave(None)  # type: ignore[arg-type]


def simulate(tasks: int, *, limit: int, seconds: float, others: float, seed: int = 1) -> dict[str, Any]:
    """Run tasks that share a rate; half of them join and leave during the run.

    :param others: requests per second of other systems, at random times.
    """
    world = World(limit, random.Random(seed))  # noqa: S311 - reproducible
    ledger = Ledger(world)
    staying = max(2, tasks // 2)
    made = []
    for number in range(tasks):
        stays = number < staying
        rows = int(limit * seconds) if stays else int(world.chance.uniform(0.1, 3) * limit * seconds / tasks)
        task = Task(world, ledger, f"t{number:03}", rows)
        world.at(0.0 if stays else world.chance.uniform(0, seconds * 0.8), task.begin)
        made.append(task)

    def another() -> None:
        if world.takes():
            world.others.append(world.now)
        world.at(world.now + world.chance.expovariate(others), another)

    if others:
        world.at(world.chance.expovariate(others), another)
    world.run(seconds)
    steady = [at for at in world.arrivals if at >= _SETTLED_S]
    return {
        "tasks": tasks,
        "limit": limit,
        "others": others,
        "worst": worst_window(sorted(world.arrivals)),
        "share": round(len(steady) / (seconds - _SETTLED_S) / limit, 4),
        "jain": round(jain([task.sent for task in made[:staying]]), 4),
        "refused": world.refused,
        "bins": in_bins(sorted(world.arrivals), BIN_S) if tasks in DRAWN else [],
    }


def main() -> None:
    """Read the command line, simulate, store the results."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tasks", default="2,4,8,16,50,100,200,500")
    parser.add_argument("--seconds", type=float, default=60.0)
    given = parser.parse_args()
    found = []
    for tasks in (int(one) for one in given.tasks.split(",")):
        for limit, others in ((100, 0.0), (270, 0.0), (270, 60.0)):
            result = simulate(tasks, limit=limit, seconds=given.seconds, others=others)
            print({name: value for name, value in result.items() if name != "bins"}, flush=True)
            found.append(result)
    write_results("sharing_simulated", found)


if __name__ == "__main__":
    main()
