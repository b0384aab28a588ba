"""Removing run folders from object storage that nothing was written to for long."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import Final

from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.bucket_claims import CLAIMS
from airflow_provider_regal.journal.mirror import COPIED, FILES
from airflow_provider_regal.journal.segment_log import LOG

# What lies in a run folder; a folder in it holds other deliveries of the same task.
_INSIDE: Final = re.compile(
    rf"(?P<folder>.+)/(?:{LOG}/\d+|(?:{FILES}|{CLAIMS})/[^/]+|{'|'.join(re.escape(name) for name in COPIED)})",
    re.DOTALL,
)


def remove_old_folders(bucket: Bucket, *, older_than_s: float, now: float) -> int:
    """Remove the run folders of a bucket to which nothing was written for so many seconds.

    :param now: seconds since 1970.
    :returns: how many were removed.
    """
    folders: dict[str, list[str]] = defaultdict(list)
    newest: dict[str, float] = defaultdict(float)
    for key, stored in bucket.list(deep=True).items():
        if found := _INSIDE.fullmatch(key):
            folder = found["folder"]
            folders[folder].append(key)
            newest[folder] = max(newest[folder], stored.modified)
    old = [folder for folder, at in newest.items() if now - at > older_than_s]
    bucket.remove(key for folder in old for key in folders[folder])
    return len(old)
