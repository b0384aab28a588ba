"""``outcomes --to-conn-id``: write the outcomes of rows to a table of the warehouse."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from airflow_provider_regal._compat import BaseHook
from airflow_provider_regal.cli.history import task_of
from airflow_provider_regal.cli.opening import CommandError, opened
from airflow_provider_regal.cli.output import plural
from airflow_provider_regal.ledger.text import to_ledger_time

if TYPE_CHECKING:
    from airflow_provider_regal.ledger.deliveries import Record


def copy_outcomes(args: argparse.Namespace) -> int:
    """Copy outcomes to a table of another database.

    :raises CommandError: the connection is not a database connection, or the warehouse can't be written.
    """
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_provider_regal.ledger.admin.write_back import write_back

    def tell(record: Record, lines: int) -> None:
        print(f"Delivery {record.id} ({task_of(record)}): {plural(lines, 'outcome')}", file=sys.stderr)

    engine = _engine(args.to_conn_id)
    try:
        with opened(args.ledger_conn_id) as database:
            done = write_back(
                database,
                engine,
                args.table,
                since=args.since and to_ledger_time(args.since.moment),
                account=args.account,
                again=args.again,
                on_delivery=tell,
            )
    except SQLAlchemyError as error:  # its text quotes the rows
        why = type(getattr(error, "orig", None) or error).__name__
        raise CommandError(
            f"The table {args.table} of connection {args.to_conn_id!r} can't be written ({why}). Deliveries that were "
            "copied stay; run this again to continue."
        ) from None
    finally:
        engine.dispose()
    told = [f"{plural(done.outcomes, 'outcome')} of {plural(done.deliveries, 'delivery', 'deliveries')} written"]
    if done.unchanged:
        told.append(f"{plural(done.unchanged, 'delivery', 'deliveries')} had not changed")
    if done.running:
        told.append(f"{plural(done.running, 'delivery is', 'deliveries are')} running, and written next time")
    print("; ".join(told) + ".")
    return 0


def _engine(conn_id: str) -> Any:
    connection: Any = BaseHook.get_connection(conn_id)
    hook = connection.get_hook()
    if not hasattr(hook, "get_sqlalchemy_engine"):
        raise CommandError(f"The connection {conn_id!r} is not one of an SQL database ({type(hook).__name__})")
    return hook.get_sqlalchemy_engine()
