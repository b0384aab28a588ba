"""How a delivery ends: what the run folder knows is counted, the report kept, and it is said whether it succeeded."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Final

from airflow_provider_regal.delivery.books import lost_to_outage
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import ReadDeadLettersError, RegalError
from airflow_provider_regal.journal.dead_letters import read_dead_letters
from airflow_provider_regal.journal.progress import Outcome, Skip
from airflow_provider_regal.journal.report import DeliveryReport
from airflow_provider_regal.journal.run_folder import RunFolder

_log = logging.getLogger(__name__)
_REASONS_IN_MESSAGE: Final = 3
_OURS: Final = frozenset(skip.value for skip in Skip)


def count(report: DeliveryReport, folder: RunFolder) -> None:
    """Count what the folder knows, over all tries."""
    progress = folder.progress
    report.read = folder.source_rows
    report.acknowledged = progress.count(Outcome.ACKNOWLEDGED)
    report.rejected = progress.count(Outcome.REJECTED)
    report.unknown = progress.count(Outcome.UNKNOWN)
    report.skipped = progress.count(Outcome.SKIPPED)
    report.skips.update({why.value: number for why in Skip if (number := progress.count(why))})
    _, noted = folder.notes()
    of_source = {why: number for why, number in noted.items() if why not in _OURS}
    if sum(of_source.values()) == report.skips.get(Skip.LEFT_OUT.value):  # in the source's own words
        del report.skips[Skip.LEFT_OUT.value]
        report.skips.update(of_source)


def settled(folder: RunFolder) -> int:
    """Count the rows with an outcome."""
    return sum(folder.progress.count(outcome) for outcome in Outcome)


def close_books(report: DeliveryReport, folder: RunFolder, seconds: float) -> None:
    """Count everything and keep the report.

    :param seconds: how long this try took.
    """
    count(report, folder)
    report.seconds = seconds
    folder.close_files()
    for letter in read_dead_letters(folder.path / "dead_letters.jsonl"):
        report.reasons[letter.cause] += 1
        report.unknown_of_outage += lost_to_outage(letter)
        report.known += letter.known
    folder.write_report(report.as_dict())
    _log.info("%s\n%s", report.status.capitalize().replace("_", " "), report.as_table())


def judge(report: DeliveryReport, folder: RunFolder, settings: DeliverySettings) -> None:
    """Say whether the delivery succeeded, now that every row is settled.

    :raises ReadDeadLettersError: more rows were rejected or are unknown than allowed.
    """
    too_many = [
        f"{number:,} {word}, more than {name}={limit:,}"
        for word, number, name, limit in (
            ("rejected", report.rejected - report.known, "max_rejected", settings.rejected_allowed(report.read)),
            (
                "unknown",
                report.unknown - report.unknown_of_outage,
                "max_unknown",
                settings.unknown_allowed(report.read),
            ),
        )
        if number > limit
    ]
    marker = folder.marker
    if marker is None:
        raise RegalError(f"{folder.name}: the marker is gone")
    outcome = "failed" if too_many else "finished"
    folder.marker = replace(marker, outcome=outcome)
    if too_many:
        raise ReadDeadLettersError(_why_failed(report, folder, too_many))
    folder.drop_rows()


def _why_failed(report: DeliveryReport, folder: RunFolder, too_many: list[str]) -> str:
    commonest = report.reasons.most_common(_REASONS_IN_MESSAGE)
    reasons = "".join(f"\n  {number:>6,} x {reason}" for reason, number in commonest)
    return (
        f"Of {report.read:,} rows {' and '.join(too_many)}. The commonest reasons of all dead letters:{reasons}\n"
        f"All are in {folder.name}/dead_letters.jsonl. Mend the data or the mapping and clear the task: "
        "rejected rows are tried again, none is sent twice. Or raise the threshold."
    )


def progress_line(done: int, total: int, speed: float, rejected: int) -> str:
    """Write the line that says how it goes: ``12,000/50,000 24 % · 298/s · 3 rejected · ETA 2m07s``."""
    share = f"{100 * done // total} %" if total else "-"
    left_s = int((total - done) / speed) if speed else None
    eta = "-" if left_s is None else f"{left_s // 60}m{left_s % 60:02d}s"
    return f"{done:,}/{total:,} {share} · {speed:.0f}/s · {rejected:,} rejected · ETA {eta}"
