"""Rows that no source should return but some will, drawn from a seed: the same seed draws the same rows.

Every fifth row is good. Hostile values, and the messages of exceptions raised by hostile objects, contain
:data:`CANARY`, which must appear only at Regal and in the ledger.
"""

from __future__ import annotations

import itertools
import json
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from ipaddress import ip_address
from random import Random
from types import MappingProxyType, SimpleNamespace
from typing import Any
from uuid import UUID

from airflow_provider_regal.events import Identify, Page, Track
from tests.events.hostile import NA, NAT, NumpyLike, cyclic, deep, doubling
from tests.hostile_objects import (
    CANARY,
    LIES,
    EndlessDict,
    EndlessList,
    GrowingDict,
    HostileArray,
    HostileError,
    HostileScalar,
    HostileTime,
    KeysOnly,
    LyingLength,
    LyingText,
    Nameless,
    OddMapping,
    Raising,
    RaisingDict,
    RaisingFloat,
    RaisingMember,
    RaisingNumber,
    RaisingText,
    Twice,
    WithoutClass,
    Zone,
    liar,
)

GOOD_EVERY = 5
RESERVED = (
    "user_id", "phone", "email", "timestamp", "message_id", "sub_brand", "opt_in", "sms_opt_in", "sms_opt_in_at",
    "sms_opt_in_ip", "sms_opt_in_text", "sms_opt_in_source", "voice_opt_in", "email_opt_in", "first_name", "last_name",
    "address_city", "event", "channel", "subscribed", "ip", "text", "source",
)  # fmt: skip
FREE = ("plan", "amount", "tags", "profile")
ODD_NAMES = (
    "", " ", "\0", "a\0b", "\ud800", "\u202euser_id", " user_id ", "user_id\u200b", "USER_ID", "__proto__",
    "__class__", "constructor", "$row", "$event", "$skip", "$reject", "$claims", "$weight", "$other", "$date", "$",
    "$$row", "traits", "properties", "phones", "emails", "unplaced", "left_out", "optIn", "userId", "a.b", "phones.x",
    "phones.x_sms_opt_in", "new\nline", "'; DROP TABLE regal_outcomes; --", "<script>alert(1)</script>", "x" * 300,
    "n" * 50_000, "(not text)",
)  # fmt: skip


Tuple = namedtuple("Tuple", "user_id plan")


def text(random: Random) -> str:
    """Draw a text that contains the canary, like most personal data."""
    return random.choice(
        [
            CANARY, f"{CANARY}\0", f"\ud800{CANARY}", f"{CANARY}\udfff", f"\u202e{CANARY}\u2066", f"\x1b[31m{CANARY}",
            f"{CANARY}\n2026-01-01 ERROR forged", f"{CANARY}@example.com", f"{{{{ {CANARY} }}}}", f"%s%n{CANARY}",
            f"<b>{CANARY}", f"'{CANARY}", f'"{CANARY}', f"\u2028{CANARY}\x85", f" {CANARY}\ufeff", CANARY * 20_000,
            f"{CANARY}\ud83d\ude00", "e\u0301" * 300, f"[{CANARY}", f'{{"{CANARY}": 1', f"{CANARY}\u0000{CANARY}",
        ]
    )  # fmt: skip


NUMBERS = (
    0, -0.0, 1, -1, 2**53, 2**53 + 1, -(2**63), 2**64, 10**400, 10**5_000, -(10**5_000), 1e308, 5e-324, float("nan"),
    float("inf"), float("-inf"), 0.1 + 0.2, True, False, 1j, Decimal("NaN"), Decimal("sNaN"), Decimal("-Infinity"),
    Decimal("1E+999999999"), Decimal("1E-999999999"), Decimal("0E-10"), Decimal("7." + "0" * 5_000), Fraction(1, 3),
    RaisingNumber(7), RaisingFloat(7.5), 20_261_120, 45_000, 1_772_460_309_000_000,
)  # fmt: skip
OTHERS: tuple[Callable[[Random], Any], ...] = (
    lambda _: None,
    lambda random: text(random).encode("utf-8", "surrogatepass"),
    lambda random: bytearray(text(random).encode("utf-8", "replace")),
    lambda random: memoryview(text(random).encode("utf-8", "replace")),
    lambda random: {text(random), 1},
    lambda random: frozenset({text(random)}),
    lambda random: (value for value in [text(random)]),
    lambda _: itertools.repeat(CANARY),
    lambda random: range(random.choice([3, 10**12])),
    lambda random: map(str, [text(random)]),
    lambda _: Raising(),
    lambda _: WithoutClass(),
    lambda random: liar(random.choice(LIES)),
    lambda random: RaisingText(text(random)),
    lambda random: LyingText(text(random)),
    lambda random: RaisingDict({"a": text(random)}),
    lambda random: GrowingDict({"a": text(random)}),
    lambda _: LyingLength([CANARY]),
    lambda random: OddMapping({"a": text(random), "b": 1}, random.choice(["getitem", "iter", "half way", "len", None])),
    lambda random: UserDict(a=text(random)),
    lambda random: OrderedDict(a=text(random)),
    lambda random: defaultdict(list, a=text(random)),
    lambda random: MappingProxyType({"a": text(random)}),
    lambda random: {random.choice([None, 5, (1,), b"k", Twice("a")]): text(random), "a": 1, Twice("a"): 2},
    lambda random: {"$other": text(random)},
    lambda random: {"$date": text(random)},
    lambda random: {f"k{number}": text(random) for number in range(random.choice([1, 50]))},
    lambda random: [text(random)] * random.choice([0, 1, 300]),
    lambda random: deep(random.choice([30, 33, 63, 65, 500, 3_000])),
    lambda random: doubling(random.choice([5, 12])),
    lambda _: cyclic(),
    lambda _: itself(),
    lambda _: RaisingMember.ONE,
    lambda _: HostileArray(None),
    lambda _: HostileScalar(),
    lambda _: HostileTime(),
    lambda _: Nameless(),
    lambda _: NA,
    lambda _: NAT,
    lambda random: NumpyLike(random.choice([5, [1, NA], {"a": cyclic()}, 10**5_000])),
    lambda random: datetime(2026, 3, 2, tzinfo=Zone(random.choice([HostileError, None, 5, timedelta(hours=30)]))),
    lambda random: datetime(2026, 3, 2, tzinfo=Zone(timedelta(microseconds=random.randrange(1, 10**9)))),
    lambda random: time(1, tzinfo=Zone(random.choice([HostileError, None, timedelta(1)]))),
    lambda _: datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14))),
    lambda _: datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=14))),
    lambda _: date(1, 1, 1),
    lambda _: timedelta.max,
    lambda _: UUID(int=0),
    lambda _: ip_address("203.0.113.77"),
    lambda random: SimpleNamespace(a=text(random)),
    lambda random: Tuple(text(random), 1),
    lambda _: HostileError(),
    lambda _: HostileError,
    lambda _: len,
    lambda _: ...,
    lambda _: Track.model_construct(event=Raising(), user_id=CANARY),
)
# They take a tenth of a second each.
HOGS: tuple[Callable[[], Any], ...] = (
    EndlessDict,
    lambda: EndlessList([1]),
    lambda: [0] * 150_000,
    lambda: list(range(300_000)),
    lambda: doubling(60),
    lambda: CANARY * 1_000_000,
)


def itself() -> dict[str, Any]:
    """Make an object that contains itself."""
    ring: dict[str, Any] = {"a": 1}
    ring["self"] = ring
    return ring


def value(random: Random) -> Any:
    """Draw any value."""
    dice = random.random()
    if dice < 0.25:
        return text(random)
    if dice < 0.5:
        return random.choice(NUMBERS)
    if dice < 0.51:
        return random.choice(HOGS)()
    drawn = random.choice(OTHERS)(random)
    return random.choice([[drawn], {"inner": drawn}, (drawn, drawn)]) if random.random() < 0.2 else drawn


def good_row(number: int) -> dict[str, Any]:
    """Make a row that has to arrive, whatever surrounds it."""
    return {"user_id": f"good-{number}", "good_plan": CANARY, "good_amount": number}


def is_good(number: int) -> bool:
    """Return whether the row with a number, from 1, is good."""
    return number % GOOD_EVERY == 0


def hostile_row(random: Random, number: int) -> Any:
    """Draw a row."""
    row: dict[Any, Any] = {"user_id": random.choice([f"{CANARY}-{number}", f"u{number}", number])}
    if random.random() < 0.3:
        row |= {"email": f"u{number}@example.com", "sms_opt_in": random.choice([True, False, None])}
    for _ in range(random.choice([1, 1, 1, 2, 3])):
        dice = random.random()
        name: Any = random.choice(RESERVED if dice < 0.5 else FREE if dice < 0.8 else ODD_NAMES)
        if dice > 0.97:
            name = random.choice([None, 5, ("a",), b"k", 1.5, RaisingText("plan"), LyingText("x"), Twice("user_id")])
        with suppress(HostileError):  # a hostile name with the same hash as another
            row[name] = value(random)
    dice = random.random()
    if dice < 0.8:
        return row
    if dice < 0.805:
        return EndlessDict(row)
    if dice < 0.9:
        return random.choice(
            [
                lambda: OddMapping(row, random.choice(["getitem", "iter", "half way", "len", None])),
                lambda: KeysOnly(row, random.choice([HostileError, None])),
                lambda: RaisingDict(row),
                lambda: GrowingDict(row),
                lambda: UserDict(row),
                lambda: MappingProxyType(row),
                lambda: OrderedDict(row),
                lambda: defaultdict(list, row),
            ]
        )()
    if dice < 0.95:
        return value(random)
    return random.choice([Identify, Track, Page]).model_construct(
        **{name: value(random) for name in ("user_id", "traits", "phones", "timestamp", "unplaced", "event")}
    )


def hostile_rows(seed: int, count: int) -> Iterator[Any]:
    """Draw rows; every fifth is good."""
    random = Random(seed)
    for number in range(1, count + 1):
        yield good_row(number) if is_good(number) else hostile_row(random, number)


# -- files ------------------------------------------------------------------------------------------------------------

_JSON_VALUES = (
    '"\\ud800"', '"\\u0000"', "NaN", "-Infinity", "1e999", "9" * 5_000, "1E400", "[" * 10_000 + "]" * 10_000,
    '{"a":' * 10_000 + "1" + "}" * 10_000, "[" * 500 + "]" * 500, '{"a": 1, "a": 2}', '{"$other": "x"}',
    '{"$row": {"user_id": "x"}}', "null", "true", "[]", "{}", '""', "-0", "0.1", "{", "'x'", "undefined", '"open',
    f'"{CANARY}"', f'["{CANARY}"]', f'{{"{CANARY}": []}}', f'"{CANARY * 20_000}"',
)  # fmt: skip
_LINES = (
    b"\xff\xfe\x00", b"\x00\x00\x00", b"null", b"[]", b"5", b'"text"', b"{}", b"{", b"}", b"\xef\xbb\xbf{}", b"\x1a",
    f"{CANARY}".encode(), b'{"user_id": "\xff"}', b"[" * 100_000, b'{"a":' * 50_000, b"x" * 1_500_000,
    b'{"user_id": "' + b"y" * 1_500_000 + b'"}', b'{"user_id": 5} {"user_id": 6}', b"\x0b", b"{\"user_id\": 'x'}",
)  # fmt: skip


def json_line(random: Random, number: int) -> bytes:
    """Draw a line of JSON Lines, without its end."""
    if random.random() < 0.2:
        return random.choice(_LINES)
    name = json.dumps(random.choice((*RESERVED, *FREE, *ODD_NAMES[:24])))
    return f'{{"user_id": "u{number}", {name}: {random.choice(_JSON_VALUES)}}}'.encode()


def segment_line(random: Random, number: int) -> bytes:
    """Draw a line of an archive of Segment."""
    if random.random() < 0.2:
        return random.choice(_LINES)
    call = random.choice(['"identify"', '"track"', '"page"', '"alias"', random.choice(_JSON_VALUES)])
    name = random.choice(
        ["traits", "properties", "context", "integrations", "timestamp", "event", "messageId", "anonymousId", "channel"]
    )
    return f'{{"type": {call}, "userId": "u{number}", "{name}": {random.choice(_JSON_VALUES)}}}'.encode()


def csv_line(random: Random, number: int) -> bytes:
    """Draw a line of CSV; any quote is closed, or the following lines would be part of it."""
    user = f"u{number}"
    return random.choice(
        [
            f"{user},{CANARY},x", user, f"{user},1,2,3,4", ",,", ",x,y", f'{user},"a""b",x', f"{user},a\0b,x",
            f'{user},"{CANARY}\n{CANARY}",x', f'{user},a"b,x', f'{user},"a"b,x', "user_id,good_plan,good_amount",
            f"{user},{'z' * 300_000},x", f"{user},{'z' * 1_500_000},x", f"NULL,{CANARY},x", f"{user},\u202e{CANARY},x",
            "\x1a", f"{user},\r,x", f"=cmd()|{CANARY},1,x", f"{user},\x0b\x1c,x", f"{user},\udcff{CANARY},x",
        ]
    ).encode(errors="surrogateescape")  # fmt: skip


def hostile_file(file_format: str, seed: int, count: int) -> bytes:
    """Draw a file; every fifth line is good."""
    random = Random(seed)
    draw = {"csv": csv_line, "jsonl": json_line, "segment": segment_line}[file_format]
    good = {
        "csv": lambda n: f"good-{n},{CANARY},{n}".encode(),
        "jsonl": lambda n: json.dumps(good_row(n)).encode(),
        "segment": lambda n: json.dumps({"type": "track", "userId": f"good-{n}", "event": "Lesson Booked"}).encode(),
    }[file_format]
    lines = [good(number) if is_good(number) else draw(random, number) for number in range(1, count + 1)]
    header = [b"\xef\xbb\xbfuser_id,good_plan,good_amount"] if file_format == "csv" else []
    return b"\n".join([*header, *lines, b""])


# -- consents ---------------------------------------------------------------------------------------------------------


def good_consent(number: int) -> dict[str, Any]:
    """Make a row of a consent table that has to arrive."""
    return {
        "user_id": f"good-{number}", "phone": f"+1212{5550000 + number}", "channel": "sms", "subscribed": True,
        "timestamp": "2026-03-01T00:00:00Z", "ip": "203.0.113.9", "text": CANARY,
    }  # fmt: skip


def hostile_consents(seed: int, count: int) -> Iterator[Any]:
    """Draw rows of a consent table; every fifth is good."""
    random = Random(seed)
    for number in range(1, count + 1):
        if is_good(number):
            yield good_consent(number)
            continue
        row = hostile_row(random, number)
        if type(row) is dict and random.random() < 0.7:
            with suppress(HostileError):
                row = {**good_consent(number), "user_id": f"{CANARY}-{number}", **row}
        yield row
