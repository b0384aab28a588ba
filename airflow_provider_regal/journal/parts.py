"""Bringing a file of a run folder back from object storage, where it is in parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.segment import DamagedError, Part


def bring(bucket: Bucket, parts: Sequence[Part], file: Path) -> None:
    """Put the parts of a file together on this machine, readable by its owner only.

    :raises DamagedError: it is not as it was written.
    """
    only = parts[0].key if len(parts) == 1 else None
    if only is not None:
        if not bucket.get_file(only, file):
            raise DamagedError(f"{file.name} is gone")
    else:
        with file.open("wb") as out:
            for part in parts:
                out.write(content_of(bucket, part))
    file.chmod(0o600)
    if file.stat().st_size != sum(part.size for part in parts):
        raise DamagedError(f"{file.name} is not as it was written")


def content_of(bucket: Bucket, part: Part) -> bytes:
    """Give what a part holds.

    :raises DamagedError: it is gone.
    """
    if part.key is None:
        return part.data
    content = bucket.get(part.key)
    if content is None:
        raise DamagedError(f"{part.name} is gone")
    return content
