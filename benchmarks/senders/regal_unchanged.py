"""Like ``regal``, with ``only_changed=True`` and an SQLite ledger that knows all rows except those that changed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import contacts
from benchmarks.senders import regal
from benchmarks.senders.work import Work


def prepare(work: Work) -> None:
    """Write to the ledger what an earlier delivery of the rows would have left there; not measured."""
    from airflow_provider_regal.delivery.reading.keys import hash_of_row
    from airflow_provider_regal.delivery.reading.prepare import Preparer
    from airflow_provider_regal.delivery.settings import DeliverySettings
    from airflow_provider_regal.hooks._ledger import open_account
    from airflow_provider_regal.hooks.regal import RegalHook

    regal.set_connections(work)
    target = RegalHook().target
    preparer = Preparer(DeliverySettings.of(call="identify", only_changed=True), event_source=target.event_source)

    def known() -> Iterator[tuple[str, str, None]]:
        for row in contacts.rows(Path(work.database), work.first, work.count):
            number = row["user_id"]
            if work.changed_every and number % work.changed_every == 0:
                row["plan"] = "another"
            yield str(number), hash_of_row(row, preparer.ignored_columns, preparer.fingerprint), None

    account = open_account(target, source="benchmark.contacts")
    with closing(account.database):
        told = known()
        while batch := [*islice(told, 10_000)]:
            account.database.write(partial(account.keep_contacts, contacts=batch))


def send(work: Work) -> int:
    """Send what changed; returns how many were acknowledged."""
    return regal.send(work, only_changed=True)


def also(work: Work) -> dict[str, Any]:
    """Return the CPU seconds of reading the query alone."""
    from airflow_provider_regal.operators._query import open_query

    begun = time.process_time()
    for _ in open_query("warehouse", work.sql):
        pass
    return {"reading_cpu_s": round(time.process_time() - begun, 4)}
