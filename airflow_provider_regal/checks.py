"""Check everything that a delivery needs, and say what to do about each problem."""

from __future__ import annotations

import os
import sys
from collections.abc import Generator, Iterator
from contextlib import closing
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple
from uuid import uuid4

from airflow_provider_regal import __version__
from airflow_provider_regal._compat import AirflowException, conf
from airflow_provider_regal.client.probe import ask
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.hooks._ledger import (
    check_executor,
    configured,
    is_missing,
    kept_for,
    local_file,
    missing_connection,
    open_account,
    open_database,
    remote_executor,
)
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.ledger import formats, schema
from airflow_provider_regal.ledger.admin import history
from airflow_provider_regal.ledger.admin.last_deliveries import last_deliveries
from airflow_provider_regal.ledger.admin.left import rows_left
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.formats import plural
from airflow_provider_regal.ledger.people.owed import count_owed

OK: Final = "ok"
WARNING: Final = "warning"
FAILURE: Final = "failure"
_DOCUMENTED_RATE: Final = 300
_SKEW_S: Final = 5.0
_LEDGER_SKEW_S: Final = 2.0
_PATIENCE_S: Final = 5.0
#: A delivery that stopped longer ago than the usual delay between retries.
_QUIET_S: Final = 3_600.0
_PACKAGES: Final = ("apache-airflow", "aiohttp", "pydantic", "phonenumbers", "requests", "sqlalchemy")


class Finding(NamedTuple):
    """One line of the result: status, what was checked, and what was found, with the next step."""

    how: str
    what: str
    said: str


def check(conn_id: str, ledger_conn_id: str | None) -> Iterator[Finding]:
    """Check everything a delivery needs, from this machine; sends no event."""
    yield _versions()
    target = yield from ask_regal(conn_id)
    yield from _ledger(ledger_conn_id, target)


def look() -> Iterator[Finding]:
    """Check what can be checked without writing anything and without asking Regal."""
    yield _versions()
    yield from _ledger(None, None, writes=False)


def ask_regal(conn_id: str) -> Generator[Finding, None, Target | None]:
    """Check a connection, and whether Regal answers this machine; sends no event.

    :returns: the connection's target; None if it can't be used.
    """
    try:
        target = RegalHook(conn_id).target
    except RegalError as error:
        yield Finding(FAILURE, "connection", str(error))
    except AirflowException as error:
        yield Finding(FAILURE, "connection", missing_connection(error))
    else:
        yield from _connection(target)
        yield from _reachability(target)
        return target
    return None


def _versions() -> Finding:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            return Finding(FAILURE, "versions", f"{package} is not installed: reinstall airflow-provider-regal")
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding(OK, "versions", f"airflow-provider-regal {__version__}, Python {python}, {', '.join(found)}")


def _connection(target: Target) -> Iterator[Finding]:
    yield Finding(
        OK,
        "connection",
        f"{target.conn_id}: {target.origin}, account {target.account!r}, at most "
        f"{plural(target.rate_limit, 'request')}/s, timeout {target.timeout_s:g} s",
    )
    if target.rate_limit > _DOCUMENTED_RATE:
        yield Finding(
            WARNING,
            "rate",
            f"rate_limit is {target.rate_limit}; Regal documents {_DOCUMENTED_RATE} requests/s for the whole account. "
            "Lower it unless Regal raised yours",
        )
    if target.dry_run or conf.getboolean("regal", "dry_run", fallback=False):
        yield Finding(WARNING, "dry run", "nothing is sent: switch dry_run off in the connection or in [regal]")


def _reachability(target: Target) -> Iterator[Finding]:
    probed = ask(target.origin)
    if not probed.answered:
        yield Finding(FAILURE, "network", f"{probed.said} Check host, proxy and firewall of this machine")
        return
    yield Finding(OK, "network", probed.said)
    if probed.skew_s is None:
        yield Finding(WARNING, "clock", "the server sends no time, so this machine's clock could not be compared")
    elif abs(probed.skew_s) > _SKEW_S:
        yield Finding(
            WARNING,
            "clock",
            f"this machine's clock is {abs(probed.skew_s):.0f} s {'behind' if probed.skew_s > 0 else 'ahead of'} the "
            "server's: fresh consent may look as if it were given in the future, and be withheld. Synchronize it (NTP)",
        )
    else:
        yield Finding(OK, "clock", "agrees with the server's to a few seconds")


# -- the ledger -------------------------------------------------------------------------------------------------------


def _ledger(conn_id: str | None, target: Target | None, *, writes: bool = True) -> Iterator[Finding]:
    name = configured(conn_id)
    where = f"connection {name}" if name is not None else str(local_file())
    try:
        yield _executor(name)
        if is_missing(conn_id):
            yield _missing_file(local_file())
            return
        with closing(open_database(conn_id, migrate=False)) as database:
            database.patience_s = _PATIENCE_S
            yield from _database(database, where, writes=writes)
            if not writes and history.read_schema_version(database) is None:
                return
            yield _ledger_clock(database)
            yield _retention()
            yield from _account(database, target)
    except RegalError as error:
        yield Finding(FAILURE, "ledger", str(error))
    except AirflowException as error:
        yield Finding(FAILURE, "ledger", missing_connection(error))
    except Exception as error:  # noqa: BLE001 - whatever a driver raises; its words may hold a password
        yield Finding(
            FAILURE, "ledger", f"{where}: {type(error).__name__}. Check the connection, or install its provider"
        )


def _executor(conn_id: str | None) -> Finding:
    remote = remote_executor()
    if conn_id is not None:
        return Finding(OK, "executor", f"{remote or _executor_name()}: every worker has to reach connection {conn_id}")
    check_executor()
    if remote is not None:
        return Finding(
            WARNING,
            "executor",
            f"{remote}, with allow_local_ledger: tasks on another machine than this would not see the ledger's file",
        )
    return Finding(OK, "executor", f"{_executor_name()}: tasks run on this machine and share the ledger's file")


def _executor_name() -> str:
    configured_: str = conf.get("core", "executor", fallback="LocalExecutor")
    return configured_


def _missing_file(file: Path) -> Finding:
    folder = next(one for one in file.parents if one.exists())
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding(FAILURE, "ledger", f"{file} does not exist, and {folder} can't be written by this user")
    return Finding(OK, "ledger", f"{file} does not exist yet: the first delivery creates it")


def _database(database: Database, where: str, *, writes: bool) -> Iterator[Finding]:
    known, newest = history.read_schema_version(database), len(schema.MIGRATIONS)
    if writes and (known is None or known > newest):  # as a first delivery would; or reports the failure
        database.upgrade()
        known = newest
    if known is None:
        yield Finding(WARNING, "ledger", f"{where}: has no tables yet; the first delivery creates them")
        return
    if known < newest:
        yield Finding(
            WARNING,
            "schema",
            f"version {known}; the next delivery migrates it to {newest}. Upgrade all workers together",
        )
    if writes:
        _write_and_remove(database)
    how = "written and read back" if writes else "read"
    yield Finding(OK, "ledger", f"{where}: {how}, {database.dialect}, schema version {known}")


def _write_and_remove(database: Database) -> None:
    trial = f"check {uuid4().hex}"
    table = schema.types
    row = {"account": "check of airflow-provider-regal", "name": trial, "type": "text"}
    this = (table.c.account == row["account"]) & (table.c.name == trial)
    database.write(lambda connection: connection.execute(table.insert(), row))
    removed = database.write(lambda connection: connection.execute(table.delete().where(this)).rowcount)
    if removed != 1:
        raise RegalError("What was written to the ledger was not found again: is this a replica?")


def _ledger_clock(database: Database) -> Finding:
    if database.file is not None:
        return Finding(OK, "ledger clock", "is this machine's")
    ahead_s = (database.now() - datetime.now(UTC)).total_seconds()
    if abs(ahead_s) > _LEDGER_SKEW_S:
        return Finding(
            WARNING,
            "ledger clock",
            f"this machine's clock is {abs(ahead_s):.0f} s {'behind' if ahead_s > 0 else 'ahead of'} the database's, "
            "which deliveries use. Synchronize both (NTP)",
        )
    return Finding(OK, "ledger clock", "agrees with the database's")


def _retention() -> Finding:
    try:
        days = kept_for().consent_days
    except ValueError as error:
        return Finding(FAILURE, "retention", f"{error}; nothing old is removed until it is")
    if days is None:
        return Finding(OK, "retention", "the consent log is kept forever; [regal] consent_days limits that")
    return Finding(
        OK, "retention", f"lines of the consent log are kept for {days:g} days, what proves an opt-in longer"
    )


def _account(database: Database, target: Target | None) -> Iterator[Finding]:
    accounts = history.list_accounts(database)
    if target is not None:
        open_account(target, database=database).register(target.api_key, keep=False)
    if not accounts:
        yield Finding(OK, "accounts", "none yet: the first delivery registers its account")
    else:
        told = ", ".join(f"{one.account} ({plural(one.deliveries, 'delivery', 'deliveries')})" for one in accounts)
        yield Finding(OK, "accounts", told)
    unknown = history.unknown_rows(database)
    if unknown.rows and unknown.oldest_at is not None:
        age = formats.ago(unknown.oldest_at, database.now())
        yield Finding(
            WARNING,
            "unknown rows",
            f"it can't be known whether Regal received {plural(unknown.rows, 'row')}, the oldest {age} old. Look for "
            f"them in Regal: airflow regal outcomes {unknown.delivery} --status unknown",
        )
    else:
        yield Finding(OK, "unknown rows", "none")
    left = rows_left(database, quiet_s=_QUIET_S)
    if left.oldest_at is not None:
        yield Finding(
            WARNING,
            "rows left",
            f"{plural(left.rows, 'row')} of {plural(left.deliveries, 'delivery', 'deliveries')} that stopped, the "
            f"oldest {formats.ago(left.oldest_at, database.now())} ago, and were not resumed. Look at it, and clear "
            f"its task: airflow regal deliveries {left.delivery}",
        )
    else:
        yield Finding(
            OK, "rows left", "none in deliveries that stopped more than an hour ago; later ones may still be retried"
        )
    running = history.running_deliveries(database)
    owed = count_owed(database, without=running)
    if owed.opt_outs and owed.oldest_at is not None:
        age = formats.ago(owed.oldest_at, database.now())
        yield Finding(
            WARNING,
            "owed",
            f"Regal has not acknowledged {plural(owed.opt_outs, 'opt-out')} that were read, the oldest {age} ago. The "
            "next delivery of contacts sends them first. Look, or send them now: airflow regal consent owed --send",
        )
    else:
        yield Finding(OK, "owed", "Regal has acknowledged every opt-out that could be sent")
    yield from _last_runs(database)


def _last_runs(database: Database) -> Iterator[Finding]:
    last = last_deliveries(database)
    if last.opt_outs_rejected:
        yield Finding(
            WARNING,
            "opt-outs",
            f"{plural(last.opt_outs_rejected, 'row')} with an opt-out, or a decision that can't be read, "
            f"{'was' if last.opt_outs_rejected == 1 else 'were'} rejected in the last runs: these people may still be "
            f"contacted. Correct them in the source: airflow regal outcomes {last.newest_rejected} --status rejected",
        )
    else:
        yield Finding(OK, "opt-outs", "the last runs rejected none")
    if last.failed:
        more = f", and {last.stopped:,} stopped" if last.stopped else ""
        yield Finding(
            WARNING,
            "last runs",
            f"the last delivery of {plural(last.failed, 'task')} failed{more}. Look at it: "
            f"airflow regal deliveries {last.newest_failed}",
        )
    elif last.stopped:
        yield Finding(
            WARNING,
            "last runs",
            f"the last delivery of {plural(last.stopped, 'task')} stopped. If Airflow does not retry it, clear its "
            f"task: airflow regal deliveries {last.newest_stopped}",
        )
    else:
        yield Finding(OK, "last runs", "the last delivery of no task failed or stopped")
