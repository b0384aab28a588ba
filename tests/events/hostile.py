"""What no one should write but someone will: strategies for values, opt-ins and events in all three forms."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from types import MappingProxyType
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

# REGAL_EXAMPLES=5000 searches for more; by default the same examples run everywhere.
_LOOKING = os.environ.get("REGAL_EXAMPLES")
many = settings(
    max_examples=int(_LOOKING or 120),
    derandomize=not _LOOKING,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# Marked personal data, which must not appear in any error.
NAME, STREET, NOTE = "Zerubbabel", "77 Hidden Lane", "the wording of a secret"
SECRET_PHONES = ("+12125550147", "(212) 555-0147", "212-555-0147 ext 5", "+15555550147", "2125550147")
SECRET_EMAILS = ("hidden.person@example.com", "Hidden.Person@Example.com ", "hidden.person@@example.com")
SECRET_IPS = ("203.0.113.77", "203.0.113.777", "2001:db8::7777")
SECRET_TIMES = ("2026-02-31T14:05:07Z", "the 7th of Never")
KEYS_THAT_LOOK_PERSONAL = (*SECRET_PHONES[:2], SECRET_EMAILS[0], SECRET_IPS[0], SECRET_IPS[2])
SECRETS = (NAME, STREET, NOTE, *SECRET_PHONES, *SECRET_EMAILS, *SECRET_IPS, *SECRET_TIMES)


class NumpyLike:
    """A scalar or an array like numpy's."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def tolist(self) -> Any:
        return self.value

    def __eq__(self, other: object) -> Any:
        raise TypeError("the truth value of an array is ambiguous")

    __hash__ = object.__hash__


class NAType:
    """Like pandas' NA: has no truth value and is equal to nothing."""

    def __eq__(self, other: object) -> Any:
        return self

    def __ne__(self, other: object) -> Any:
        return self

    def __bool__(self) -> bool:
        raise TypeError("boolean value of NA is ambiguous")

    __hash__ = object.__hash__


class NaTType(datetime):
    """Like pandas' NaT: a datetime that equals nothing."""

    __eq__ = __lt__ = __le__ = lambda self, other: False
    __hash__ = datetime.__hash__


NumpyLike.__module__ = "numpy"
NAType.__module__ = NaTType.__module__ = "pandas._libs.tslibs"
NA, NAT = NAType(), NaTType(2026, 1, 1)


class Color(Enum):
    RED = "red"
    DEEP = (1, [2])


class Shade(StrEnum):
    DARK = "dark"


class Level(IntEnum):
    HIGH = 3


class Row(Mapping[str, Any]):
    """A mapping that is not a dict, like database rows."""

    def __init__(self, members: dict[str, Any]) -> None:
        self._members = members

    def __getitem__(self, key: str) -> Any:
        return self._members[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)


def cyclic() -> list[Any]:
    """Return a list that contains itself twice, through an object."""
    ring: list[Any] = []
    ring += [{"again": ring}, ring]
    return ring


def deep(levels: int) -> Any:
    value: Any = "bottom"
    for level in range(levels):
        value = [value] if level % 2 else {"down": value}
    return value


def doubling(levels: int) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value, value]
    return value


texts = st.one_of(st.text(max_size=8), st.text(st.characters(exclude_categories=()), max_size=4))
NOTHINGS = (None, float("nan"), Decimal("NaN"), Decimal("sNaN"), NA, NAT, NumpyLike(None), NumpyLike(float("nan")))
nothings = st.sampled_from(NOTHINGS)
scalars = st.one_of(
    nothings,
    st.booleans(),
    st.integers(),
    st.sampled_from([10**400, -(10**4000), 2**53, 2**53 + 1, float("inf"), -0.0, 1e308, Decimal("1E+999999999")]),
    st.floats(),
    st.decimals(),
    texts,
    st.sampled_from(SECRETS),
    st.sampled_from([b"\x00\xff", bytearray(b"x"), memoryview(b"x"), {1, 2}, frozenset(), 1j, object(), ..., len]),
    st.sampled_from([Color.RED, Color.DEEP, Shade.DARK, Level.HIGH, NumpyLike(True), NumpyLike([1, NA])]),
    st.datetimes(),
    st.sampled_from(
        [
            datetime.fromisoformat("0001-01-01"),
            datetime.fromisoformat("9999-12-31T23:59:59.999999"),
            datetime(9999, 12, 31, 23, tzinfo=timezone(timedelta(hours=-14))),
            datetime(2026, 3, 2, tzinfo=UTC),
            date(2026, 3, 2),
            time(1, 2),
            timedelta(1),
            UUID(int=7),
        ]
    ),
    st.builds(cyclic),
    st.builds(deep, st.sampled_from([3, 31, 33, 500])),
    st.builds(doubling, st.sampled_from([3, 6])),
)
keys = st.one_of(
    st.sampled_from(["a", "phone", "optIn", "subscribed", "", "x" * 500, "new\nline", *KEYS_THAT_LOOK_PERSONAL]),
    st.text(st.characters(exclude_categories=()), max_size=3),
    st.sampled_from([None, 5, True, ("a",), b"k", Shade.DARK]),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3), st.tuples(inner, inner)
    ),
    max_leaves=6,
)


def mostly(*usual: Any) -> st.SearchStrategy[Any]:
    """Draw usual values three times as often as any others, so that events often pass the first check."""
    strategies = [value if isinstance(value, st.SearchStrategy) else st.just(value) for value in usual]
    return st.integers(0, 3).flatmap(lambda dice: values if dice == 0 else st.one_of(*strategies))


def members(**known: Any) -> st.SearchStrategy[dict[Any, Any]]:
    """Draw an object with some of the known members and, rarely, another one."""
    strange = st.integers(0, 7).flatmap(
        lambda dice: st.dictionaries(keys, values, min_size=1, max_size=1) if dice == 0 else st.just({})
    )
    return st.builds(lambda one, two: {**one, **two}, st.fixed_dictionaries({}, optional=known), strange)


phones = mostly("+12125550100", "(415) 555-0199", 12125550100, SECRET_PHONES[0], Decimal("2125550100"), "")
emails = mostly("ines@example.com", " INES@Example.COM", SECRET_EMAILS[0], "")
times = mostly(
    "2026-03-02T14:05:09Z", "2026-03-02 14:05:09 +00:00", 1772460309, 1772460309000,
    datetime.fromisoformat("2026-03-02"), "2999-01-01", "1970-01-01", *SECRET_TIMES, "",
)  # fmt: skip
truths = mostly(True, False, "true", "FALSE", 1, 0, NumpyLike(True), "yes", None)
ips = mostly("203.0.113.9", "2001:db8::1", *SECRET_IPS, "", None)
evidence = {
    "timestamp": times,
    "ip": ips,
    "text": mostly(NOTE, "I agree."),
    "source": mostly("form"),
    "subscribedAt": times,
}
opt_ins = members(channel=mostly("sms", "voice", "email"), subscribed=truths, **evidence).map(dict)
placed = members(subscribed=truths, **evidence)
opt_in_lists = mostly(st.lists(opt_ins, max_size=3), opt_ins, opt_ins.map(MappingProxyType), st.tuples(opt_ins))
infos = mostly(
    members(
        label=mostly("Mobile"), isPrimary=truths, is_primary=truths, smsOptIn=placed, voiceOptIn=placed,
        emailOptIn=placed, opt_ins=opt_in_lists, number=phones, address=emails,
    )
)  # fmt: skip


def _many(one: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    hashable = one.filter(_hashable)
    return mostly(st.dictionaries(hashable, infos, max_size=2), st.lists(st.one_of(one, infos), max_size=2))


def _hashable(value: Any) -> bool:
    try:
        hash(value)
    except (TypeError, ValueError):
        return False
    return True


texts_of_people = mostly(NAME, "Ines")
addresses = members(
    street=mostly(STREET), city=mostly("Albany"), state=mostly("NY", "New York"), zipcode=mostly("02110", 2110),
    postalCode=mostly("02110"),
)  # fmt: skip
traits = mostly(
    members(
        phone=phones, email=emails, phones=_many(phones), emails=_many(emails), optIn=opt_in_lists,
        opt_in=opt_in_lists, firstName=texts_of_people, address=mostly(addresses), subBrand=mostly("brand"),
        plan=values,
    )
)  # fmt: skip
written_events = members(
    user_id=mostly("cust-0042", 42, UUID(int=5)), userId=mostly("cust-0042"), phone=phones, email=emails,
    phones=_many(phones), emails=_many(emails), traits=traits, opt_in=opt_in_lists, optIn=opt_in_lists,
    timestamp=times, originalTimestamp=times, event_source=mostly("crm"), eventSource=mostly("crm"),
    sub_brand=mostly("brand"), event=mostly("Loan Application Approved"), name=mostly("Home"),
    category=mostly("Shop"), properties=mostly(members(amount=values, plan=values)),
)  # fmt: skip
