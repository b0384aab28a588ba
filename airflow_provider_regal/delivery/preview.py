"""A dry run: all that a delivery does before it sends; nothing is sent or kept.

The same passes, over a ledger of their own in a temporary file; the account's ledger is only read.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Final, TypeVar

from sqlalchemy.engine import Connection

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.client.target import Target
from airflow_provider_regal.delivery.admission import Admission
from airflow_provider_regal.delivery.delivery import OpenSource, open_rows
from airflow_provider_regal.delivery.first_pass import FirstPass
from airflow_provider_regal.delivery.guards import RUNS_COMPARED, why_stopped
from airflow_provider_regal.delivery.prepare import Preparer
from airflow_provider_regal.delivery.prepared import Ready
from airflow_provider_regal.delivery.recorder import Recorder
from airflow_provider_regal.delivery.report import DeliveryReport
from airflow_provider_regal.delivery.row_index import RowIndex
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.delivery.shared import SHARED, log_shared
from airflow_provider_regal.delivery.stopping import Stop
from airflow_provider_regal.delivery.type_drift import TypeDrift
from airflow_provider_regal.errors import FixSourceError
from airflow_provider_regal.events.privacy import keys_only
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.database import Database, sqlite_engine
from airflow_provider_regal.ledger.deliveries import Deliveries, Place, Record, Try
from airflow_provider_regal.ledger.states import Skip

T = TypeVar("T")
_SAMPLES: Final = 3


def preview(
    rows: OpenSource,
    settings: DeliverySettings,
    *,
    place: Place | None = None,
    target: Target,
    account: Account,
    stop: Stop,
    log: Callable[..., None],
) -> DeliveryReport:
    """Find out what a delivery would send.

    :param place: which task instance it is; None outside of a task.
    :param account: the ledger of the account, which is only read.
    :param log: gets the plan of a sync, why opt-ins are withheld, and samples without their values.
    :raises FixSourceError: the source is not plausible.
    :raises RetryLaterError: it was told to stop.
    """
    account.register(target.api_key, keep=False)
    runs = Deliveries(account).rows_of_runs(place, RUNS_COMPARED) if settings.volume and place else []
    clock = Clock(now=account.now)
    preparer = Preparer(settings, event_source=target.event_source, phones_of=account.plain_phones_of)
    report = DeliveryReport(status="dry_run")
    with tempfile.TemporaryDirectory(prefix="regal-dry-run-") as folder, closing(RowIndex()) as index:
        scratch = Database(sqlite_engine(Path(folder) / "ledger.db"), name="the dry run's scratch file")
        with closing(scratch):
            own = Account(scratch, account=account.name, now=account.now)
            held = Deliveries(own).begin(
                Place.outside_a_task(), Try(), call=settings.mapping.call, source="", options="", hold_s=0
            )
            first_pass = FirstPass(
                preparer, index, account, held.counts, read_at=clock.now(), keep=held.keep_rows, commits=False
            )
            with open_rows(
                rows(_Looking(account, held.record)),
                settings,
                preparer,
                account,
                held.counts,
                runs=runs,
                clock=clock,
                stop=stop,
                dry_run=True,
            ) as opened:
                first_pass.read(opened)
            if settings.sync is None and (guard := why_stopped(held.counts.read, settings, runs)) is not None:
                raise FixSourceError(f"{guard} Nothing was sent.")
            if (slip := first_pass.slip(settings)) is not None:
                raise FixSourceError(slip)
            held.rows_complete(first_pass.ambiguous(held.rows))
            drift = TypeDrift(account.types())
            recorder = Recorder(held, own, target, drift=drift, patience_s=0, clock=clock)
            admission = Admission(
                held,
                preparer,
                recorder,
                index=index,
                account=account,
                keys=preparer.keys,
                drift=drift,
                clock=clock,
                suppress_named_events=settings.suppress_named_events,
            )
            samples = _Samples()
            for ready in admission.rows():
                if ready is not None:
                    recorder.skip(ready, Skip.DRY_RUN, clock.now())
                    samples.look_at(ready)
                if recorder.is_full:
                    recorder.commit_now()
            recorder.commit_now()
            report.count(held.counts)
            report.reasons = held.reasons()
            report.notes.update(recorder.notes)
            if shared := index.shared or admission.shared():
                report.notes[SHARED] += len(shared)
                log_shared(shared)
    report.opt_outs_owed = account.count_owed(on_their_way=Deliveries(account).others_running(0))
    if report.plan:
        log("The plan\n%s", report.plan_as_table(with_reasons=True))
    if samples.withheld:
        log("Opt-ins withheld, while the rest of their rows is sent\n%s", samples.withheld_as_table())
    for line in samples.lines:
        log("%s", line)
    log("Dry run\n%s", report.as_table())
    would = report.skips.get(Skip.DRY_RUN, 0)
    log("Dry run: %s of %s rows would be sent. Nothing was sent or kept", f"{would:,}", f"{report.read:,}")
    return report


class _Looking:
    """Stands for a redelivery that takes nothing: it reads the account's ledger, and writes nowhere."""

    id = 0

    def __init__(self, account: Account, record: Record) -> None:
        self.account = account
        self.record = record

    def read(self, work: Callable[[Connection], T]) -> T:
        """Read from the ledger."""
        return self.account.database.read(work)

    def write(self, work: Callable[[Connection], object]) -> None:
        """Refuse to write."""
        raise RuntimeError("a dry run writes nothing")


class _Samples:
    """What a few of the rows would say, without their values, and why opt-ins are withheld from the others."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.withheld: Counter[str] = Counter()
        self._shown: Counter[int] = Counter()

    def look_at(self, ready: Ready) -> None:
        """Take a row in; the first of each phase are samples."""
        self.withheld.update(one.reason for one in ready.payload.withheld)
        if self._shown[ready.phase] < _SAMPLES:
            self._shown[ready.phase] += 1
            outline = keys_only(ready.payload.body)
            where = ready.place or f"row {ready.source_row:,}"
            self.lines.append(f"{where} would be sent as {ready.payload.call}{_decisions(ready)} {outline}")

    def withheld_as_table(self) -> str:
        """Draw the reasons with their counts."""
        return "\n".join(f"{count:>8,} x {reason}" for reason, count in self.withheld.most_common())


def _decisions(ready: Ready) -> str:
    """List what a sync tells Regal by it: ``, sms opt-out of 2026-01-02``."""
    claims = [claimed.claim for claimed in ready.claims if ready.only_consent]
    return "".join(
        f", {one.channel} {'opt-in' if one.subscribed else 'opt-out'} of {(one.at or '')[:10]}" for one in claims
    )
