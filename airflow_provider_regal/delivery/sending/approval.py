"""Split rows into what a plan sends at once and what waits for approval; a dry run sends neither.

::

    admitted rows ─▶ would the ledger grant it? ─▶ nothing but opt-outs? ─▶ sent now
                        └─▶ skipped                  └─▶ left open, and its opt-outs alone are sent now

Opt-outs that a source states don't wait for approval. Those that ``on_removed`` infers do: the approver has to see that
people vanished from a table.
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

    ``samples`` describe a few of the other rows, without their values; ``withheld`` counts why opt-ins are left out of
    rows that wait.

    :param rows: the rows a delivery would send; None whenever the caller should return to the event loop.
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
        """Return the rows the ledger would grant now, reduced to what it would grant; skip the rest."""
        verdicts = iter(self._account.verdicts([one.claim for row in rows for one in row.claims]))
        for row in rows:
            granted = grant(row, [next(verdicts) for _ in row.claims])
            self._recorder.apply(granted, self._clock.now())
            if granted.skip is None:
                yield row

    def _look_at(self, row: Ready) -> None:
        """Count a row; the first rows of each phase become samples."""
        if self._shown[row.phase] < _SAMPLES:
            self._shown[row.phase] += 1
            where = row.place or f"row {row.source_row:,}"
            self.samples.append(f"{where}: {row.payload.call}{_decisions(row)} {keys_only(row.payload.body)}")


def _decisions(row: Ready) -> str:
    """List the decisions of a sync that it would send: ``, sms opt-out of 2026-01-02``."""
    claims = [claimed.claim for claimed in row.claims if row.only_consent]
    return "".join(
        f", {one.channel} {'opt-in' if one.subscribed else 'opt-out'} of {(one.at or '')[:10]}" for one in claims
    )
