"""``check``: check everything a delivery needs, and print what to do about each problem."""

from __future__ import annotations

import argparse
import sys
from typing import Final

from airflow_provider_regal.checks import FAILURE, check
from airflow_provider_regal.cli.opening import log_on_stderr
from airflow_provider_regal.cli.output import plural

_INDENT: Final = 22


def run_check(args: argparse.Namespace) -> int:
    """Check everything and print a line for each result.

    :returns: 1 if anything would prevent a delivery.
    """
    failures = count = 0
    with log_on_stderr():
        for finding in check(args.conn_id, args.ledger_conn_id):
            said = finding.said.replace("\n", "\n" + " " * _INDENT)
            print(f"{finding.how:<8} {finding.what:<12} {said}", flush=True)
            failures += finding.how == FAILURE
            count += 1
    if failures:
        print(f"{failures} of {plural(count, 'check')} failed: deliveries would not work.", file=sys.stderr)
    return int(bool(failures))
