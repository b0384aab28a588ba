"""Read rows from files, one at a time: JSON Lines, CSV, Parquet and Segment archives, plain or gzip.

::

    SourceFile ─▶ streams: unzip, lines ─▶ json_lines, csv_rows ─▶ rows that know their file and line
                                                └▶ segment: messages ─▶ events
                └────────────────────────────▶ parquet

A line that is not a row becomes a rejected row with its file and line: it neither stops the others nor disappears. A
file that can't be read completely stops the delivery before the first row is sent.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

FileFormat = Literal["jsonl", "csv", "parquet", "segment"]
FORMATS: Final[tuple[FileFormat, ...]] = get_args(FileFormat)


class SourceError(Exception):
    """A source can't be read. We wrote the text: it holds no value of a row, so it is logged as it is."""


class BadSourceError(SourceError, ValueError):
    """The source is not what it should be, such as a file of another format. A retry does not help."""
