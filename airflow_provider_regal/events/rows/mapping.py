"""Map a row of a table to an event: each value goes where its column says (``columns``), and is validated there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from airflow_provider_regal.errors import Fault, InvalidEventError
from airflow_provider_regal.events.faults import path_of
from airflow_provider_regal.events.models import EVENTS, Event
from airflow_provider_regal.events.names import IS_PRIMARY, LOOSE_OPT_INS
from airflow_provider_regal.events.options import MANY, Reading, RowMapping, key_of_decision
from airflow_provider_regal.events.python_values import NO_TRUTH, is_blank, is_missing, is_nothing
from airflow_provider_regal.events.rows.coercion import coerce
from airflow_provider_regal.events.rows.columns import CONSENT, Path, Plan, plan_of

# Rows that don't come from a table may all have different columns.
_MOST_PLANS: Final = 1_000


class RowMapper:
    """Maps rows; plans each set of columns once."""

    def __init__(self, how: RowMapping, reading: Reading) -> None:
        self.how = how
        self._reading = reading
        self._plans: dict[tuple[Any, ...], Plan] = {}

    def event(self, row: Mapping[str, Any]) -> Event:
        """Map one row and validate it.

        :raises InvalidEventError: with every fault of the row, by column names.
        """
        plan = self.plan(tuple(row))
        if plan.faults:
            raise InvalidEventError(self.how.call, plan.faults)
        written, columns, faults = self._written(row, plan)
        try:
            event = EVENTS[self.how.call].read(written, self._reading)
        except InvalidEventError as error:
            faults += [
                Fault(_in_words_of_the_table(fault.field, columns), with_values(fault)) for fault in error.faults
            ]
        if faults:
            raise InvalidEventError(self.how.call, faults)
        return event

    def written(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Map one row without validating it; return an empty event if the columns can't be mapped."""
        plan = self.plan(tuple(row))
        return {} if plan.faults else self._written(row, plan)[0]

    def _written(self, row: Mapping[str, Any], plan: Plan) -> tuple[dict[str, Any], dict[str, str], list[Fault]]:
        written: dict[str, Any] = {}
        faults: list[Fault] = []
        columns = dict(plan.columns)
        for column, path, kind in plan.steps:
            try:
                value = row[column] if kind is None else coerce(row[column], kind, self._reading.timezone)
            except ValueError as error:
                faults.append(Fault(path_of((column,)), str(error)))
                continue
            if self.how.values and _is_decision(path):
                value = in_our_words(value, self.how.values)
            _put(written, path, value, column, columns)
        if self.how.event is not None:
            written["event"] = self.how.event
        _gather(written, columns, self.how.values)
        return written, columns, faults

    def plan(self, columns: tuple[Any, ...]) -> Plan:
        """Return the plan for rows with these columns."""
        plan = self._plans.get(columns)
        if plan is None:
            if len(self._plans) >= _MOST_PLANS:
                self._plans.clear()
            plan = self._plans[columns] = plan_of(columns, self.how)
        return plan


def _put(written: dict[str, Any], path: Path, value: Any, column: str, columns: dict[str, str]) -> None:
    if path[0] in MANY:
        if not is_missing(value):
            many = written.setdefault(path[0], [])
            columns[f"{path[0]}[{len(many)}]"] = column
            many.append({"number" if path[0] == "phones" else "address": value, "label": path[1]})
        return
    if path[0] == CONSENT:  # keep its column, for faults
        written.setdefault(CONSENT, {}).setdefault(path[1:-1], {})[path[-1]] = (value, column)
        return
    place = written
    for name in path[:-1]:
        place = place.setdefault(name, {})
    place[path[-1]] = value


def _is_decision(path: Path) -> bool:
    return (path[0] == CONSENT and path[-1] == "subscribed") or (len(path) == 2 and path[1] in LOOSE_OPT_INS)


def in_our_words(decision: Any, values: Mapping[str, bool | None] | None) -> Any:
    """Translate a decision with ``values``; return any other unchanged."""
    if not values or is_nothing(decision):
        return decision
    return values.get(key_of_decision(decision), decision)


def with_values(fault: Fault) -> str:
    """Return the reason of a fault; for an unreadable decision, mention the option that defines its meaning."""
    is_decision = fault.reason == NO_TRUTH and not fault.field.endswith(IS_PRIMARY)
    return f"{NO_TRUTH}; if it is a yes or a no in your words, name it in values=" if is_decision else fault.reason


def _gather(written: dict[str, Any], columns: dict[str, str], values: Mapping[str, bool | None] | None) -> None:
    """Convert the wide form of consent into opt-ins; ignore a channel without a yes or no."""
    given = _read_opt_ins(written.pop("opt_in", None))
    opt_ins = list(given) if isinstance(given, (list, tuple)) else [] if given is None else [given]
    if values:
        opt_ins = [
            {**one, "subscribed": in_our_words(one.get("subscribed"), values)} if isinstance(one, Mapping) else one
            for one in opt_ins
        ]
    for (*of_label, channel), evidence in written.pop(CONSENT, {}).items():
        if "subscribed" not in evidence or is_nothing(evidence["subscribed"][0]):
            continue
        owner = _labeled(written, *of_label) if of_label else None
        if of_label and owner is None:  # that phone is empty, and its consent is not another's
            place, belong = f"unplaced[{len(written.get('unplaced', ()))}]", written.setdefault("unplaced", [])
        elif owner is not None:
            number, point = owner
            belong = point.setdefault("opt_ins", [])
            place = f"{of_label[0]}[{number}].opt_ins[{len(belong)}]"
        else:
            place, belong = f"opt_in[{len(opt_ins)}]", opt_ins
        columns[place] = evidence["subscribed"][1]
        columns.update({f"{place}.{name}": column for name, (_, column) in evidence.items()})
        belong.append({"channel": channel, **{name: value for name, (value, _) in evidence.items()}})
    if opt_ins:
        written["opt_in"] = opt_ins


def _labeled(written: Mapping[str, Any], many: str, label: str) -> tuple[int, dict[str, Any]] | None:
    """Find the phone or email with a label, and its position."""
    points = enumerate(written.get(many, ()))
    return next(((number, point) for number, point in points if point["label"] == label), None)


def _read_opt_ins(given: Any) -> Any:
    """Parse JSON text from a database without a JSON type; text that is not JSON stays, and is a fault."""
    if is_blank(given):
        return None
    if isinstance(given, str):
        try:
            read = json.loads(given)
        except (ValueError, RecursionError):
            return given
        return read if isinstance(read, (list, dict)) or read is None else given
    return given


def _in_words_of_the_table(place: str, columns: Mapping[str, str]) -> str:
    """Name the column at fault: ``sms_opt_in_at``, not ``opt_in[0].timestamp``."""
    for length in range(len(place), 0, -1):
        if (length == len(place) or place[length] in ".[") and (column := columns.get(place[:length])) is not None:
            return path_of((column,)) + place[length:]
    return place
