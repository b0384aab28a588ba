"""``suppress list``, ``add``, ``remove``: people who must not be contacted."""

from __future__ import annotations

import argparse
import csv
import getpass
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final, TextIO

from airflow_provider_regal.cli import output
from airflow_provider_regal.cli.opening import CommandError, command, identifiers, opened
from airflow_provider_regal.cli.output import Column, plural
from airflow_provider_regal.hooks._ledger import open_database
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.admin.history import list_accounts
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.people import suppressions
from airflow_provider_regal.ledger.people.suppressions import USER, Suppression, read_identifier
from airflow_provider_regal.ledger.text import short
from airflow_provider_regal.operators._query import open_query

_NAMED: Final = ("user_id", "phone", "email")
_KINDS: Final = (("phone", "phones"), ("email", "emails"), ("user id", "user ids"))
_FAULTS_SHOWN: Final = 20
_SHOWN_AT_ONCE: Final = 1_000
_COLUMNS: Final = (
    Column("WHO"), Column("KIND"), Column("SINCE (UTC)"), Column("BY"), Column("SOURCE"), Column("NOTE"),
    Column("ACCOUNT"),
)  # fmt: skip


@command
def run_list(args: argparse.Namespace) -> int:
    """List suppressed and forgotten people; if people are named, return 1 if none of them is listed."""
    account = None if args.account is None else short(args.account)
    people = People(args)
    with opened(args.ledger_conn_id) as database:
        found: Iterable[Suppression] = suppressions.list_suppressions(database, account)
        if people.are_given:
            found = suppressions.find_suppressions(database, people, identifiers=identifiers(), account=account)
        count = _print_json(found) if args.json else _print(found)
    if not count:
        print("None of them is suppressed." if people.are_given else "No one is suppressed.", file=sys.stderr)
    return max(int(people.are_given and not count), people.report())


def _print_json(found: Iterable[Suppression]) -> int:
    listed = [one._asdict() for one in found]
    print(json.dumps(listed, indent=1))
    return len(listed)


def _print(found: Iterable[Suppression]) -> int:
    count, left = 0, iter(found)
    while some := [*islice(left, _SHOWN_AT_ONCE)]:
        count += len(some)
        cells = [
            [
                output.one_line(cell)
                for cell in (
                    output.identifier(one.identifier), one.kind, output.time(one.added_at), one.added_by or "-",
                    one.source or "-", one.note or "-", one.account,
                )
            ]
            for one in some
        ]  # fmt: skip
        for line in output.draw(_COLUMNS, cells):
            print(line)
    return count


@command
def run_add(args: argparse.Namespace) -> int:
    """Suppress people; return 1 if an identifier could not be read."""
    people = People(args)
    with writable(args) as (_, account):
        added = suppressions.suppress(account, people, by=this_user(), source=people.source, note=args.note)
    if args.json:
        print(
            json.dumps({"account": account.name, "read": people.read, "added": added, "unreadable": people.unreadable})
        )
    else:
        print(
            f"Account {account.name}: read {people.described()}; {added:,} added, the others are on the list already."
            if added < people.read
            else f"Account {account.name}: added {people.described()}."
        )
    return people.report()


@command
def run_remove(args: argparse.Namespace) -> int:
    """Allow people to be contacted again; return 1 if none was suppressed."""
    people = People(args)
    with writable(args) as (_, account):
        removed = suppressions.unsuppress(account, people)
    count = removed["suppressed"] + removed["forgotten"]
    if args.json:
        told = {name: removed[name] for name in ("suppressed", "forgotten", "opt_outs")}
        print(json.dumps({"account": account.name, "read": people.read, **told, "unreadable": people.unreadable}))
    else:
        print(f"Account {account.name}: read {people.described()}; {count:,} removed.")
    if removed["opt_outs"]:
        print(
            f"{plural(removed['opt_outs'], 'opt-out')} from before {removed['forgotten']:,} were forgotten "
            "block older opt-ins again, and the next delivery of contacts sends them.",
            file=sys.stderr,
        )
    return max(people.report(), int(not count))


@contextmanager
def writable(args: argparse.Namespace) -> Iterator[tuple[Database, Account]]:
    """Open the ledger and the named account, or the only one; a missing ledger is created.

    :raises CommandError: it is not clear which account is meant.
    """
    with closing(open_database(args.ledger_conn_id)) as database:
        yield database, chosen_account(database, args.account)


def chosen_account(database: Database, name: str | None) -> Account:
    """Open the named account, or the only one of the ledger.

    :raises CommandError: it is not clear which account is meant.
    """
    if name is None:
        names = [one.account for one in list_accounts(database)]
        if len(names) != 1:
            which = f"The ledger has {len(names)} accounts ({', '.join(names)})" if names else "The ledger is empty"
            raise CommandError(
                f"{which}: name the account with --account. It is the extra 'account' of the Regal connection, by "
                "default the connection's id."
            )
        (name,) = names
    return account_of(database, name, identifiers())


def account_of(database: Database, name: str, key: Any) -> Account:
    """Open an account that stores identifiers as configured."""
    account = Account(database, account=name, source="command line")
    account.identifiers = key
    return account


def this_user() -> str | None:
    """Return the system user who runs the command, if known."""
    with suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return None


class People:
    """The people a command names: as arguments, in a file, or by a query; can be iterated once.

    ``read`` counts them, ``unreadable`` those that could not be read.

    :param args: with ``person``, ``file``, ``sql`` and ``sql_conn_id``.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self._args = args
        self._file, self._sql = args.file, getattr(args, "sql", None)
        self.kinds: Counter[str] = Counter()
        self.unreadable = 0
        self._faults: list[str] = []

    @property
    def are_given(self) -> bool:
        """Whether the command names anyone."""
        return bool(self._args.person or self._file or self._sql)

    @property
    def source(self) -> str:
        """Return where they come from."""
        if self._sql:
            return f"query on {self._args.sql_conn_id}"
        if self._file:
            return "standard input" if self._file == "-" else f"file {Path(self._file).name}"
        return "command line"

    @property
    def read(self) -> int:
        """The number of identifiers that were read."""
        return self.kinds.total()

    def described(self) -> str:
        """Return the number of each kind: ``2 phones, 1 email``."""
        told = [plural(self.kinds[one], one, many) for one, many in _KINDS if self.kinds[one]]
        return ", ".join(told) or "no identifier"

    def report(self) -> int:
        """Print those that could not be read; return 1 if there are any."""
        for fault in self._faults:
            print(f"error: {fault}", file=sys.stderr)
        if (more := self.unreadable - len(self._faults)) > 0:
            print(f"error: and {more:,} more", file=sys.stderr)
        return int(self.unreadable > 0)

    def __iter__(self) -> Iterator[str]:
        for where, name, text in self._texts():
            try:
                one = read_identifier(f"{USER}{text}" if name == "user_id" else text)
                if name in ("phone", "email") and one.startswith(USER):
                    raise ValueError(f"not {'a phone number' if name == 'phone' else 'an email address'}")
            except ValueError as error:
                self.unreadable += 1
                if len(self._faults) < _FAULTS_SHOWN:
                    self._faults.append(f"{where}: {error}")
                continue
            self.kinds["user id" if one.startswith(USER) else "email" if "@" in one else "phone"] += 1
            yield one

    def _texts(self) -> Iterator[tuple[str, str | None, str]]:
        """Return each text with its place, and the name of its column."""
        for number, text in enumerate(self._args.person, 1):
            yield f"argument {number}", None, text
        if self._file == "-":
            yield from _of_file(sys.stdin, "standard input")
        elif self._file:
            try:
                with Path(self._file).open(encoding="utf-8-sig", newline="") as file:
                    yield from _of_file(file, Path(self._file).name)
            except (OSError, UnicodeDecodeError, csv.Error) as error:
                raise CommandError(f"{self._file} can't be read ({error}). Nothing was changed.") from error
        if self._sql:
            yield from _of_query(self._args.sql_conn_id, self._sql)


def _of_file(file: TextIO, name: str) -> Iterator[tuple[str, str | None, str]]:
    lines = csv.reader(file)
    columns: dict[int, str] | None = None
    for cells in lines:
        where = f"{name} line {lines.line_num}"
        if columns is None:
            names = [cell.strip().lower() for cell in cells]
            columns = {number: one for number, one in enumerate(names) if one in _NAMED}
            if columns:
                continue
        given = [(columns.get(number), cell) for number, cell in enumerate(cells) if cell.strip()]
        if columns:
            given = [(column, cell) for column, cell in given if column is not None]
        elif len(given) > 1:
            raise CommandError(
                f"{where} has {len(given)} columns: write one identifier a line, or a first line that names the "
                f"columns ({', '.join(_NAMED)}). Nothing was changed."
            )
        for column, cell in given:
            yield (f"{where}, {column}" if column else where), column, cell


def _of_query(conn_id: str, sql: str) -> Iterator[tuple[str, str | None, str]]:
    columns: dict[str, str] | None = None
    for number, row in enumerate(open_query(conn_id, sql), 1):
        if columns is None:
            columns = _columns_of(row)
        for column, name in columns.items():
            if row[column] is not None and str(row[column]).strip():
                yield f"row {number:,}, {name}", name, str(row[column])


def _columns_of(row: Mapping[str, Any]) -> dict[str, str]:
    columns = {column: column.lower() for column in row if column.lower() in _NAMED}
    if not columns:
        raise CommandError(f"The query returns none of the columns {', '.join(_NAMED)}: name them with AS.")
    return columns
