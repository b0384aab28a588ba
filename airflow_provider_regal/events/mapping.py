"""A row of a table as an event: the column names are the mapping, so SQL does the mapping.

============================================  =======================================================
column                                        becomes
============================================  =======================================================
user_id, phone, email, timestamp, sub_brand   the field of that name
event                                         the name of a track event, if the delivery names none
opt_in                                        a list of opt-ins (JSON)
sms_opt_in, voice_opt_in, email_opt_in        an opt-in; evidence in ``..._at, _ip, _text, _source``
first_name, last_name, address_*              Regal's standard traits
message_id                                    nothing: reserved for de-duplication
any other                                     a trait (identify) or a property (track, page, screen)
============================================  =======================================================

``mapping={"column": "traits.plan" | "properties.amount" | "phones.work" | None}`` overrides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events.consent import read_truth
from airflow_provider_regal.events.models import Event, Identify, Page, Screen, Track
from airflow_provider_regal.events.plain import is_nothing, plain
from airflow_provider_regal.events.times import read_time
from airflow_provider_regal.events.values import Reading

CALLS: Final[dict[str, type[Event]]] = {"identify": Identify, "track": Track, "page": Page, "screen": Screen}

_FIELDS: Final = ("user_id", "phone", "email", "timestamp", "sub_brand", "opt_in")
_OWN_FIELDS: Final = {"track": ("event",), "page": ("name", "category"), "screen": ("name", "category")}
_EVIDENCE: Final = {"_at": "timestamp", "_ip": "ip", "_text": "text", "_source": "source", "": "subscribed"}
_STANDARD: Final = {"first_name": ("traits", "firstName"), "last_name": ("traits", "lastName")}
_ADDRESS: Final = {"postal_code": "zipcode", "zip": "zipcode", "zip_code": "zipcode"}
_MANY: Final = ("phones", "emails")

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows become events.

    :param call: ``identify``, ``track``, ``page`` or ``screen``.
    :param event: the name of the track events; None if a column ``event`` holds it.
    :param columns: column -> ``"traits.x"``, ``"properties.x"``, ``"phones.label"``, ``"emails.label"``, a field's
        name, or None to leave the column out.
    :param types: column -> ``str``, ``int``, ``float``, ``bool``, ``date`` or ``datetime``: coerce, or refuse the row.
    :param lower_upper: lower-case the names where all of them are upper case (Snowflake).
    """

    call: str
    event: str | None = None
    columns: Mapping[str, str | None] | None = None
    types: Mapping[str, type] | None = None
    lower_upper: bool = True

    def __post_init__(self) -> None:
        if self.call not in CALLS:
            raise ValueError(f"call must be one of {', '.join(CALLS)}, not {self.call!r}")
        if self.event is not None and self.call != "track":
            raise ValueError(f"event names track events; a {self.call} has none")
        for column, target in (self.columns or {}).items():
            if target is not None:
                _check_target(column, target, self.call)
        for column, kind in (self.types or {}).items():
            if kind not in _COERCIONS:
                raise ValueError(f"types[{column!r}] must be one of str, int, float, bool, date, datetime")


class RowMapper:
    """Maps rows; the plan of each set of columns is made once."""

    def __init__(self, how: RowMapping, reading: Reading) -> None:
        self._how = how
        self._reading = reading
        self._plans: dict[tuple[str, ...], list[tuple[str, Path]]] = {}

    def event(self, row: Mapping[str, Any]) -> Event:
        """Map one row and validate it.

        :raises InvalidEventError: every fault of the row; columns by their own names.
        """
        columns = tuple(row)
        plan = self._plans.get(columns)
        if plan is None:
            plan = self._plans[columns] = plan_of(columns, self._how)
        written: dict[str, Any] = {}
        faults: list[Fault] = []
        types = self._how.types or {}
        for column, path in plan:
            value = row[column]
            if column in types and value is not None:
                try:
                    value = _COERCIONS[types[column]](plain(value))
                except (ValueError, TypeError, InvalidOperation, OverflowError):
                    faults.append(Fault(column, f"cannot be read as {types[column].__name__}"))
                    continue
            _put(written, path, value)
        if self._how.event is not None:
            written["event"] = self._how.event
        _gather(written)
        try:
            event = CALLS[self._how.call].read(written, self._reading)
        except InvalidEventError as error:
            raise InvalidEventError(error.call, [*faults, *error.faults]) from None
        if faults:
            raise InvalidEventError(self._how.call, faults)
        return event


def plan_of(columns: Sequence[str], how: RowMapping) -> list[tuple[str, Path]]:
    """Decide where each column goes.

    :raises ValueError: a column appears twice, two go to the same place, or a mapped one is not there.
    """
    all_upper = how.lower_upper and all(name.upper() == name for name in columns)
    overrides = how.columns or {}
    plan: list[tuple[str, Path]] = []
    taken: dict[Path, str] = {}
    for column in columns:
        name = column.lower() if all_upper else column
        path = _path(overrides.get(name, overrides.get(column, _DEFAULT)), name, how)
        if path is None:
            continue
        if path in taken:
            raise ValueError(f"columns {taken[path]!r} and {column!r} both go to {'.'.join(path)}; map one elsewhere")
        taken[path] = column
        plan.append((column, path))
    return plan


_DEFAULT: Final = "\0default"


def _path(target: str | None, name: str, how: RowMapping) -> Path | None:
    if target is None or name == "message_id":
        return None
    if target != _DEFAULT:
        return tuple(target.split(".", 1))
    own = _OWN_FIELDS.get(how.call, ())
    if name in _FIELDS or (name in own and how.call == "track"):
        return None if name == "event" and how.event is not None else (name,)
    for channel in ("sms", "voice", "email"):
        for suffix, evidence in _EVIDENCE.items():
            if name == f"{channel}_opt_in{suffix}":
                return ("consent", channel, evidence)
    if name in _STANDARD:
        return _STANDARD[name]
    if name.startswith("address_"):
        part = name.removeprefix("address_")
        return ("traits", "address", _ADDRESS.get(part, part))
    return ("traits" if how.call == "identify" else "properties", name)


def _check_target(column: str, target: str, call: str) -> None:
    kind, dot, rest = target.partition(".")
    allowed = (*_FIELDS, *_OWN_FIELDS.get(call, ()))
    if (dot and rest and kind in ("traits", "properties", *_MANY)) or target in allowed:
        if kind == "properties" and call == "identify":
            raise ValueError(f"mapping[{column!r}]: an identify has no properties; use 'traits.{rest}'")
        return
    raise ValueError(
        f"mapping[{column!r}] must be 'traits.x', 'properties.x', 'phones.label', 'emails.label', "
        f"{', '.join(allowed)}, or None"
    )


def _put(written: dict[str, Any], path: Path, value: Any) -> None:
    if path[0] in _MANY:
        if value is not None and value != "":
            key = "number" if path[0] == "phones" else "address"
            written.setdefault(path[0], []).append({key: value, "label": path[1]})
        return
    place = written
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value


def _gather(written: dict[str, Any]) -> None:
    """Turn the wide form of consent into opt-ins; a channel without a yes or no says nothing."""
    wide = written.pop("consent", None)
    if not wide:
        return
    given = written.get("opt_in")
    opt_ins = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
    for channel, evidence in wide.items():
        if not is_nothing(evidence.get("subscribed")):
            opt_ins.append({"channel": channel, **evidence})
    written["opt_in"] = opt_ins or None


def _whole(value: Any) -> int:
    number = Decimal(str(value).strip())
    if number % 1:
        raise ValueError
    return int(number)


def _date(value: Any) -> date:
    if isinstance(value, datetime):
        return value.date()
    return value if isinstance(value, date) else date.fromisoformat(str(value).strip())


def _text(value: Any) -> str:
    if isinstance(value, (dict, list, tuple, set, bytes)):
        raise ValueError
    return str(value)


_COERCIONS: Final[dict[type, Callable[[Any], Any]]] = {
    str: _text,
    int: _whole,
    float: lambda value: float(str(value).strip()),
    bool: read_truth,
    date: _date,
    datetime: read_time,
}
