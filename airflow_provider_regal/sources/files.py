"""Read many files, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import IO

from airflow_provider_regal.sources import FileFormat
from airflow_provider_regal.sources.csv_rows import read_csv
from airflow_provider_regal.sources.json_lines import read_json_lines
from airflow_provider_regal.sources.marks import Marked
from airflow_provider_regal.sources.parquet import load_pyarrow, read_parquet
from airflow_provider_regal.sources.segment import read_segment


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to read.

    :param name: its name in messages.
    :param open: opens it for reading bytes.
    """

    name: str
    open: Callable[[], IO[bytes]]


def read_files(
    files: Iterable[SourceFile],
    file_format: FileFormat,
    *,
    delimiter: str = ",",
    encoding: str = "utf-8",
    include: Collection[str] = (),
) -> Iterator[Marked]:
    """Return the rows of all files, in order.

    :param delimiter: between the fields of CSV.
    :param encoding: of the text of CSV.
    :param include: ``page``, ``screen``: which of these Segment messages are sent.
    :raises OSError: a file can't be read completely.
    :raises BadSourceError: a file is not in its format.
    """
    if file_format == "parquet":
        load_pyarrow()  # raises even if there is no file
    for file in files:
        with closing(file.open()) as stream:
            if file_format == "jsonl":
                yield from read_json_lines(stream, file.name)
            elif file_format == "csv":
                yield from read_csv(stream, file.name, delimiter=delimiter, encoding=encoding)
            elif file_format == "parquet":
                yield from read_parquet(stream, file.name)
            else:
                yield from read_segment(stream, file.name, include)
