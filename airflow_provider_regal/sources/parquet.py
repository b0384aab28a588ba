"""Parquet: typed rows, read in batches. Needs pyarrow (the extra ``parquet``)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import IO, Any, Final

from airflow_provider_regal.events.privacy import shown_key
from airflow_provider_regal.events.python_values import shortest
from airflow_provider_regal.sources import BadSourceError, SourceError
from airflow_provider_regal.sources.marks import Marked
from airflow_provider_regal.sources.rows import bad_row, row_of
from airflow_provider_regal.sources.streams import DamagedFileError

_ROWS_A_BATCH: Final = 1_000
_INDEX: Final = re.compile(r"__index_level_\d+__")  # pandas' row numbers, if the index had no name


class MissingExtraError(SourceError, ImportError):
    """An optional dependency is not installed."""


def load_pyarrow() -> Any:
    """Import pyarrow.

    :raises MissingExtraError: it is not installed.
    """
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError as error:
        raise MissingExtraError(
            "Parquet files are read by pyarrow: pip install 'airflow-provider-regal[parquet]'"
        ) from error


def read_parquet(stream: IO[bytes], name: str) -> Iterator[Marked]:
    """Return the rows of a Parquet file with their numbers, from 1.

    :param stream: the file; must be seekable.
    :param name: of the file, for messages.
    :raises BadSourceError: two columns have one name.
    :raises DamagedFileError: it is not a Parquet file, or is incomplete.
    """
    arrow = load_pyarrow()
    number = 0
    try:
        # pre_buffer would keep every part of the file that was read in memory.
        file = arrow.parquet.ParquetFile(stream, pre_buffer=False)
        names = file.schema_arrow.names
        if twice := sorted({column for column in names if names.count(column) > 1}):
            named = ", ".join(repr(shown_key(column)) for column in twice)
            raise BadSourceError(f"{name} has two columns named {named}.")
        for batch in file.iter_batches(batch_size=_ROWS_A_BATCH):
            for row in _rows(arrow, batch):
                number += 1
                origin = f"{name} row {number}"
                yield bad_row(*row, origin) if isinstance(row, tuple) else row_of(row, origin)
    except (arrow.ArrowException, OSError) as error:
        raise DamagedFileError(
            f"{name} cannot be read after row {number} ({type(error).__name__}): it is not a Parquet file, or it is "
            "damaged; nothing was sent. Write the file again, and run the task again."
        ) from error


def _rows(arrow: Any, batch: Any) -> Iterator[dict[str, Any] | tuple[str, str]]:
    """Return each row, or the column whose value has no Python equivalent, and why."""
    places = [place for place, name in enumerate(batch.schema.names) if not _INDEX.fullmatch(name)]
    columns = [_column(arrow, batch, place) for place in places]
    names = [batch.schema.names[place] for place in places]
    for values in zip(*columns, strict=True) if columns else ():
        bad = next(((n, str(value)) for n, value in zip(names, values, strict=True) if isinstance(value, _Bad)), None)
        yield bad or dict(zip(names, values, strict=True))


class _Bad(str):
    __slots__ = ()


def _column(arrow: Any, batch: Any, position: int) -> list[Any]:
    column = batch.column(position)
    kind = _in_microseconds(arrow, column.type)
    if kind != column.type:
        column = column.cast(kind, safe=False)  # nanoseconds are dropped, as all fractions are when written
    values: list[Any]
    try:
        values = column.to_pylist()
    except (ValueError, OverflowError):
        values = [_value(item) for item in column]
    if (convert := _converter(arrow, column.type)) is not None:
        values = [value if value is None or isinstance(value, _Bad) else convert(value) for value in values]
    return values


def _value(item: Any) -> Any:
    try:
        return item.as_py()
    except UnicodeDecodeError:
        return _Bad("is not valid UTF-8")
    except (ValueError, OverflowError):
        return _Bad("lies outside the years 1 to 9999")


def _converter(arrow: Any, kind: Any) -> Callable[[Any], Any] | None:
    """Return a converter for values of this type, at every depth: maps become objects, 32-bit floats become short."""
    types = arrow.types
    if types.is_float32(kind) or types.is_float16(kind):
        return shortest
    if types.is_struct(kind):
        members = [kind.field(n) for n in range(kind.num_fields)]
        inner = {member.name: made for member in members if (made := _converter(arrow, member.type))}
        return (lambda value: _with(value, inner)) if inner else None
    if types.is_map(kind):
        item = _converter(arrow, kind.item_type)
        return lambda pairs: _object(pairs if item is None else [(key, _each(item, value)) for key, value in pairs])
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        item = _converter(arrow, kind.value_type)
        return None if item is None else lambda values: [_each(item, value) for value in values]
    return None


def _each(convert: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else convert(value)


def _with(value: dict[str, Any], inner: dict[str, Callable[[Any], Any]]) -> dict[str, Any]:
    return {name: _each(inner[name], member) if name in inner else member for name, member in value.items()}


def _object(pairs: list[tuple[Any, Any]]) -> Any:
    """Convert a map to an object; a map that can't be one stays a list of pairs."""
    if not all(isinstance(key, str) for key, _ in pairs):
        return pairs
    made = dict(pairs)
    return made if len(made) == len(pairs) else pairs


def _in_microseconds(arrow: Any, kind: Any) -> Any:
    """Return the type with times in microseconds, as in Python, at every depth."""
    types = arrow.types
    if types.is_timestamp(kind) and kind.unit == "ns":
        return arrow.timestamp("us", kind.tz)
    if types.is_time64(kind) and kind.unit == "ns":
        return arrow.time64("us")
    if types.is_duration(kind) and kind.unit == "ns":
        return arrow.duration("us")
    if types.is_struct(kind):
        fields = [kind.field(n) for n in range(kind.num_fields)]
        return arrow.struct([field.with_type(_in_microseconds(arrow, field.type)) for field in fields])
    if types.is_list(kind):
        return arrow.list_(kind.value_field.with_type(_in_microseconds(arrow, kind.value_type)))
    if types.is_large_list(kind):
        return arrow.large_list(kind.value_field.with_type(_in_microseconds(arrow, kind.value_type)))
    if types.is_map(kind):
        return arrow.map_(kind.key_field, kind.item_field.with_type(_in_microseconds(arrow, kind.item_type)))
    return kind
