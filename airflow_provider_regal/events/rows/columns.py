"""Decide what becomes of each column: the column names are the mapping, so SQL does the mapping.

============================================  =======================================================
column                                        becomes
============================================  =======================================================
user_id, phone, email, timestamp, sub_brand   the field of that name
event                                         the name of a track event, if the delivery has none
opt_in                                        a list of opt-ins (JSON)
sms_opt_in, voice_opt_in, email_opt_in        an opt-in; evidence in ``..._at, _ip, _text, _source``
phones.work, emails.work                      a separate phone or email with this label
phones.work_sms_opt_in, ..._at, ...           an opt-in of that phone or email, with its evidence
first_name, last_name, address_*              Regal's standard traits
message_id                                    not sent to Regal: a repeated one is sent once
any other                                     a trait (identify) or a property (track, page, screen)
============================================  =======================================================

``mapping={"column": "traits.plan" | "properties.amount" | "phones.work" | "phones.work_sms_opt_in" | "sms_opt_in" |
None}`` overrides this, to any name in the table, or to a list of them. A row that lacks a column has NULL there; a
column that no row of a source has (:class:`ColumnsSeen`) is a mistake.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.names import EVENT_ALIASES, EVENT_SOURCE, LOOSE_OPT_INS, SEGMENT_OPT_IN
from airflow_provider_regal.events.options import (
    EVIDENCE,
    FIELDS,
    MANY,
    OPT_IN_OF_LABEL,
    STANDARD_TRAITS,
    WIDE_FORM,
    ColumnType,
    RowMapping,
    Target,
    targets_of,
)

_ADDRESS: Final = {"postal_code": "zipcode", "zip": "zipcode", "zip_code": "zipcode"}
CONSENT: Final = "consent"
_CONSENT_FIELDS: Final = (CONSENT, "opt_in")
_CONSENT_TRAITS: Final = tuple(("traits", name) for name in (SEGMENT_OPT_IN, "opt_in", *LOOSE_OPT_INS, *MANY))

Path = tuple[str, ...]


@dataclass
class Plan:
    """What to do with rows of one set of columns.

    :param steps: column, its place in the event, and the type it is read as (None: unchanged). A column has a step for
        each of its places.
    :param faults: why no such row can be mapped.
    :param columns: place as named in a fault -> column, if the place does not contain its name.
    """

    steps: list[tuple[str, Path, ColumnType | None]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    @cached_property
    def may_carry_consent(self) -> bool:
        """Whether one of the columns may contain an opt-in."""
        return any(path[0] in _CONSENT_FIELDS or path[:2] in _CONSENT_TRAITS for _, path, _ in self.steps)

    @cached_property
    def has_message_id(self) -> bool:
        """Whether one of the columns is the message id."""
        return self.column_of("message_id") is not None

    @cached_property
    def of_person(self) -> tuple[str | None, list[tuple[str, str]]]:
        """The columns of the user id, phones and emails, each with what it becomes."""
        addresses = [(column, path[0]) for column, path, _ in self.steps if path[0] in ("phone", "email", *MANY)]
        return self.column_of("user_id"), addresses

    def column_of(self, name: str) -> str | None:
        """Find the column that becomes a field."""
        return next((column for column, path, _ in self.steps if path == (name,)), None)


def plan_of(columns: Sequence[Any], how: RowMapping) -> Plan:
    """Decide where each column goes.

    Faults: two columns go to the same place, a name is not text.
    """
    plan = Plan()
    if not all(isinstance(name, str) for name in columns):
        plan.faults.append(Fault("the row", "the name of a column is not text"))
        return plan
    names = _our_names(columns, how.lower_upper)
    taken: dict[Path, str] = {}
    for column, name, target in _targets(names, how):
        path = _path(target, name, how)
        if path is None:
            continue
        if clash := next((other for other in taken if path[: len(other)] == other[: len(path)]), None):
            reason = f"goes to {path_of(path)}, as the column {path_of((taken[clash],))} does; map one elsewhere"
            plan.faults.append(Fault(path_of((column,)), reason))
        taken[path] = column
        plan.steps.append((column, path, _option(how.types, name, column, None)))
        if path[0] not in (CONSENT, *MANY) and path[-1] not in (column, name):
            plan.columns[path_of(path)] = column
    return plan


_DEFAULT: Final = "\0default"


def _targets(names: Mapping[str, str], how: RowMapping) -> Iterator[tuple[str, str, str]]:
    """Return each column, the name it is known by, and each place that is written for it."""
    for column, name in names.items():
        target: Target = _option(how.columns, name, column, _DEFAULT)
        for one in targets_of(target):
            yield column, name, one


def _our_names(columns: Sequence[str], lower_upper: bool) -> dict[str, str]:
    """Return column -> the name it is known by: in lower case, if all of them are upper case."""
    all_upper = lower_upper and all(name.upper() == name for name in columns)
    return {column: column.lower() if all_upper else column for column in columns}


def _option(options: Mapping[str, Any] | None, name: str, column: str, default: Any) -> Any:
    """Return an option's value for a column, by its name in lower case or as the source spells it."""
    return options.get(name, options.get(column, default)) if options else default


def _path(target: str, name: str, how: RowMapping) -> Path | None:
    written = name if target == _DEFAULT else target
    kind, _, rest = written.partition(".")
    if kind in MANY and rest:
        return _of_many(kind, rest)
    if target != _DEFAULT and kind in ("traits", "properties"):
        return tuple(target.split("."))
    if written == "event" and how.call == "track":
        return None if how.event is not None else (written,)
    if (path := _reserved(written)) is not None:
        return path
    if target != _DEFAULT:  # the name of a page
        return (target,)
    return ("traits" if how.call == "identify" else "properties", name)


def _reserved(name: str) -> Path | None:
    """Return where a column with a reserved name goes."""
    if name in FIELDS:
        return (name,)
    if name in WIDE_FORM:
        return (CONSENT, *WIDE_FORM[name])
    if name in STANDARD_TRAITS:
        return STANDARD_TRAITS[name]
    if (part := name.removeprefix("address_")) not in ("", name):
        return ("traits", "address", _ADDRESS.get(part, part))
    return None


def _of_many(kind: str, rest: str) -> Path:
    """Return where ``phones.work`` or ``phones.work_sms_opt_in_at`` goes."""
    if (found := OPT_IN_OF_LABEL.fullmatch(rest)) is None:
        return (kind, rest)
    return (CONSENT, kind, found["label"], found["channel"], EVIDENCE[found["evidence"] or ""])


class ColumnsSeen:
    """The columns of a source's rows. Finds missing ones and misspelled reserved names.

    :param lower_upper: lower-case the names if all of them are upper case.
    """

    def __init__(self, *, lower_upper: bool) -> None:
        self._lower_upper = lower_upper
        self._shapes: set[tuple[Any, ...]] = set()
        self._names: dict[str, str] = {}

    def add(self, columns: tuple[Any, ...]) -> None:
        """Add the columns of a row."""
        if columns not in self._shapes:
            if len(self._shapes) < _MOST_SHAPES:
                self._shapes.add(columns)
            if len(self._names) < _MOST_NAMES:
                self._names |= _our_names([name for name in columns if isinstance(name, str)], self._lower_upper)

    def missing(self, given: Iterable[str]) -> list[str]:
        """Return the columns that an option names and no row has; none if that can't be known."""
        there = {*self._names, *self._names.values()}
        return [column for column in given if column not in there] if 0 < len(self._names) < _MOST_NAMES else []

    def near_misses(self, reserved: Iterable[str], mapped: Iterable[str]) -> dict[str, str]:
        """Return the columns that differ from a reserved name by one letter or by case -> that name.

        :param mapped: columns that an option places.
        """
        reserved, mapped = frozenset(reserved), frozenset(mapped)
        found: dict[str, str] = {}
        for column, name in self._names.items():
            if name in reserved or name in _OTHER_NAMES or column in mapped or name in mapped:
                continue
            if (meant := _meant(name, reserved)) is not None:
                found[column] = meant
        return found


def reserved_names(how: RowMapping) -> frozenset[str]:
    """Return the names that make a column more than a trait or property."""
    event = ("event",) if how.call == "track" and how.event is None else ()
    return frozenset((*FIELDS, *event, *WIDE_FORM, *STANDARD_TRAITS))


_MOST_SHAPES: Final = 1_000  # rows that don't come from a table may all have different columns
_MOST_NAMES: Final = 10_000
# Correct names that are near a reserved one: Regal's own names of traits, and its maps.
_OTHER_NAMES: Final = frozenset((*MANY, *(path[-1] for path in STANDARD_TRAITS.values()), EVENT_SOURCE))
_SHORTEST: Final = 5  # id is not a misspelled ip
_WIRE_NAMES: Final = {key.lower(): name for key, name in EVENT_ALIASES.items() if key != EVENT_SOURCE}


def _meant(name: str, reserved: frozenset[str]) -> str | None:
    bare = _bare(name)
    if (meant := _WIRE_NAMES.get(bare)) in reserved:
        return meant
    letters = [one for one in sorted(reserved) if len(_bare(one)) >= _SHORTEST and _one_letter_apart(bare, _bare(one))]
    return next((one for one in sorted(reserved) if _bare(one) == bare), letters[0] if letters else None)


def _bare(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


def _one_letter_apart(one: str, other: str) -> bool:
    """Return whether one letter is missing, extra, wrong, or swapped with its neighbor; digits are intended."""
    if abs(len(one) - len(other)) > 1:
        return False
    start = next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    one, other = one[start:], other[start:]
    if one[:2] == other[1::-1] and len(one) > 1 and one[2:] == other[2:]:
        return True
    shorter, longer = sorted((one, other), key=len)
    rest = shorter[1:] if len(shorter) == len(longer) else shorter
    return longer[1:] == rest and f"{shorter[:1]}{longer[:1]}".isalpha()
