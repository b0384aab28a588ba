"""The page of one delivery: what happened, what to do, is that normal, why, and which rows."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any, Final
from urllib.parse import quote

from airflow_provider_regal.ledger import formats, tries
from airflow_provider_regal.ledger.admin import history, monitoring, words
from airflow_provider_regal.ledger.admin.left import LEFT, left_of
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import (
    FAILED,
    FINISHED,
    PLANNED,
    READING,
    SENDING,
    STOPPED,
    Counts,
    Record,
)
from airflow_provider_regal.ledger.entries import batches
from airflow_provider_regal.ledger.outcomes import OutcomeRow, outcomes_of
from airflow_provider_regal.ledger.states import Outcome
from airflow_provider_regal.ledger.text import from_ledger_time
from airflow_provider_regal.ledger.tries import LOST, RUNNING, TryRow
from airflow_provider_regal.plugin import charts
from airflow_provider_regal.plugin.deliveries import Row, known_since, row_of

ROWS_A_PAGE: Final = 50
RUNS_SHOWN: Final = 14
MASK: Final = "•••"
TICK: Final = "row-"
STATUSES: Final = ("rejected", "unknown", LEFT, "acknowledged")
TRIES_SHOWN: Final = 20
_REASONS_SHOWN: Final = 20
_FILLED_AT_ONCE: Final = 200
_ADVICE_SHOWN: Final = 2
_NO_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_PERSONAL: Final = ("user_id", "phone", "email")


@dataclass(frozen=True)
class RowFilter:
    """Which rows are listed.

    :param status: empty for rejected and unknown rows; if there are none, for those that are left.
    :param after: the last row of the previous page.
    """

    status: str = ""
    reason: str = ""
    after: int = 0

    @classmethod
    def of(cls, given: Mapping[str, str], record: Record) -> RowFilter:
        """Parse a query or a form; values that are not among the choices are ignored."""
        after, status = given.get("after", ""), given.get("status", "")
        usual = LEFT if words.left_of(record) and not record.rejected + record.unknown else ""
        return cls(
            status=status if status in STATUSES else usual,
            reason=given.get("reason", "").strip()[:200],
            after=int(after) if after.isdecimal() and len(after) < 12 else 0,
        )


def view(
    database: Database,
    record: Record,
    filters: RowFilter,
    *,
    reveals: bool,
    revealed: bool,
    redelivers: bool,
    settles: bool,
) -> dict[str, Any]:
    """Collect what the page shows.

    :param reveals: whether the user may see personal data.
    :param revealed: whether personal data is shown now.
    :param redelivers: whether the user may start a redelivery.
    :param settles: whether the user may mark unknown rows as found at Regal.
    """
    now, counts = database.now(), Counts.of(record)
    sender = monitoring.senders(database).get(record.holder or "")
    runs = monitoring.runs_like(database, record, limit=RUNS_SHOWN)
    known = known_since(database, [record, *(one for one in runs if one.id != record.id)])
    since = known[record.id]
    is_alive = words.is_alive(record, now, since.task)
    waits = record.state == STOPPED and since.task is words.TaskNow.WAITING
    row = row_of(record, now, {} if sender is None else {sender.sender: sender}, since)
    tried = database.read(lambda connection: tries.tries_of(connection, record, limit=TRIES_SHOWN))
    detail = history.find_delivery(database, record.id)
    reasons = [] if detail is None else detail.reasons
    told = [words.without_advice(one.reason.removeprefix(f"{one.status}, ")) for one in reasons[:_REASONS_SHOWN]]
    advice = list(dict.fromkeys(advice for _, advice in told if advice))[:_ADVICE_SHOWN]
    letters = monitoring.letters(database, record.id)
    steps = words.next_steps(record, counts, now, since, refused=letters.refused, advice=advice)
    rows = _rows(database, record, filters)
    limit = record.rate or max((one.rate for one in runs if one.rate), default=None)
    return {
        "row": row,
        "record": record,
        "counts": counts,
        "live": record.state in (READING, SENDING),
        "sends": is_alive,
        "reloads": (record.state in (READING, SENDING) and row.state.word != words.DEAD) or waits,
        "progress": words.progress(record),
        "eta": words.eta_s(record, counts) if record.state == SENDING and is_alive else None,
        "granted": sender.granted if sender is not None and is_alive else None,
        "happened": words.what_happened(record, counts, now, since),
        "steps": steps,
        "normal": words.normal_here(record, runs),
        "runs": [row_of(one, now, {}, known[one.id]) for one in runs],
        "volumes": charts.bars([_volume(one, record) for one in reversed(runs)]),
        "speeds": charts.bars([_speed(one) for one in reversed(runs)], line=float(limit) if limit else None),
        "speed_limit": limit,
        "tries": [_try(one, now, is_alive=is_alive) for one in reversed(tried)],
        "pace": charts.pace([tries.points_of(one) for one in tried], limit=record.rate),
        "reasons": [(one, wrong) for one, (wrong, _) in zip(reasons, told, strict=False)],
        "more_reasons": max(len(reasons) - _REASONS_SHOWN, 0),
        "skips": [(why.replace("_", " "), rows) for why, rows in sorted(counts.skips.items(), key=lambda one: -one[1])],
        "withheld": sorted(counts.withheld.items(), key=lambda one: -one[1]),
        "filters": filters,
        "statuses": STATUSES,
        "rows": rows[:ROWS_A_PAGE],
        "may_edit_key": any("API key" in step for step in steps),
        "next_after": rows[ROWS_A_PAGE - 1].position if len(rows) > ROWS_A_PAGE else None,
        "mask": MASK,
        "tick": TICK,
        "invalid": monitoring.INVALID,
        "reveals": reveals,
        "revealed": revealed,
        "letters": letters,
        "redelivers": redelivers,
        "settles": settles and since.unknown is not None,
        "unknown_left": since.unknown.rows if since.unknown else 0,
        "command": redelivery_command(record, filters, letters) if since.fix is None else None,
        "fix": since.fix,
        "conn_id": words.conn_id_of(record),
        "task_url": task_url(record),
        "now": now,
        "started_ago": formats.duration(formats.seconds_since(record.started_at, now)),
    }


def _rows(database: Database, record: Record, filters: RowFilter) -> list[OutcomeRow]:
    """Return a page of rows, and one more if there are more."""
    if filters.status == LEFT:
        return [*islice(left_of(database, record, after=filters.after), ROWS_A_PAGE + 1)]
    rows = monitoring.outcome_page(
        database,
        record.id,
        status=filters.status or None,
        reason=filters.reason or None,
        after=filters.after,
        limit=ROWS_A_PAGE + 1,
    )
    return monitoring.with_what_was_read(database, rows)


@dataclass(frozen=True)
class TryLine:
    """A try in the list.

    :param took: its duration; None while it is running.
    :param ended: how it ended, in words.
    """

    row: TryRow
    took: str | None
    ended: str
    tone: str


_ENDED: Final = {
    FINISHED: ("finished", words.GOOD),
    FAILED: ("failed", words.BAD),
    STOPPED: ("stopped", words.BAD),
    PLANNED: ("planned", words.NONE),
    LOST: ("killed, or lost its worker", words.BAD),
}


def _try(one: TryRow, now: datetime, *, is_alive: bool) -> TryLine:
    if one.state == RUNNING:
        ended = ("runs", words.BUSY) if is_alive else ("no sign of life", words.BAD)
        return TryLine(one, formats.duration(formats.seconds_since(one.began_at, now)) if is_alive else None, *ended)
    seconds = formats.seconds_since(one.began_at, from_ledger_time(one.ended_at or one.began_at))
    told, tone = _ENDED.get(one.state, (one.state, words.NONE))
    return TryLine(one, formats.duration(seconds), told, tone)


def _volume(one: Record, this: Record) -> tuple[str, str, Sequence[tuple[str, float]]]:
    told = f"Delivery {one.id}, {one.started_at[:10]}: {one.acknowledged:,} acknowledged, {one.rejected:,} rejected, "
    left = words.left_of(one)
    parts = (("good", one.acknowledged), ("none", one.skipped), ("left", left), ("warn", one.unknown))
    return (
        "this one" if one.id == this.id else one.started_at[5:10],
        f"{told}{one.unknown:,} unknown, {one.skipped:,} skipped, {left:,} left",
        (*parts, ("bad", one.rejected)),
    )


def _speed(one: Record) -> tuple[str, str, Sequence[tuple[str, float]]]:
    speed = words.per_second(Counts.of(one)) or 0.0
    return one.started_at[5:10], f"Delivery {one.id}: {speed:.0f} requests/s", (("busy", speed),)


def task_url(record: Record) -> str | None:
    """Return the path of the task instance's page in Airflow, below its base URL."""
    if record.dag_id is None or record.run_id is None or record.task_id is None:
        return None
    names = (quote(name, safe="") for name in (record.dag_id, record.run_id, record.task_id))
    mapped = f"/mapped/{record.map_index}" if record.map_index >= 0 else ""
    return "/dags/{}/runs/{}/tasks/{}".format(*names) + mapped


def redelivery_command(record: Record, filters: RowFilter, letters: monitoring.Letters) -> str | None:
    """Return the command that redelivers the listed rows; None if that is useless: invalid rows stay invalid."""
    if not letters.refused and not letters.unknown:
        return None
    is_unknown = filters.status == Outcome.UNKNOWN.value or not letters.refused
    told = ["--status", Outcome.UNKNOWN.value] if is_unknown else []
    if filters.reason:
        told += ["--reason", filters.reason]
    return formats.redeliver_command(record.id, words.conn_id_of(record), *told)


def ticked_rows(form: Mapping[str, str]) -> list[int]:
    """Return the positions of the selected rows; empty if none was selected, which means all."""
    names = (name.removeprefix(TICK) for name in form if name.startswith(TICK))
    return sorted(int(name) for name in names if name.isdecimal() and len(name) < 12)


def csv_lines(database: Database, record: Record, filters: RowFilter, *, reveal: bool) -> Iterator[str]:
    """Return the listed rows as CSV, in pieces of a few thousand characters.

    :param reveal: with personal data; otherwise it is masked.
    """
    if filters.status == LEFT:
        rows = left_of(database, record)
    else:
        statuses = [filters.status] if filters.status else [Outcome.REJECTED.value, Outcome.UNKNOWN.value]
        rows = outcomes_of(database, record.id, statuses=statuses, reason=filters.reason or None)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(OutcomeRow._fields)
    filled = (row for some in batches(rows, _FILLED_AT_ONCE) for row in monitoring.with_what_was_read(database, some))
    for row in filled:
        masked: dict[str, Any] = {name: MASK for name in _PERSONAL if getattr(row, name) is not None}
        told = row if reveal else row._replace(**masked)
        writer.writerow([_cell(value) for value in told])
        if text.tell() > 16_000:
            yield text.getvalue()
            text.seek(0)
            text.truncate()
    yield text.getvalue()


def _cell(value: Any) -> str:
    """Write a value so that no spreadsheet takes it for a formula; a phone in E.164 is safe as a number."""
    text = "" if value is None else str(value)
    is_number = text[:1] in "+-" and text[1:].isdecimal()
    return f"'{text}" if text.startswith(_NO_FORMULA) and not is_number else text


def of_task(database: Database, given: Mapping[str, str]) -> list[Row]:
    """List the deliveries of the task instance in a URL."""
    now: datetime = database.now()
    map_index = given.get("map_index", "")
    records = monitoring.of_task(
        database,
        dag_id=given.get("dag_id", ""),
        run_id=given.get("run_id", ""),
        task_id=given.get("task_id", ""),
        # Airflow leaves its placeholder unchanged if a task is not mapped.
        map_index=int(map_index) if map_index.isdecimal() and len(map_index) < 9 else -1,
    )
    known = known_since(database, records)
    return [row_of(record, now, {}, known[record.id]) for record in records]
