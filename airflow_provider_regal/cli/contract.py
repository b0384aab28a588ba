"""``contract infer``, ``validate``: infer a first contract from the rows of a task, and check a contract file.

``contract types``, ``accept``: list the types of traits and properties, and accept a new type.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any, Final

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import CommandError, command, opened
from airflow_provider_regal.cli.output import Column, plural
from airflow_provider_regal.cli.people.suppress import chosen_account
from airflow_provider_regal.cli.task_source import RowSource, source_of
from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.prepared import Ready
from airflow_provider_regal.delivery.reading.slips import look_for_slips
from airflow_provider_regal.events.data_contract import DIALECT, EVENTS, NOT_IN_CONTRACTS, DataContract, hint
from airflow_provider_regal.events.names import NAME, PROPERTIES, TRAITS
from airflow_provider_regal.events.privacy import shown_key
from airflow_provider_regal.events.rows.columns import ColumnsSeen, reserved_names
from airflow_provider_regal.hooks._delivering import read_file
from airflow_provider_regal.ledger.rows import decode_row, encode_row
from airflow_provider_regal.sources.marks import CALL_MARK, EVENT_MARK, REJECT_MARK, SKIP_MARK, columns_of
from airflow_provider_regal.sources.rows import as_row

_COLUMNS: Final = (Column("NAME"), Column("TYPE"), Column("SINCE (UTC)"))
_REASONS_SHOWN: Final = 3
_OTHER_COLUMNS: Final = frozenset({EVENT_MARK, CALL_MARK, REJECT_MARK})
# An object with more names is a map, whose names are data.
_MOST_NAMES: Final = 200


@command
def run_infer(args: argparse.Namespace) -> int:
    """Write a contract that the rows of a source satisfy."""
    target = None if args.output is None else Path(args.output)
    if target is not None and target.exists() and not (args.force or args.merge):
        raise CommandError(f"{target} exists: --merge adds to it what it lacks, --force replaces it")
    before = _read(args.output).document if args.merge and target is not None and target.exists() else {}
    inferred = Inferred()
    # Neither Regal nor the ledger is used.
    named = argparse.Namespace(**vars(args), conn_id="regal_default", ledger_conn_id=None)
    source = source_of(named, checks_contract=False)  # the contract may be the file that is to be written
    rejected = _look_at(source, inferred, args.rows)
    contract = merged(before, inferred.contract())
    DataContract(contract).load(read_file)  # check that the result can be used
    text = json.dumps(contract, indent=2, ensure_ascii=False) + "\n"
    if target is None:
        print(text, end="")
    else:
        try:
            target.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"{target} can't be written ({error.strerror})") from error
    print(
        f"{plural(inferred.count, 'row')} read into {target or 'the contract'}: {_described(contract)}", file=sys.stderr
    )
    if kept := sorted(inferred.names() & {*before.get(EVENTS, ()), *({TRAITS} & before.keys())}):
        print(f"Left as it was in {target}: {', '.join(kept)}", file=sys.stderr)
    if rejected:
        print(f"{plural(rejected.total(), 'row')} would be rejected, and left out here:", file=sys.stderr)
        for reason, count in rejected.most_common(_REASONS_SHOWN):
            print(f"{count:>12,} x {reason}", file=sys.stderr)
    return 0


def _look_at(source: RowSource, inferred: Inferred, most: int | None) -> Counter[str]:
    """Add the rows of a source in Regal's format; return why other rows would be rejected.

    :raises CommandError: no row can be sent, or an option names a column that no row has.
    """
    if source.settings.sync is not None:
        raise CommandError("An opt-in sync sends nothing but consent, which contracts do not check.")
    settings = replace(source.settings, contract=None, max_event_age=None)
    preparer = Preparer(settings, event_source="")
    columns = ColumnsSeen(lower_upper=settings.mapping.lower_upper)
    now, rejected = datetime.now(UTC), Counter[str]()
    limits = [one for one in (most, settings.limit) if one is not None]
    for number, row in enumerate(islice(map(as_row, source.open()), min(limits, default=None)), 1):
        if SKIP_MARK in row:
            continue
        if _OTHER_COLUMNS.isdisjoint(row):
            columns.add((*columns_of(row),))
        seen = preparer.prepare(number, decode_row(encode_row(row)), now, number)
        instead = seen.instead_of if isinstance(seen, Ready) else seen
        if isinstance(seen, Ready) and instead is None:
            inferred.add(seen.payload.body)
        else:
            rejected[str(getattr(instead, "faults", ["not sent"])[0])] += 1
    how = settings.mapping
    named = {"mapping": how.columns or {}, "types": how.types or {}}
    if (slip := look_for_slips(columns, named, reserved=reserved_names(how), limited=bool(limits))) is not None:
        raise CommandError(slip)
    if not inferred.count:
        why = f" Top reason: {rejected.most_common(1)[0][0]}" if rejected else ""
        raise CommandError(f"Of {plural(rejected.total(), 'row')}, none could be sent.{why}")
    return rejected


class Inferred:
    """What all examined events have in common; contains names and types, and no values."""

    def __init__(self) -> None:
        self.count = 0
        self._contacts = _Values()
        self._traits = _Values()  # of contacts and of other events
        self._events: dict[str, _Values] = {}

    def add(self, body: Mapping[str, Any]) -> None:
        """Add what would be sent."""
        self.count += 1
        traits = {name: value for name, value in body.get(TRAITS, {}).items() if name not in NOT_IN_CONTRACTS}
        if (event := body.get(NAME)) is None:
            self._contacts.add(traits)
        else:
            self._events.setdefault(event, _Values()).add(body.get(PROPERTIES, {}))
        if traits or event is None:
            self._traits.add(traits)

    def names(self) -> set[str]:
        """Return what it describes: ``traits``, and names of events."""
        return {*self._events, *([TRAITS] if self._traits.kinds else [])}

    def contract(self) -> dict[str, Any]:
        """Return a contract that all of it satisfies."""
        contract: dict[str, Any] = {"$schema": DIALECT}
        if self._traits.kinds:
            contract[TRAITS] = self._traits.schema(required=self._contacts.in_all())
        if self._events:
            contract[EVENTS] = {name: values.schema() for name, values in sorted(self._events.items())}
        return contract


def merged(before: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a contract what it lacks, without changing its content."""
    contract = {**new, **before}
    if events := {**new.get(EVENTS, {}), **before.get(EVENTS, {})}:
        contract[EVENTS] = dict(sorted(events.items()))
    return contract


class _Values:
    """The types of all values at one place."""

    def __init__(self) -> None:
        self.kinds: set[str] = set()
        self._objects = 0
        self._members: dict[str, tuple[_Values, list[int]]] = {}
        self._items: _Values | None = None
        self._is_open = False

    def add(self, value: Any) -> None:
        kind = _KINDS[type(value)]
        self.kinds.add(kind)
        if kind == "object":
            self._objects += 1
            for name, member in value.items():
                if self._is_open or shown_key(name) != name:  # names that are data are not names
                    self._is_open = True
                    continue
                values, count = self._members.setdefault(name, (_Values(), [0]))
                values.add(member)
                count[0] += 1
            if len(self._members) > _MOST_NAMES:
                self._is_open = True
        elif kind == "array":
            for item in value:
                self._items = self._items or _Values()
                self._items.add(item)

    def in_all(self) -> list[str]:
        """Return the names that occur in all objects."""
        return sorted(name for name, (_, count) in self._members.items() if count[0] == self._objects)

    def schema(self, required: list[str] | None = None) -> dict[str, Any]:
        required = self.in_all() if required is None else required
        kinds = sorted(self.kinds - {"integer"} if "number" in self.kinds else self.kinds)
        schema: dict[str, Any] = {"type": kinds[0] if len(kinds) == 1 else kinds} if kinds else {}
        if self._members and not self._is_open:
            schema["properties"] = {name: values.schema() for name, (values, _) in sorted(self._members.items())}
            if required:
                schema["required"] = required
            schema["additionalProperties"] = False
        if self._items is not None:
            schema["items"] = self._items.schema()
        return schema


_KINDS: Final = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    list: "array",
    dict: "object",
    type(None): "null",
}


@command
def run_validate(args: argparse.Namespace) -> int:
    """Print what a contract describes."""
    print(f"{args.file} is a contract: {_described(_read(args.file).document)}")
    return 0


def _read(path: str) -> DataContract:
    """Read a contract file.

    :raises ValueError: it is not a contract.
    """
    contract = DataContract(path if "://" in path else str(Path(path).absolute()))
    contract.load(read_file)
    return contract


def _described(contract: Mapping[str, Any]) -> str:
    parts = [plural(len(contract[TRAITS].get("properties", ())), "trait")] if TRAITS in contract else []
    if EVENTS in contract:
        parts.append(plural(len(contract[EVENTS]), "event"))
    return ", ".join(parts)


@command
def run_types(args: argparse.Namespace) -> int:
    """List the types of traits and properties on record."""
    with opened(args.ledger_conn_id) as database:
        types = chosen_account(database, args.account).types()
    if args.json:
        print(json.dumps({name: {"type": kind, "since": since} for name, (kind, since) in types.items()}, indent=1))
        return 0
    cells = [(output.one_line(name), kind, output.time(since)) for name, (kind, since) in types.items()]
    for line in output.draw(_COLUMNS, cells):
        print(line)
    return 0


@command
def run_accept(args: argparse.Namespace) -> int:
    """Record a new type of a trait or property."""
    with opened(args.ledger_conn_id) as database:
        account = chosen_account(database, args.account)
        before = account.types()
        if args.name not in before:
            raise CommandError(
                f"No type of {args.name!r} is on record in the account {account.name}{hint(args.name, before)}. List "
                "them with: airflow regal contract types"
            )
        account.accept_type(args.name, args.type)
    print(
        f"Account {account.name}: {args.name} is sent as {args.type} from now on, no longer as {before[args.name][0]}."
    )
    if before[args.name][0] != args.type:
        print(
            "Regal keeps the type of the first value it got, and drops others without an error, until its support "
            "resets it.",
            file=sys.stderr,
        )
    return 0
