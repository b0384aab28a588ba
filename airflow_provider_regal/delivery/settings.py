"""The options of a delivery, in one frozen object."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from airflow_provider_regal.client.guarantee import GUARANTEES, Guarantee
from airflow_provider_regal.events.data_contract import DataContract
from airflow_provider_regal.events.options import (
    TYPES,
    ColumnType,
    ConsentPolicy,
    OnInvalid,
    OptOutScope,
    Reading,
    RowMapping,
    Target,
    as_lists,
    decision_values,
)
from airflow_provider_regal.events.python_values import read_truth

NAMED_CALLS: Final = frozenset({"track", "page", "screen"})


_TYPE_OF: Final[Mapping[str, ColumnType]] = {getattr(kind, "__name__", str(kind)): kind for kind in TYPES}


def default_guarantee(call: str) -> Guarantee:
    """Return the default guarantee of a call: repeating a named event may phone a person twice."""
    return "at_most_once" if call in NAMED_CALLS else "at_least_once"


@dataclass(frozen=True, slots=True)
class SyncSettings:
    """How a consent table is reconciled with what Regal acknowledged.

    :param columns: column -> what it holds, or a list of that, if its name does not say so; None to ignore it.
    :param initial: for an empty ledger: ``send`` all, or take all as the ``baseline``; None to fail.
    :param as_event: the event that represents an opt-in in Regal; None to send opt-ins by identify.
    :param on_removed: ``opt_out`` withdraws consent that vanished from the source; None only reports it.
    :param full_resync: also send what did not change.
    :param max_change_ratio: send only opt-outs if a larger share of the account's consents would flip; None for no
        limit.
    :param known_to_regal: the rows come from Regal: record them and send nothing.
    :param known_before: the number of the account's consents on record after an earlier run of the task. Airflow stores
        it, because a lost ledger can't detect its own loss.
    """

    columns: Mapping[str, Target] = field(default_factory=dict)
    initial: str | None = None
    as_event: str | None = None
    on_removed: str | None = None
    full_resync: bool = False
    max_change_ratio: float | None = 0.5
    known_to_regal: bool = False
    known_before: int = 0

    def __post_init__(self) -> None:
        for name in ("full_resync", "known_to_regal"):
            check_flag(name, getattr(self, name))
        odd = [name for name in ("initial", "as_event", "on_removed", "full_resync") if getattr(self, name)]
        if self.known_to_regal and odd:
            raise ValueError(f"{', '.join(odd)}: not with known_to_regal, which sends nothing")
        for name, choices in (("initial", ("send", "baseline")), ("on_removed", ("opt_out",))):
            if getattr(self, name) not in (*choices, None):
                raise ValueError(f"{name} must be {' or '.join(map(repr, choices))}, not {getattr(self, name)!r}")
        ratio = self.max_change_ratio
        usable = isinstance(ratio, (int, float)) and not isinstance(ratio, bool)
        if ratio is not None and (not usable or not 0 <= ratio <= 1):
            raise ValueError(f"max_change_ratio must be a share from 0.0 to 1.0, or None for no limit, not {ratio!r}")


@dataclass(frozen=True, slots=True)
class DeliverySettings:
    """How rows are delivered.

    :param mapping: how a row becomes an event.
    :param guarantee: ``at_most_once`` or ``at_least_once``; by default that of the call.
    :param max_rejected: fail if more rows were rejected; a whole number of rows or a share of the rows read.
    :param max_unknown: fail if more rows are unknown; None for the larger of 10 rows and 1 %.
    :param min_rows: fail if the source returned fewer rows; only their opt-outs are sent.
    :param max_rows: fail if the source returned more rows; only their opt-outs are sent.
    :param volume: fail if the number of rows is outside this range, relative to the median of the task's last finished
        runs, such as ``(0.5, 2.0)``; only their opt-outs are sent. Needs five finished runs.
    :param max_refused: stop, keeping the remaining rows, when this share of the last 100 answers are refusals; None for
        no limit.
    :param limit: deliver only the first rows.
    :param rate: requests per second; None for the connection's ``rate_limit``.
    :param max_connections: maximum number of open connections.
    :param outage_patience_s: seconds an outage may last before the delivery stops, for a retry to resume.
    :param max_event_age: reject older named events, since they may start live journeys; None for no limit.
    :param dry_run: map and validate all rows, send nothing.
    :param plan: send only opt-outs, and keep the rest until a task sends it.
    :param restart: send everything again, regardless of what was sent before.
    :param only_changed: skip contacts that have not changed since they were last acknowledged.
    :param on_shared: ``report`` or ``reject`` rows with different user ids and the same phone or email.
    :param key: the column or columns that identify a contact; None for user id, else phone, else email.
    :param sync: the rows are consents, and only changes are sent.
    :param suppress_named_events: skip track, page and screen events to people who opted out of all channels on record.
    :param contract: reject rows that violate it.
    """

    mapping: RowMapping
    guarantee: Guarantee | None = None
    max_rejected: float = 0
    max_unknown: float | None = None
    min_rows: int = 0
    max_rows: int | None = None
    volume: tuple[float, float] | None = None
    max_refused: float | None = 0.2
    limit: int | None = None
    rate: int | None = None
    max_connections: int = 256
    outage_patience_s: float = 300.0
    max_event_age: timedelta | None = timedelta(days=7)
    dry_run: bool = False
    plan: bool = False
    restart: bool = False
    only_changed: bool = False
    key: str | Sequence[str] | None = None
    on_shared: Literal["report", "reject"] = "report"
    sync: SyncSettings | None = None
    reading: Reading = field(default_factory=Reading)
    consent: ConsentPolicy = field(default_factory=ConsentPolicy)
    suppress_named_events: bool = False
    contract: DataContract | None = None

    def __post_init__(self) -> None:
        self._check_numbers()
        if self.contract is not None:
            self.contract.check_describes(self.mapping.call, self.mapping.event)
        if self.guarantee is not None and self.guarantee not in GUARANTEES:
            raise ValueError(f"guarantee must be one of {', '.join(GUARANTEES)}, not {self.guarantee!r}")
        if self.on_shared not in ("report", "reject"):
            raise ValueError(f"on_shared must be 'report' or 'reject', not {self.on_shared!r}")
        _check_guards(self.volume, self.max_refused)
        for name in ("dry_run", "plan", "restart", "only_changed", "suppress_named_events"):
            check_flag(name, getattr(self, name))
        if self.plan and self.dry_run:
            raise ValueError("plan and dry_run: a dry run keeps nothing that could be sent; choose one")
        if self.plan and self.sync is not None and self.sync.known_to_regal:
            raise ValueError("plan: not with known_to_regal, which sends nothing")
        if self.suppress_named_events and self.mapping.call not in NAMED_CALLS:
            raise ValueError("suppress_named_events is for track, page and screen: an identify is not a named event")
        if self.only_changed and self.mapping.call != "identify":
            raise ValueError("only_changed is for identify: a named event has no state that could be unchanged")
        if self.key is not None and not self.only_changed:
            raise ValueError("key requires only_changed=True")
        _check_age("max_event_age", self.max_event_age)
        _check_age("max_consent_age", self.consent.max_consent_age)

    def _check_numbers(self) -> None:
        for name in ("max_rejected", "max_unknown"):
            _check_threshold(name, getattr(self, name))
        for name in ("max_connections", "rate", "min_rows", "max_rows", "limit"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | None):
                raise ValueError(f"{name} must be a whole number, not {value!r}")
        for name in ("max_connections", "outage_patience_s", "rate"):
            if getattr(self, name) is not None and not getattr(self, name) > 0:  # also catches NaN
                raise ValueError(f"{name} must be above 0")
        for name in ("min_rows", "max_rows", "limit"):
            if getattr(self, name) is not None and getattr(self, name) < 0:
                raise ValueError(f"{name} must not be below 0")

    @classmethod
    def of(
        cls,
        *,
        call: str,
        event: str | None = None,
        mapping: Mapping[str, Target] | None = None,
        types: Mapping[str, ColumnType] | None = None,
        values: Mapping[Any, bool | None] | None = None,
        column_names: str = "lower_upper",
        timezone: str = "UTC",
        send_nulls: bool = False,
        on_invalid_phone: OnInvalid = "reject",
        on_invalid_email: OnInvalid = "reject",
        require_ip: bool = True,
        max_consent_age: timedelta | None = None,
        opt_out_scope: OptOutScope = "channel",
        outage_patience: timedelta | float = 300.0,
        contract: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        **options: Any,
    ) -> DeliverySettings:
        """Build the settings from options as users write them.

        :raises ValueError: an option is invalid.
        """
        for name, flag in (("send_nulls", send_nulls), ("require_ip", require_ip)):
            check_flag(name, flag)
        if column_names not in ("lower_upper", "keep"):
            raise ValueError("column_names must be 'lower_upper' or 'keep'")
        return cls(
            mapping=RowMapping(
                call, event, as_lists(mapping), types, column_names == "lower_upper", values=decision_values(values)
            ),
            reading=Reading(zone_of(timezone), send_nulls, on_invalid_phone, on_invalid_email),
            consent=ConsentPolicy(require_ip, max_consent_age, opt_out_scope),
            outage_patience_s=_seconds(outage_patience),
            contract=None if contract is None else DataContract(contract),
            **options,
        )

    def to_json(self) -> str:
        """Serialize the options, to be stored with a plan."""
        told = asdict(replace(self, contract=None))
        told["contract"] = None if self.contract is None else dict(self.contract.document)
        types = told["mapping"]["types"] or {}
        told["mapping"]["types"] = {column: getattr(kind, "__name__", kind) for column, kind in types.items()} or None
        told["reading"]["timezone"] = str(self.reading.timezone)
        for of, name in ((told, "max_event_age"), (told["consent"], "max_consent_age")):
            of[name] = None if of[name] is None else of[name].total_seconds()
        return json.dumps(told)

    @classmethod
    def from_json(cls, written: str) -> DeliverySettings:
        """Load options that :meth:`to_json` wrote; options added since an older version get their defaults."""
        told = json.loads(written)
        types = told["mapping"]["types"] or {}
        told["mapping"]["types"] = {column: _TYPE_OF[name] for column, name in types.items()} or None
        told["reading"]["timezone"] = zone_of(told["reading"]["timezone"])
        for of, name in ((told, "max_event_age"), (told["consent"], "max_consent_age")):
            of[name] = None if of[name] is None else timedelta(seconds=of[name])
        if told.get("contract") is not None:
            told["contract"] = DataContract(told["contract"])
        parts = {"mapping": RowMapping, "reading": Reading, "consent": ConsentPolicy, "sync": SyncSettings}
        return cls(**told | {name: part(**told[name]) for name, part in parts.items() if told[name] is not None})

    @property
    def named(self) -> bool:
        """Whether a repeat may reach a person. Not for a sync, whose ledger prevents repeats."""
        return self.mapping.call in NAMED_CALLS and self.sync is None

    def guarantee_of(self, call: str) -> Guarantee:
        """Return the guarantee for an event of a call."""
        return self.guarantee or default_guarantee(call)

    def rejected_allowed(self, read: int) -> int:
        """Return how many rejected rows are tolerated."""
        return _rows(self.max_rejected, read)

    def unknown_allowed(self, read: int) -> int:
        """Return how many unknown rows are tolerated."""
        return max(10, read // 100) if self.max_unknown is None else _rows(self.max_unknown, read)


def check_flag(name: str, value: object) -> None:
    """Check that an option is a boolean: a look-alike such as ``"False"`` would mean the opposite.

    :raises ValueError: it is something else.
    """
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be True or False, not {value!r}; it is not templated")


def read_flag(name: str, value: object) -> bool:
    """Read a boolean option that is templated and may therefore be a string.

    :raises ValueError: it is neither true nor false.
    """
    try:
        return read_truth(value)
    except ValueError:
        raise ValueError(f"{name} must be True or False, or render as one of them, not as {value!r}") from None


def zone_of(timezone: str) -> ZoneInfo:
    """Find a time zone.

    :raises ValueError: no time zone has this name.
    """
    try:
        return ZoneInfo(timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ValueError(f"timezone must be a name such as UTC or America/New_York, not {timezone!r}") from None


def _seconds(given: timedelta | float) -> float:
    try:
        return given.total_seconds() if isinstance(given, timedelta) else float(given)
    except (TypeError, ValueError):
        raise ValueError(f"outage_patience must be seconds or a timedelta, not {given!r}") from None


def _rows(threshold: float, read: int) -> int:
    # A share of 0.29 of 100 rows is 28.999999999999996 as a float, but users expect 29.
    return threshold if isinstance(threshold, int) else int(threshold * read + 1e-6)


def _check_guards(volume: object, max_refused: object) -> None:
    match volume:
        case None:
            pass
        case (int() | float() as low, int() | float() as high) if 0 <= low <= 1 <= high:
            pass
        case _:
            raise ValueError(f"volume must be two factors around 1, such as (0.5, 2.0), not {volume!r}")
    match max_refused:
        case None:
            pass
        case int() | float() if not isinstance(max_refused, bool) and 0 <= max_refused <= 1:
            pass
        case _:
            raise ValueError(f"max_refused must be a share from 0.0 to 1.0, or None for no limit, not {max_refused!r}")


def _check_age(name: str, value: object) -> None:
    if not isinstance(value, timedelta | None):
        raise ValueError(f"{name} must be a timedelta, or None for no limit")


def _check_threshold(name: str, value: float | None) -> None:
    if value is None:
        return
    usable = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not usable or not value >= 0 or (isinstance(value, float) and value > 1):
        raise ValueError(
            f"{name} must be a whole number of rows, or a share from 0.0 to 1.0 such as 0.02, not {value!r}"
        )
