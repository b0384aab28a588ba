"""The bucket of all run folders, where ``[regal] storage_path`` is on object storage."""

from __future__ import annotations

import logging
import re
from typing import Final
from uuid import uuid4

from airflow_provider_regal._compat import ObjectStoragePath, conf
from airflow_provider_regal.errors import FixConnectionError
from airflow_provider_regal.journal.bucket import PATIENCE_S, Bucket, StorageError

_log = logging.getLogger(__name__)
_URI: Final = re.compile(r"(\w+)://(.*)", re.DOTALL)
_SCHEMES: Final = ("s3",)  # what the tests prove: a storage needs an atomic create
_STAMP: Final = ".tidied"
_DAY_S: Final = 86_400.0


def is_on_object_storage(storage_path: str) -> bool:
    """Say whether run folders are not on a file system."""
    found = _URI.match(storage_path)
    return found is not None and found.group(1) != "file"


def open_bucket(*, patience_s: float = PATIENCE_S) -> Bucket | None:
    """Open the bucket of ``[regal] storage_path``; None if that is a folder.

    :param patience_s: seconds for which a request is tried again.
    :raises FixConnectionError: it is on a storage we do not know, or what it needs is not installed.
    """
    given = conf.get("regal", "storage_path", fallback="")
    if not is_on_object_storage(given):
        return None
    return bucket_at(given, what="[regal] storage_path", patience_s=patience_s)


def bucket_at(uri: str, *, what: str = "path", patience_s: float = PATIENCE_S) -> Bucket:
    """Open a folder on object storage.

    :param what: the setting that names it, for the message.
    :param patience_s: seconds for which a request is tried again.
    :raises FixConnectionError: it is on a storage we do not know, or what it needs is not installed.
    """
    scheme = uri.partition(":")[0]
    if scheme not in _SCHEMES:
        raise FixConnectionError(
            f"{what} is {scheme}://..., but must be s3://conn_id@bucket/prefix, or a folder every worker sees, such as "
            "/mnt/regal."
        )
    path = ObjectStoragePath(uri)
    try:
        return Bucket(path.fs, path.path, str(path), patience_s=patience_s)
    except (ImportError, ValueError) as error:
        raise FixConnectionError(
            f"{what} is {scheme}://..., which this environment cannot open ({type(error).__name__}). Install "
            "airflow-provider-regal[s3] on every worker."
        ) from error


def fault_of(bucket: Bucket) -> str | None:
    """Try out what a delivery needs of a bucket; nothing is left there.

    :returns: what is wrong, and what to do; None if nothing is.
    """
    key, content = f".checked-{uuid4().hex}", b"written by a check\n"
    try:
        if not bucket.create(key, content) or bucket.get(key) != content:
            return f"{bucket} does not give back what was written. Use S3"
        exclusive = bucket.is_exclusive(key, content)
        bucket.remove([key])
    except StorageError as error:
        return f"{error} Mend the connection in it, or what it may do"
    return None if exclusive else f"{bucket} ignores If-None-Match: two tries could send at once. Use S3"


def tidy_bucket(bucket: Bucket, *, days: int, now: float) -> int:
    """Remove run folders nothing was written to for so many days, at most once a day.

    :param now: seconds since 1970.
    :returns: how many were removed.
    """
    from airflow_provider_regal.journal.bucket_retention import remove_old_folders

    try:
        stamp = bucket.list().get(_STAMP)
        if stamp is not None and now - stamp.modified < _DAY_S:
            return 0
        bucket.put(_STAMP, b"run folders older than retention_days were removed\n")
        return remove_old_folders(bucket, older_than_s=days * _DAY_S, now=now)
    except StorageError as error:  # a later task does it
        _log.warning("Old run folders were not removed: %s", error)
        return 0
