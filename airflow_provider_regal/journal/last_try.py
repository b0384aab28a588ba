"""How the last try in a run folder ended, without taking the folder."""

from __future__ import annotations

from pathlib import Path

from airflow_provider_regal.client.clock import Clock
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.log_notes import NotingLog
from airflow_provider_regal.journal.marker import MARKER, Marker, marker_of
from airflow_provider_regal.journal.parts import content_of
from airflow_provider_regal.journal.segment import files_of


def last_try(folder: Path | Bucket) -> Marker | None:
    """Read the marker of a run folder; None if there is none.

    :raises StorageError: it is on object storage, which cannot be read.
    :raises DamagedError: nobody can tell.
    """
    if isinstance(folder, Path):
        file = folder / MARKER
        return marker_of(file.read_bytes()) if file.exists() else None
    log = NotingLog(folder, Clock())
    parts = files_of(log.look()).get(MARKER, [])
    if not parts:  # whoever took it was killed before it could write anything
        return Marker("", 0, log.last_rank.number) if log.last_rank.number else None
    return marker_of(b"".join(content_of(folder, part) for part in parts))
