"""Options for mapping rows to events, reading values, and sending opt-ins."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from airflow_provider_regal.events.names import CALLS, CHANNELS_OF, FIRST_NAME, LAST_NAME, TRAITS
from airflow_provider_regal.events.python_values import plain, read_decision, trimmed, whole

if TYPE_CHECKING:
    from pydantic import ValidationInfo

# What a column may become other than a trait or a property, and the types it may be read as.
FIELDS: Final = ("user_id", "phone", "email", "timestamp", "sub_brand", "opt_in", "message_id")
MANY: Final = ("phones", "emails")
EVIDENCE: Final = {"_at": "timestamp", "_ip": "ip", "_text": "text", "_source": "source", "": "subscribed"}
#: Columns of an opt-in -> its channel, and its part of the opt-in.
WIDE_FORM: Final = {
    f"{channel}_opt_in{suffix}": (channel, what)
    for channels in CHANNELS_OF.values()
    for channel in channels
    for suffix, what in EVIDENCE.items()
}
STANDARD_TRAITS: Final = {"first_name": (TRAITS, FIRST_NAME), "last_name": (TRAITS, LAST_NAME)}
OPT_IN_OF_LABEL: Final = re.compile(
    r"(?P<label>.+)_(?P<channel>sms|voice|email)_opt_in(?P<evidence>_at|_ip|_text|_source)?", re.DOTALL
)
ColumnType = type | Literal["json"]
#: What a column becomes: one name, several, or None to leave the column out.
Target = str | Sequence[str] | None
TYPES: Final[tuple[ColumnType, ...]] = (str, int, float, bool, date, datetime, "json")
_OWN_FIELDS: Final = {"track": ("event",), "page": ("name", "category"), "screen": ("name", "category")}


#: What happens to a row with an invalid phone or email.
OnInvalid = Literal["reject", "drop"]


@dataclass(frozen=True, slots=True)
class Reading:
    """How values are read; the context of every validation.

    :param timezone: the zone of times without one.
    :param send_nulls: send null for None, NaN and NaT instead of omitting them.
    :param on_invalid_phone: ``reject`` a row with an invalid phone, or ``drop`` the phone.
    :param on_invalid_email: ``reject`` a row with an invalid email, or ``drop`` the email.
    """

    timezone: tzinfo = UTC
    send_nulls: bool = False
    on_invalid_phone: OnInvalid = "reject"
    on_invalid_email: OnInvalid = "reject"

    def __post_init__(self) -> None:
        for name in ("on_invalid_phone", "on_invalid_email"):
            if getattr(self, name) not in ("reject", "drop"):
                raise ValueError(f"{name} must be 'reject' or 'drop', not {getattr(self, name)!r}")

    @property
    def drops(self) -> frozenset[str]:
        """The fields from which invalid entries are dropped: ``phones``, ``emails``."""
        chosen = zip(MANY, (self.on_invalid_phone, self.on_invalid_email), strict=True)
        return frozenset(many for many, choice in chosen if choice == "drop")

    @classmethod
    def of(cls, info: ValidationInfo) -> Reading:
        """Return the reading of a validation."""
        return info.context if isinstance(info.context, Reading) else USUAL


USUAL: Final = Reading()


#: What an opt-out closes: its own channel, or all channels of that phone or email.
OptOutScope = Literal["channel", "person"]


@dataclass(frozen=True, slots=True)
class ConsentPolicy:
    """Which evidence an opt-in needs before it is sent.

    :param require_ip: withhold opt-ins without the person's IP address. Set to False for consent given on paper or by
        phone. (Regal: "required if you are opting in users server side".)
    :param max_consent_age: withhold opt-ins given longer ago than this; None for no limit.
    :param opt_out_scope: what an opt-out closes: its own ``channel``, or all channels of that phone or email
        (``person``). (US law from January 31, 2027: a revocation applies to all calls and texts; 47 CFR
        64.1200(a)(10).)
    """

    require_ip: bool = True
    max_consent_age: timedelta | None = None
    opt_out_scope: OptOutScope = "channel"

    def __post_init__(self) -> None:
        if self.opt_out_scope not in ("channel", "person"):
            raise ValueError(f"opt_out_scope must be 'channel' or 'person', not {self.opt_out_scope!r}")


@dataclass(frozen=True, slots=True)
class RowMapping:
    """How rows become events.

    :param call: ``identify``, ``track``, ``page`` or ``screen``.
    :param event: the name of the track events; None if a column ``event`` holds it.
    :param columns: column -> ``"traits.x"``, ``"properties.x"``, ``"phones.label"``, ``"emails.label"``, an opt-in of
        one of these (``"phones.label_sms_opt_in"``, ``..._at`` and so on), a reserved name, a list of such names, or
        None to ignore it.
    :param types: column -> ``str``, ``int``, ``float``, ``bool``, ``date``, ``datetime`` or ``"json"``: convert the
        value, or reject the row.
    :param values: text of a decision -> whether it is a yes, as :func:`decision_values` returns it.
    :param lower_upper: lower-case the names if all of them are upper case (Snowflake).
    """

    call: str
    event: str | None = None
    columns: Mapping[str, Target] | None = None
    types: Mapping[str, ColumnType] | None = None
    lower_upper: bool = True
    values: Mapping[str, bool | None] | None = None

    def __post_init__(self) -> None:
        if self.call not in CALLS:
            raise ValueError(f"call must be one of {', '.join(CALLS)}, not {self.call!r}")
        if self.event is not None and self.call != "track":
            raise ValueError(f"event names track events; a {self.call} has none")
        for column, target in targets_in(self.columns):
            _check_target(column, target, self.call)
        for column, kind in (self.types or {}).items():
            if kind not in TYPES:
                raise ValueError(
                    f"types[{column!r}] must be str, int, float, bool, date, datetime (without quotes), or 'json'"
                )


def targets_of(target: Target) -> tuple[str, ...]:
    """Return the names that a column becomes; none if it is left out."""
    if target is None:
        return ()
    return (target,) if isinstance(target, str) else (*target,)


def targets_in(columns: Mapping[str, Target] | None) -> Iterator[tuple[str, str]]:
    """Return each column of a mapping with each name that it becomes.

    :raises ValueError: it is not a mapping of columns to names.
    """
    if columns is not None and not isinstance(columns, Mapping):
        raise ValueError(f"mapping must be a dictionary, column -> where it goes, not a {type(columns).__name__}")
    for column, target in (columns or {}).items():
        if not isinstance(column, str):
            raise ValueError(f"mapping[{column!r}]: the name of a column must be text, not a {type(column).__name__}")
        several = isinstance(target, (list, tuple))
        if not several and not isinstance(target, str | None):
            raise ValueError(
                f"mapping[{column!r}] must be text, or None to leave the column out, or a list of texts for several "
                f"places, not a {type(target).__name__}"
            )
        names = targets_of(target)
        if several and not names:
            raise ValueError(f"mapping[{column!r}]: the list is empty; write None to leave the column out")
        if odd := [name for name in names if not isinstance(name, str)]:
            raise ValueError(f"mapping[{column!r}]: each entry of the list must be text, not a {type(odd[0]).__name__}")
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(f"mapping[{column!r}] names {twice[0]} twice")
        yield from ((column, name) for name in names)


def as_lists(columns: Any) -> Any:
    """Return a mapping in the form that JSON keeps: several names of a column as a list."""
    if not isinstance(columns, Mapping):
        return columns
    return {column: [*target] if isinstance(target, tuple) else target for column, target in columns.items()}


def _check_target(column: str, target: str, call: str) -> None:
    kind, _, rest = target.partition(".")
    allowed = (*FIELDS, *_OWN_FIELDS.get(call, ()), *WIDE_FORM, *STANDARD_TRAITS)
    if kind in MANY and (found := OPT_IN_OF_LABEL.fullmatch(rest)) and found["channel"] not in CHANNELS_OF[kind]:
        raise ValueError(f"mapping[{column!r}]: an opt-in for {found['channel']} cannot belong to one of {kind}")
    if (
        target in allowed
        or target.removeprefix("address_") not in ("", target)
        or (kind in MANY and rest)
        or (kind in ("traits", "properties") and all(rest.split(".")))
    ):
        if kind == "properties" and call == "identify":
            raise ValueError(f"mapping[{column!r}]: an identify has no properties; use 'traits.{rest}'")
        return
    raise ValueError(
        f"mapping[{column!r}] must be 'traits.x', 'properties.x', 'phones.label', 'emails.label', a reserved name "
        f"({', '.join((*FIELDS, *_OWN_FIELDS.get(call, ()), *STANDARD_TRAITS))}, address_city, sms_opt_in, "
        "sms_opt_in_at, ...), a list of such names, or None"
    )


def decision_values(given: Mapping[Any, bool | None] | None) -> dict[str, bool | None] | None:
    """Validate the option ``values`` for decisions, and normalize its keys for lookup.

    :param given: what a source writes -> True (yes), False (no) or None (unknown).
    :raises ValueError: it is not such a mapping, or turns a no into something else.
    """
    if given is None:
        return None
    if not isinstance(given, Mapping):
        raise ValueError("values must be a dictionary such as {'Yes': True, 'No': False}")
    values: dict[str, bool | None] = {}
    for key, meaning in given.items():
        if meaning not in (True, False, None) or not isinstance(meaning, bool | None):
            raise ValueError(f"values[{key!r}] must be True, False, or None for unknown")
        if meaning is not False and _is_no(key):
            raise ValueError(f"values[{key!r}] is a no; no opt-out is held back, so it can only be False")
        if key_of_decision(key) in values:
            raise ValueError(f"values[{key!r}]: given twice; case and spaces around it make no difference")
        values[key_of_decision(key)] = meaning
    return values


def _is_no(key: Any) -> bool:
    try:
        return not read_decision(key)
    except ValueError:
        return False


def key_of_decision(value: Any) -> str:
    """Return a decision's lookup key: trimmed and case-folded text; for a whole number, its digits."""
    value = plain(value)
    if (
        isinstance(value, (int, float, Decimal))
        and not isinstance(value, bool)
        and (number := whole(value)) is not None
    ):
        value = number
    return trimmed(str(value)).casefold()
