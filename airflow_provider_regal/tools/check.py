"""``check``: the doctor. Looks at everything a delivery needs, and says what to do about what it finds."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from airflow_provider_regal import __version__
from airflow_provider_regal._compat import AirflowException, BaseHook, conf
from airflow_provider_regal.client.probe import ask
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.hooks._bucket import fault_of, open_bucket
from airflow_provider_regal.hooks._ledger import has_ledger_file, open_ledger
from airflow_provider_regal.hooks._place import storage
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.journal.ledger_error import LedgerError
from airflow_provider_regal.journal.ledger_rules import TRACK, Claim
from airflow_provider_regal.tools.storage_check import check_storage, is_local

OK: Final = "ok"
WARNING: Final = "warning"
FAILURE: Final = "failure"
_DOCUMENTED_RATE: Final = 300
_SKEW_S: Final = 5.0
_PATIENCE_S: Final = 3.0  # with a bucket
_TRIAL: Final = Claim(TRACK, "written by the check of airflow-provider-regal")
_PACKAGES: Final = ("apache-airflow", "aiohttp", "pydantic", "phonenumbers", "requests", "sqlalchemy")


class Finding(NamedTuple):
    """One line: how it is, what was looked at, and what was found, with what to do about it."""

    how: str
    what: str
    said: str


def run_check(args: argparse.Namespace) -> int:
    """Look at everything and print a line each.

    :returns: 1 if anything would keep a delivery from working.
    """
    logging.disable(logging.INFO)  # Airflow 2 would write between the lines
    try:
        findings = list(check(args.conn_id, args.ledger_conn_id))
    finally:
        logging.disable(logging.NOTSET)
    for finding in findings:
        print(f"{finding.how:<8} {finding.what:<12} {finding.said}")
    failures = sum(finding.how == FAILURE for finding in findings)
    if failures:
        print(f"{failures} of {len(findings)} would keep a delivery from working.", file=sys.stderr)
    return int(bool(failures))


def check(conn_id: str, ledger_conn_id: str | None) -> Iterator[Finding]:
    """Look at everything a delivery needs; sends no event."""
    yield _versions()
    target: Target | None = None
    try:
        target = RegalHook(conn_id).target
    except RegalError as error:
        yield Finding(FAILURE, "connection", str(error))
    except AirflowException as error:
        yield Finding(FAILURE, "connection", f"{error}. Add a connection of type regal, with the API key")
    if target is not None:
        yield from _connection(target)
        yield from _reachability(target)
    yield from _storage()
    yield _ledger(ledger_conn_id, target)


def _versions() -> Finding:
    found = []
    for package in _PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            return Finding(FAILURE, "versions", f"{package} is not installed: install airflow-provider-regal anew")
    python = ".".join(map(str, sys.version_info[:3]))
    return Finding(OK, "versions", f"airflow-provider-regal {__version__}, Python {python}, {', '.join(found)}")


def _connection(target: Target) -> Iterator[Finding]:
    yield Finding(
        OK,
        "connection",
        f"{target.conn_id}: {target.origin}, at most {target.rate_limit} requests/s, timeout {target.timeout_s:g} s",
    )
    if target.rate_limit > _DOCUMENTED_RATE:
        yield Finding(
            WARNING,
            "rate",
            f"rate_limit is {target.rate_limit}; Regal documents {_DOCUMENTED_RATE} a second for the whole account. "
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
        yield Finding(WARNING, "clock", "the server does not say what time it is, so this machine's clock is unproved")
    elif abs(probed.skew_s) > _SKEW_S:
        yield Finding(
            WARNING,
            "clock",
            f"this machine's clock is {abs(probed.skew_s):.0f} s {'behind' if probed.skew_s > 0 else 'ahead'}: fresh "
            "consent may look as if it were of the future, and be withheld. Synchronise it (NTP)",
        )
    else:
        yield Finding(OK, "clock", "agrees with the server's to some seconds")


def _storage() -> Iterator[Finding]:
    try:
        bucket = open_bucket(patience_s=_PATIENCE_S)
        folder = storage() if bucket is None else None
    except RegalError as error:
        yield Finding(FAILURE, "storage", str(error))
        return
    if folder is None or bucket is not None:
        fault = None if bucket is None else fault_of(bucket)
        said = fault or f"{bucket} can be written and read back, and makes an object only once"
        yield Finding(FAILURE if fault else OK, "storage", said)
        yield from _credentials()
        return
    yield from (Finding(*found) for found in check_storage(folder))
    executor = conf.get("core", "executor", fallback="")
    if not executor.startswith(("Local", "Sequential")) and is_local(folder):
        yield Finding(
            WARNING,
            "storage",
            f"{executor} may retry a task on another machine, which would not find run folders there: set [regal] "
            "storage_path to a folder that all workers see",
        )


def _credentials() -> Iterator[Finding]:
    conn_id = urlsplit(conf.get("regal", "storage_path", fallback="")).username
    try:
        if conn_id is not None:
            BaseHook.get_connection(conn_id)
    except AirflowException:
        yield Finding(
            WARNING,
            "storage",
            f"there is no connection {conn_id!r}, so this machine's own credentials for AWS are used. Add it, of type "
            "aws, if they are not meant",
        )


def _ledger(conn_id: str | None, target: Target | None) -> Finding:
    if target is None:
        return Finding(WARNING, "ledger", "not looked at, for want of a connection")
    name = "the file beside the run folders" if conn_id is None else conn_id
    try:
        if conn_id is None and open_bucket() is not None:
            return Finding(OK, "ledger", "none; where run folders are on object storage, ledger_conn_id= names one")
        if conn_id is None and not has_ledger_file():
            return Finding(OK, "ledger", f"{name}: not there yet; the first delivery that needs it makes it")
        ledger = open_ledger(
            conn_id, account=target.account, run="check", source="", timeout_s=target.timeout_s, keep_secret=False
        )
        try:
            ledger.claim([_TRIAL])
            ledger.settle(released=[_TRIAL])  # which removes it
            known = "knows consents" if ledger.has_consents() else "knows no consent yet"
        finally:
            ledger.close()
    except (RegalError, LedgerError, AirflowException) as error:
        return Finding(FAILURE, "ledger", f"{name}: {error}")
    except Exception as error:  # noqa: BLE001 - whatever a driver raises; its words may hold a password
        return Finding(
            FAILURE, "ledger", f"{name}: {type(error).__name__}. Mend the connection, or install its provider"
        )
    return Finding(OK, "ledger", f"{name}: can be written, {known} of account {target.account!r}")
