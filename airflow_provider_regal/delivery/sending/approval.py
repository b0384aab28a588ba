"""What a plan sends at once, and what it leaves until it is approved; a dry run sends nothing of either.

::

    admitted rows ─▶ would the ledger grant it? ─▶ nothing but opt-outs? ─▶ sent now
                        └─▶ skipped                  └─▶ left open, and its opt-outs alone are sent now

Opt-outs that a source states do not wait for approval. Those that ``on_removed`` infers do: that people vanished from a
table is what whoever approves has to see.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.delivery.reading.grants import grant
from airflow_provider_regal.delivery.reading.prepared import Ready
from airflow_provider_regal.delivery.sending.recorder import Recorder
from airflow_provider_regal.events.privacy import keys_only
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.states import Skip

_SAMPLES: Final = 3


class Approval:
    """Lets through what a plan sends before it is approved.

    ``samples`` show what a few of the other rows would say, without their values; ``withheld`` counts why opt-ins are
    left out of rows that wait.

    :param rows: those that a delivery would send; None where it is time to look at the network.
    """

    def __init__(
        self, rows: Iterator[Ready | None], recorder: Recorder, account: Account, clock: Clock, *, dry_run: bool
    ) -> None:
        self._rows = rows
        self._recorder = recorder
        self._account = account
        self._clock = clock
        self._dry_run = dry_run
        self._shown: Counter[int] = Counter()
        self.samples: list[str] = []
        self.withheld: Counter[str] = Counter()

    def rows(self) -> Iterator[Ready | None]:
        """Return the rows that are sent now."""
        some: list[Ready] = []
        for row in self._rows:
            if row is not None:
                some.append(row)
                continue
            for one in self._granted(some):
                if self._dry_run:
                    self._look_at(one)
                    self._recorder.skip(one, Skip.DRY_RUN, self._clock.now())
                elif one.is_opt_outs_alone:
                    yield one
                else:
                    self._look_at(one)
                    self._recorder.note_notes(one)
                    self.withheld.update(withheld.reason for withheld in one.payload.withheld)
                    if one.leave_for_approval():
                        yield one
            some.clear()
            yield None

    def _granted(self, rows: list[Ready]) -> Iterator[Ready]:
        """Return what the ledger would let through now, as it would; the rest is skipped."""
        verdicts = iter(self._account.verdicts([one.claim for row in rows for one in row.claims]))
        for row in rows:
            granted = grant(row, [next(verdicts) for _ in row.claims])
            self._recorder.apply(granted, self._clock.now())
            if granted.skip is None:
                yield row

    def _look_at(self, row: Ready) -> None:
        """Take a row in; the first of each phase are samples."""
        if self._shown[row.phase] < _SAMPLES:
            self._shown[row.phase] += 1
            where = row.place or f"row {row.source_row:,}"
            self.samples.append(f"{where}: {row.payload.call}{_decisions(row)} {keys_only(row.payload.body)}")


def _decisions(row: Ready) -> str:
    """List what a sync tells Regal by it: ``, sms opt-out of 2026-01-02``."""
    claims = [claimed.claim for claimed in row.claims if row.only_consent]
    return "".join(
        f", {one.channel} {'opt-in' if one.subscribed else 'opt-out'} of {(one.at or '')[:10]}" for one in claims
    )
