"""Finding run folders by paths and globs, below ``[regal] storage_path`` or anywhere else."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from airflow_provider_regal.hooks._bucket import bucket_at, is_on_object_storage, open_bucket
from airflow_provider_regal.hooks._place import storage
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.redelivery import find_in_bucket, find_run_folders


def find_letters(paths: Iterable[str]) -> list[Path | Bucket]:
    """Find the run folders that paths and globs name, each once.

    :raises FileNotFoundError: a path without wildcards names nothing.
    :raises StorageError: a bucket cannot be read.
    """
    found: dict[str, Path | Bucket] = {}
    for path in paths:
        root = _root_of(path)
        folders = find_run_folders([path], root) if isinstance(root, Path) else find_in_bucket(_inside(path), root)
        found |= {str(folder) if isinstance(folder, Path) else folder.path: folder for folder in folders}
    return list(found.values())


def full_name(path: str) -> str:
    """Name what a path means, whatever ``[regal] storage_path`` is."""
    root = _root_of(path)
    return str(root / path) if isinstance(root, Path) else "/".join((str(root), _inside(path)))


def _root_of(path: str) -> Path | Bucket:
    """Say where a path begins."""
    if is_on_object_storage(path):
        scheme, _, rest = path.partition("://")
        return bucket_at(f"{scheme}://{rest.partition('/')[0]}")
    return Path("/") if Path(path).is_absolute() else open_bucket() or storage()


def _inside(path: str) -> str:
    return path.partition("://")[2].partition("/")[2] if is_on_object_storage(path) else path
