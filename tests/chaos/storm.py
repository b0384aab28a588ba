"""A storm: what is delivered, and when which troubles occur. Drawn from a seed, so that it can be repeated.

===============  =====================================================================================================
refused          connections are refused, and existing ones dropped: Regal is down
half_open        connections are accepted, but never answered; the request does not arrive
silent           likewise, before TLS and HTTP begin
swallowed        requests arrive at Regal, but are never answered
half_answer      only half of the answer arrives
torn             the connection is reset in the middle of the request
reset            the request arrives, and the connection is reset instead of an answer
certificate      another certificate is presented: of an unknown authority, or for another name
dns              the sender is killed, and its next tries can't resolve the name
unavailable      503, with or without ``Retry-After``
too_many         429 with ``Retry-After``
html             1 in 50 answers is an HTML page, with a status of a gateway or 200
latency          answers take from 20 ms to 5 s
lost             the connection closes without an answer; the event is stored
kill             SIGKILL of the sender
stop             SIGTERM of the sender, as when Airflow stops a task
===============  =====================================================================================================
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

from tests.chaos import names

GUARANTEES = ("at_most_once", "at_least_once")
SOURCES = ("python", "sql", "csv", "jsonl", "parquet", "segment", "sync", "hook")
LEDGERS = ("sqlite", "postgresql")
NETWORK = ("refused", "half_open", "silent", "swallowed", "half_answer", "torn", "reset", "certificate", "dns")
ANSWERS = ("unavailable", "too_many", "html", "latency", "lost")
SENDER = ("kill", "stop")
NEEDS_TLS = ("certificate", "dns")
HTML_STATUS = (200, 500, 502, 504)


@dataclass(frozen=True)
class Trouble:
    """One of the troubles above.

    :param after: the number of requests after which it may begin.
    :param later_s: seconds after that.
    :param lasts_s: its duration.
    :param share: the share of affected requests.
    :param status: of answers.
    :param retry_after: seconds that Regal asks for.
    :param stored: whether Regal has the event.
    """

    kind: str
    after: int
    later_s: float = 0.0
    lasts_s: float = 0.0
    share: float = 1.0
    status: int | None = None
    retry_after: int | None = None
    stored: bool = False

    def __str__(self) -> str:
        usual = {one.name: one.default for one in fields(self)}
        told = [f"{name} {value}" for name, value in asdict(self).items() if value != usual[name] and name != "kind"]
        return f"{self.kind}: {', '.join(told)}"


@dataclass(frozen=True)
class Storm:
    """What happens, and to what.

    :param invalid: rows that have to be rejected.
    :param rate: requests per second of the account.
    :param patience_s: ``outage_patience``.
    :param timeout_s: of a request.
    :param retry_delay_s: between tries.
    """

    seed: int
    guarantee: str
    source: str
    call: str
    ledger: str
    rows: int
    invalid: int
    rate: int
    connections: int
    tls: bool
    patience_s: float
    timeout_s: float
    retry_delay_s: float
    latency_ms: float
    troubles: tuple[Trouble, ...]

    @property
    def host(self) -> str:
        """The name of Regal's host."""
        if any(trouble.kind == "dns" for trouble in self.troubles):
            return names.HOST
        return "localhost" if self.tls else "127.0.0.1"

    def script(self) -> str:
        """Format the script for people."""
        told = {name: value for name, value in asdict(self).items() if name != "troubles"}
        head = " ".join(f"{name}={value}" for name, value in told.items())
        return "\n".join([head, *(f"  - {trouble}" for trouble in self.troubles)])

    def as_dict(self) -> dict[str, Any]:
        """Return the storm for the results."""
        return {**asdict(self), "troubles": [str(trouble) for trouble in self.troubles]}


def draw(seed: int, *, ledgers: tuple[str, ...] = LEDGERS) -> Storm:
    """Draw a storm; consecutive seeds cover all guarantees and sources."""
    chance = random.Random(f"storm {seed}")
    source = SOURCES[seed // len(GUARANTEES) % len(SOURCES)]
    call = {"sync": "identify", "segment": "track"}.get(source) or chance.choice(("track", "identify"))
    rows = chance.randrange(80, 280)
    patience_s = round(chance.uniform(1.5, 3.0), 1)
    tls = chance.random() < 0.5
    return Storm(
        seed=seed,
        guarantee=GUARANTEES[seed % len(GUARANTEES)],
        source=source,
        call=call,
        ledger=chance.choice(ledgers),
        rows=rows,
        invalid=chance.choice((0, 0, 1, 3)) if source != "sync" else 0,
        rate=chance.choice((60, 100, 150, 200)),
        connections=chance.choice((8, 32, 64)),
        tls=tls,
        patience_s=patience_s,
        timeout_s=chance.choice((2.0, 4.0, 7.0)),
        retry_delay_s=round(chance.uniform(0.3, 1.5), 1),
        latency_ms=chance.choice((2, 20, 60)),
        troubles=tuple(_troubles(chance, rows, patience_s, tls=tls)),
    )


def _troubles(chance: random.Random, rows: int, patience_s: float, *, tls: bool) -> Iterator[Trouble]:
    kinds = [kind for kind in (*NETWORK, *ANSWERS) if tls or kind not in NEEDS_TLS]
    if tls:
        kinds += NEEDS_TLS  # not possible in half of the storms
    for _ in range(chance.choice((1, 2, 2, 3))):
        after = int(rows * chance.uniform(0.0, 0.8))
        trouble = _one(chance, chance.choice(kinds), after, patience_s)
        yield trouble
        if chance.random() < 0.4:
            kind = "kill" if chance.random() < 0.75 else "stop"
            yield Trouble(kind, after + chance.choice((0, 0, 20)), later_s=round(chance.uniform(0.0, 3.0), 2))


def _one(chance: random.Random, kind: str, after: int, patience_s: float) -> Trouble:
    long_s = round(patience_s * chance.uniform(1.2, 3.0), 1)  # several tries fail
    short_s = round(chance.uniform(0.5, 4.0), 1)
    some = chance.choice((1.0, 0.3, 0.05))
    match kind:
        case "unavailable":
            retry_after = chance.choice((None, 1, 2))
            return Trouble(kind, after, 0.0, long_s, chance.choice((1.0, 0.3)), 503, retry_after, chance.random() < 0.5)
        case "too_many":
            return Trouble(kind, after, 0.0, short_s, some, 429, chance.choice((1, 2)))
        case "html":
            status = chance.choice(HTML_STATUS)
            stored = status == 200 or chance.random() < 0.5
            return Trouble(kind, after, 0.0, long_s * 2, 0.02, status, stored=stored)
        case "latency":
            return Trouble(kind, after, 0.0, long_s)
        case "lost":
            return Trouble(kind, after, 0.0, short_s, chance.choice((0.3, 0.05)), stored=True)
        case "refused" | "certificate" | "dns":
            return Trouble(kind, after, 0.0, long_s)
        case _:
            return Trouble(kind, after, 0.0, chance.choice((short_s, long_s)), some)


def long_outages() -> list[Storm]:
    """Return two outages of ten real minutes, one for each guarantee, with the usual retries of tasks."""
    usual: dict[str, Any] = {
        "source": "sql", "call": "track", "ledger": "postgresql", "rows": 600, "invalid": 0, "rate": 60,
        "connections": 256, "tls": True, "patience_s": 120.0, "timeout_s": 30.0, "retry_delay_s": 60.0,
        "latency_ms": 60.0, "troubles": (Trouble("refused", 150, lasts_s=600.0),),
    }  # fmt: skip
    return [Storm(seed=number, guarantee=guarantee, **usual) for number, guarantee in enumerate(GUARANTEES)]


def rules_of(storm: Storm, troubles: list[Trouble]) -> list[dict[str, Any]]:
    """Return the sandbox rules for the active troubles."""
    rules: list[dict[str, Any]] = []
    for trouble in troubles:
        number = storm.troubles.index(trouble) if trouble in storm.troubles else 0
        seed = storm.seed * 100 + number * 10
        on: dict[str, Any] = {} if trouble.share >= 1 else {"on": {"share": trouble.share, "seed": seed}}
        match trouble.kind:
            case "unavailable" | "too_many":
                asked = {} if trouble.retry_after is None else {"retry_after": trouble.retry_after}
                stored = trouble.stored and trouble.retry_after is None  # with it, Regal has not accepted the event
                rules.append({**on, "do": {"status": trouble.status, "store": stored, **asked}})
            case "html":
                rules.append({**on, "do": {"status": trouble.status, "body": "html", "store": trouble.stored}})
            case "lost":
                rules.append({**on, "do": {"drop": True}})
            case "latency":
                for share, delay_ms in ((0.02, 5_000), (0.1, 1_000), (0.3, 250)):
                    rules.append({"on": {"share": share, "seed": seed + delay_ms}, "do": {"delay_ms": delay_ms}})
                rules.append({"do": {"delay_ms": 20}})
    return rules
