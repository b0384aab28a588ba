"""Read the rows of files, given by paths and globs, on this machine or on object storage."""

from __future__ import annotations

import codecs
import logging
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal._compat import ObjectStoragePath
from airflow_provider_regal.sources import BadSourceError, SourceError
from airflow_provider_regal.sources.marks import SKIP_MARK

if TYPE_CHECKING:
    from airflow_provider_regal.sources import FileFormat
    from airflow_provider_regal.sources.files import SourceFile
    from airflow_provider_regal.sources.marks import Marked

_log = logging.getLogger(__name__)
_MAGIC: Final = re.compile(r"[*?\[]")


class MissingFileError(SourceError, FileNotFoundError):
    """There is no such file."""


class UnreadableFileError(SourceError, OSError):
    """The storage does not let us read a file."""


def paths_of(path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return one path, or many, as a list of strings; an ObjectStoragePath includes its connection."""
    many = isinstance(path, Sequence) and not isinstance(path, str)
    paths: Any = path if many else [path]
    return [str(one) for one in paths]


def open_files(
    path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
    file_format: FileFormat,
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
    include: Iterable[str] = (),
) -> Iterator[Marked]:
    """Find files and return their rows.

    :raises SourceError: a file can't be found or read.
    """
    from airflow_provider_regal.sources.files import read_files

    try:
        files = find_files(paths_of(path))
        _log.info("Reading %s", "1 file" if len(files) == 1 else f"{len(files):,} files")
        rows = read_files(files, file_format, delimiter=delimiter, encoding=encoding, include=frozenset(include))
        yield from _saying_what_is_skipped(rows)
    except SourceError:
        raise
    except OSError as error:  # of the storage: it names paths and permissions, and no content
        raise UnreadableFileError(
            f"The files can't be read ({type(error).__name__}: {error}). Nothing was sent."
        ) from None


def check_csv(file_format: str | None, delimiter: str, encoding: str) -> None:
    """Check the options for CSV.

    :raises ValueError: an option is invalid, or the files are not CSV.
    """
    if not isinstance(delimiter, str) or len(delimiter) != 1 or delimiter in '"\r\n':
        raise ValueError("delimiter must be one character, and no quote")
    try:
        name = codecs.lookup(encoding).name
        codecs.getincrementaldecoder(name)()
        b"x".decode(name, "ignore")  # excludes bytes-to-bytes encodings, such as base64
    except (LookupError, TypeError, ValueError):
        raise ValueError(
            f"encoding must be the name of one that Python knows, such as 'cp1252', not {encoding!r}"
        ) from None
    for option, is_usual in (("delimiter", delimiter == ","), ("encoding", name == "utf-8")):
        if not is_usual and file_format != "csv":
            raise ValueError(f"{option} is for format='csv'")


def _saying_what_is_skipped(rows: Iterable[Marked]) -> Iterator[Marked]:
    """Yield the rows; at the end, log how many are skipped, and why."""
    skipped = Counter[str]()
    for row in rows:
        if (reason := row.get(SKIP_MARK)) is not None:
            skipped[reason] += 1
        yield row
    if skipped:
        lines = "".join(f"\n{count:>12,} x {reason}" for reason, count in skipped.most_common())
        _log.info("Of the messages, %s are not to be sent:%s", f"{skipped.total():,}", lines)


def find_files(paths: Iterable[str]) -> list[SourceFile]:
    """Find the files that paths and globs name: sorted by name within each, each file once.

    :param paths: absolute paths or URIs; ``s3://conn_id@bucket/...`` names the connection.
    :raises MissingFileError: there is no file at a path without wildcards. A glob may match none.
    :raises BadSourceError: a path is relative.
    """
    from airflow_provider_regal.sources.files import SourceFile

    found: dict[tuple[Any, str], str] = {}  # file system and key -> name
    for path in paths:
        if "://" not in path and not path.startswith("/"):
            raise BadSourceError(f"path must be absolute, or a URI such as s3://bucket/events/*.jsonl: {path!r}")
        where = ObjectStoragePath(path)
        folder = len(_MAGIC.split(where.path, maxsplit=1)[0].rpartition("/")[0]) + 1
        for key in _keys(where, path):
            found.setdefault((where.fs, key), key[folder:])
    short = len(set(found.values())) == len(found)
    return [SourceFile(name if short else key, partial(fs.open, key, "rb")) for (fs, key), name in found.items()]


def _keys(where: ObjectStoragePath, path: str) -> Iterator[str]:
    fs, key = where.fs, where.path
    if fs.isfile(key):
        yield key  # even if the name contains a "["
    elif _MAGIC.search(key):
        for name, info in sorted(fs.glob(key, detail=True).items()):
            if info["type"] == "other":  # reading a pipe would wait forever
                _log.warning("%s is skipped: it is not a regular file, but a pipe, socket or device", name)
            elif info["type"] != "directory":
                yield name
    elif fs.isdir(key):
        raise MissingFileError(f"{path} is a folder: name its files, as {path.rstrip('/')}/*.jsonl")
    else:
        raise MissingFileError(f"There is no file {path}. A glob that finds none is an empty source instead.")
