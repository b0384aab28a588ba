"""What becomes of each column: the column names are the mapping, so SQL does the mapping.

============================================  =======================================================
column                                        becomes
============================================  =======================================================
user_id, phone, email, timestamp, sub_brand   the field of that name
event                                         the name of a track event, if the delivery names none
opt_in                                        a list of opt-ins (JSON)
sms_opt_in, voice_opt_in, email_opt_in        an opt-in; evidence in ``..._at, _ip, _text, _source``
phones.work, emails.work                      a phone or email of its own, with this label
phones.work_sms_opt_in, ..._at, ...           an opt-in of that phone or email, with its evidence
first_name, last_name, address_*              Regal's standard traits
message_id                                    nothing at Regal: a repeated one is sent once
any other                                     a trait (identify) or a property (track, page, screen)
============================================  =======================================================

``mapping={"column": "traits.plan" | "properties.amount" | "phones.work" | "phones.work_sms_opt_in" | None}``
overrides. A column that ``mapping``
or ``types`` names must be in the row: otherwise a typo would send it under another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.names import LOOSE_OPT_INS
from airflow_provider_regal.events.options import FIELDS, MANY, OPT_IN_OF_LABEL, RowMapping

_EVIDENCE: Final = {"_at": "timestamp", "_ip": "ip", "_text": "text", "_source": "source", "": "subscribed"}
_STANDARD: Final = {"first_name": ("traits", "firstName"), "last_name": ("traits", "lastName")}
_ADDRESS: Final = {"postal_code": "zipcode", "zip": "zipcode", "zip_code": "zipcode"}
CONSENT: Final = "consent"
_CONSENT_FIELDS: Final = (CONSENT, "opt_in")
_CONSENT_TRAITS: Final = tuple(("traits", name) for name in ("optIn", "opt_in", *LOOSE_OPT_INS, *MANY))

Path = tuple[str, ...]


@dataclass
class Plan:
    """What to do with rows of one set of columns.

    :param steps: column, its place in the event, and the type it is read as (None: as it is).
    :param faults: why no such row can be mapped.
    :param columns: place, as a fault of the event names it -> column, where the place does not hold its name.
    """

    steps: list[tuple[str, Path, type | None]] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    columns: dict[str, str] = field(default_factory=dict)

    @cached_property
    def may_carry_consent(self) -> bool:
        """Whether one of the columns could hold an opt-in."""
        return any(path[0] in _CONSENT_FIELDS or path[:2] in _CONSENT_TRAITS for _, path, _ in self.steps)

    @cached_property
    def has_message_id(self) -> bool:
        """Whether one of the columns is the message's id."""
        return self.column_of("message_id") is not None

    def column_of(self, name: str) -> str | None:
        """Find the column that becomes a field."""
        return next((column for column, path, _ in self.steps if path == (name,)), None)


def plan_of(columns: Sequence[Any], how: RowMapping) -> Plan:
    """Decide where each column goes.

    Faults: two columns go to the same place, one that ``mapping`` or ``types`` names is not there, a name is no text.
    """
    plan = Plan()
    if not all(isinstance(name, str) for name in columns):
        plan.faults.append(Fault("the row", "the name of a column is not text"))
        return plan
    all_upper = how.lower_upper and all(name.upper() == name for name in columns)
    names = {column: column.lower() if all_upper else column for column in columns}
    there = {*columns, *names.values()}
    for option, given in (("mapping", how.columns or {}), ("types", how.types or {})):
        plan.faults += [
            Fault(path_of((column,)), f"{option} names it, but the row has no such column")
            for column in given
            if column not in there
        ]
    taken: dict[Path, str] = {}
    for column, name in names.items():
        path = _path(_option(how.columns, name, column, _DEFAULT), name, how)
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


def _option(options: Mapping[str, Any] | None, name: str, column: str, default: Any) -> Any:
    """Find what an option says of a column, by its name in lower case or as the source writes it."""
    return options.get(name, options.get(column, default)) if options else default


def _path(target: str | None, name: str, how: RowMapping) -> Path | None:
    if target is None:
        return None
    written = name if target == _DEFAULT else target
    kind, _, rest = written.partition(".")
    if kind in MANY and rest:
        return _of_many(kind, rest)
    if target != _DEFAULT:
        return tuple(target.split("."))
    if name in FIELDS:
        return (name,)
    if name == "event" and how.call == "track":
        return None if how.event is not None else (name,)
    for channel in ("sms", "voice", "email"):
        for suffix, evidence in _EVIDENCE.items():
            if name == f"{channel}_opt_in{suffix}":
                return (CONSENT, channel, evidence)
    if name in _STANDARD:
        return _STANDARD[name]
    if (part := name.removeprefix("address_")) not in ("", name):
        return ("traits", "address", _ADDRESS.get(part, part))
    return ("traits" if how.call == "identify" else "properties", name)


def _of_many(kind: str, rest: str) -> Path:
    """Return where ``phones.work`` or ``phones.work_sms_opt_in_at`` goes."""
    if (found := OPT_IN_OF_LABEL.fullmatch(rest)) is None:
        return (kind, rest)
    return (CONSENT, kind, found["label"], found["channel"], _EVIDENCE[found["evidence"] or ""])
