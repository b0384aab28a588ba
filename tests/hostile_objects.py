"""Objects that raise or lie whatever is done with them; their exception messages contain :data:`CANARY`."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, tzinfo
from decimal import Decimal
from enum import Enum
from typing import Any

from tests.events.hostile import NumpyLike

CANARY = "Zerubbabel-7F3A"
#: What a liar says it is.
LIES = (str, int, dict, list, float, bool, datetime, Decimal, bytes, Enum, Mapping)


class HostileError(Exception):
    """What a hostile object raises; its text is personal data."""

    def __init__(self) -> None:
        super().__init__(f"not for logs: {CANARY}")


def _raise(*_: Any, **__: Any) -> Any:
    raise HostileError


class Raising:
    """Raises, whatever is done with it."""

    __str__ = __repr__ = __eq__ = __bool__ = __len__ = __iter__ = __getitem__ = __float__ = __int__ = _raise
    __lt__ = __le__ = __gt__ = __ge__ = __contains__ = __format__ = __getattr__ = _raise
    __hash__ = _raise  # type: ignore[assignment]


class WithoutClass:
    """Has no class that could be asked for."""

    __class__ = property(_raise)  # type: ignore[assignment]


def liar(claimed: type) -> Any:
    """Make an object that claims to be of another type."""
    return type("Liar", (), {"__class__": property(lambda self: claimed)})()


class RaisingText(str):
    __slots__ = ()
    __str__ = __repr__ = __eq__ = __len__ = strip = lower = encode = casefold = __iter__ = _raise
    __hash__ = str.__hash__


class LyingText(str):
    """Looks like another text."""

    __slots__ = ()

    def __str__(self) -> str:
        return "user_id"

    def __eq__(self, other: object) -> bool:
        return True

    __hash__ = str.__hash__


class RaisingNumber(int):
    __str__ = __repr__ = __eq__ = __abs__ = __gt__ = __lt__ = __int__ = __index__ = bit_length = _raise
    __hash__ = int.__hash__


class RaisingFloat(float):
    __str__ = __repr__ = __eq__ = __float__ = is_integer = _raise
    __hash__ = float.__hash__


class RaisingDict(dict):
    items = keys = values = __iter__ = __getitem__ = __contains__ = get = _raise


class GrowingDict(dict):
    """Changes while it is iterated."""

    def __iter__(self) -> Iterator[Any]:
        for key in super().__iter__():
            self[f"{key}+"] = CANARY
            yield key

    def items(self) -> Any:
        for key in self:
            yield key, self[key]


class EndlessDict(dict):
    """Never ends when iterated."""

    def __iter__(self) -> Iterator[Any]:
        return (f"c{number}" for number in itertools.count())

    def keys(self) -> Any:
        return iter(self)

    def items(self) -> Any:
        return ((key, CANARY) for key in self)

    def values(self) -> Any:
        return itertools.repeat(CANARY)


class EndlessList(list):
    def __iter__(self) -> Iterator[Any]:
        return itertools.repeat(CANARY)


class LyingLength(list):
    def __len__(self) -> int:
        return -1  # noqa: PLE0303


class OddMapping(Mapping[Any, Any]):
    """A mapping that is not a dictionary; one of its methods may be replaced by one that raises."""

    def __init__(self, members: dict[Any, Any], broken: str | None = None) -> None:
        self._members, self._broken = members, broken

    def _check(self, name: str) -> None:
        if name == self._broken:
            raise HostileError

    def __getitem__(self, key: Any) -> Any:
        self._check("getitem")
        return self._members[key]

    def __iter__(self) -> Iterator[Any]:
        self._check("iter")
        for number, key in enumerate(self._members):
            if number:
                self._check("half way")
            yield key

    def __len__(self) -> int:
        self._check("len")
        return len(self._members)


class KeysOnly:
    """Has ``keys`` and items, like rows of some drivers."""

    def __init__(self, members: dict[Any, Any], broken: object = None) -> None:
        self._members, self._broken = members, broken

    def keys(self) -> Any:
        return self._members.keys()

    def __getitem__(self, key: Any) -> Any:
        if self._broken:
            raise HostileError
        return self._members[key]


class Zone(tzinfo):
    """A time zone whose offset is whatever it is made with, or raises."""

    def __init__(self, offset: Any) -> None:
        self._offset = offset

    def utcoffset(self, moment: datetime | None) -> Any:
        if self._offset is HostileError:
            raise HostileError
        return self._offset

    dst = utcoffset

    def tzname(self, moment: datetime | None) -> str:
        return CANARY

    def __repr__(self) -> str:
        raise HostileError


class RaisingMember(Enum):
    ONE = 1

    @property
    def value(self) -> Any:
        raise HostileError


class HostileArray(NumpyLike):
    tolist = _raise


HostileArray.__module__ = "numpy"
HostileScalar = type("HostileScalar", (), {"as_py": _raise, "__module__": "pyarrow.lib"})
HostileTime = type("Timestamp", (), {"to_pydatetime": _raise, "__module__": "pandas"})
Nameless = type("Meta", (type,), {"__name__": property(_raise), "__module__": property(_raise)})("Nameless", (), {})
Twice = type("Twice", (str,), {"__eq__": lambda self, other: self is other, "__hash__": str.__hash__})


#: The name of a type -> what makes an object of it that can't be read.
HOSTILE: dict[str, Callable[[], Any]] = {
    "Raising": Raising,
    "WithoutClass": WithoutClass,
    "Nameless": Nameless,
    "RaisingDict": lambda: RaisingDict(a=1),
    "GrowingDict": lambda: GrowingDict(a=1),
    "OddMapping": lambda: OddMapping({"a": 1, "b": 2}, "half way"),
    "RaisingMember": lambda: RaisingMember.ONE,
    "HostileArray": lambda: HostileArray(None),
    "HostileScalar": HostileScalar,
    "Timestamp": HostileTime,
    "datetime": lambda: datetime(2026, 3, 2, tzinfo=Zone(HostileError)),
    "Liar": lambda: liar(dict),
}
