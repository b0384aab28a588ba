"""CSV: the first line names the columns; an empty field means NULL."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import IO, Final

from airflow_provider_regal.events.privacy import shown_key
from airflow_provider_regal.events.python_values import trimmed
from airflow_provider_regal.sources import BadSourceError
from airflow_provider_regal.sources.marks import Marked
from airflow_provider_regal.sources.rows import bad_row, row_of
from airflow_provider_regal.sources.streams import TOO_LONG, UTF_8, Lines, is_too_long

_OTHER_DELIMITERS: Final = ";\t|,"


class _TooLongError(Exception):
    pass


class _Texts:
    """The lines as text for the CSV reader; continues after a line that is too long."""

    def __init__(self, lines: Lines) -> None:
        self.lines = lines

    def __iter__(self) -> _Texts:
        return self

    def __next__(self) -> str:
        line = self.lines.next()
        if line is None:
            raise StopIteration
        if is_too_long(line):
            raise _TooLongError
        return line.decode(errors="surrogateescape")


def read_csv(stream: IO[bytes], name: str, *, delimiter: str = ",", encoding: str = UTF_8) -> Iterator[Marked]:
    """Return the rows of a CSV file with their places; a malformed row keeps its fields, to be fixed.

    :param stream: the file, plain or gzip.
    :param name: of the file, for messages.
    :param encoding: of its text.
    :raises BadSourceError: the header is invalid.
    """
    texts = _Texts(Lines(stream, name, encoding))
    not_text = f"is not valid {encoding.upper()}; name the file's encoding, such as encoding='cp1252'"
    reader = csv.reader(texts, delimiter=delimiter, strict=True)
    columns = _header(reader, name, delimiter, not_text)
    while True:
        start = texts.lines.number + 1
        try:
            fields = next(reader, None)
            if fields is None:
                return
            problem = _problem(fields, columns, not_text)
        except csv.Error as error:
            fields, problem = [], f"is not CSV: {error}"
        except _TooLongError:
            fields, problem = [], TOO_LONG
        if not fields and problem is None:  # a blank line
            continue
        end = texts.lines.number
        origin = f"{name} line {start}" if end == start else f"{name} lines {start} to {end}"
        if problem is None:
            yield row_of({c: field or None for c, field in zip(columns, fields, strict=True)}, origin)
        else:
            yield bad_row("the line", problem, origin, {"fields": fields} if fields else None)


def _problem(fields: list[str], columns: list[str], not_text: str) -> str | None:
    if not fields:
        return None
    if len(fields) != len(columns):
        told = "1 field" if len(fields) == 1 else f"{len(fields)} fields"
        quote = "; put quotes around a field that contains the delimiter" if len(fields) > len(columns) else ""
        return f"has {told}, and the header has {len(columns)}{quote}"
    if fields[0] and [trimmed(field) for field in fields] == columns:
        return "is the header again, as where files were put together; take it out"
    return None if all(map(_is_text, fields)) else not_text


def _is_text(field: str) -> bool:
    return field.isascii() or not any("\udc80" <= character <= "\udcff" for character in field)


def _header(reader: Iterator[list[str]], name: str, delimiter: str, not_text: str) -> list[str]:
    """Read the names of the columns, without surrounding spaces.

    :raises BadSourceError: the header is invalid, and why.
    """
    try:
        fields = next((fields for fields in reader if fields), [])
    except (csv.Error, _TooLongError):
        raise BadSourceError(f"{name}: the first line is not the header of a CSV file.") from None
    columns = [trimmed(field) for field in fields]
    if not all(map(_is_text, columns)):
        raise BadSourceError(f"{name}: the header {not_text}.")
    if twice := sorted({column for column in columns if columns.count(column) > 1 and column}):
        named = ", ".join(repr(shown_key(column)) for column in twice)
        raise BadSourceError(f"{name}: the header names {named} twice; name each column once.")
    if "" in columns:
        raise BadSourceError(f"{name}: column {columns.index('') + 1} has no name; name it in the header.")
    if len(columns) == 1 and (other := next((d for d in _OTHER_DELIMITERS if d in columns[0]), None)):
        raise BadSourceError(f"{name}: the header is one column; is the delimiter {other!r} rather than {delimiter!r}?")
    return columns
