"""JSON Lines: one object per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import IO, Any, Final, NoReturn

from airflow_provider_regal.events.privacy import shown_key
from airflow_provider_regal.sources.marks import Marked
from airflow_provider_regal.sources.rows import bad_row, row_of
from airflow_provider_regal.sources.streams import TOO_LONG, Lines, is_too_long

_THE_LINE: Final = "the line"


class BadLineError(ValueError):
    """A line is not an object; the message contains none of its values."""


def read_json_lines(stream: IO[bytes], name: str) -> Iterator[Marked]:
    """Return the row of each line with its place; a malformed line keeps its text, to be fixed.

    :param stream: the file, plain or gzip.
    :param name: of the file, for messages.
    """
    for origin, line, found in objects(stream, name):
        if isinstance(found, BadLineError):
            kept = {} if is_too_long(line) else {"line": line.decode(errors="replace").rstrip("\r\n")}
            yield bad_row(_THE_LINE, str(found), origin, kept)
        else:
            yield row_of(found, origin)


def objects(stream: IO[bytes], name: str) -> Iterator[tuple[str, bytes, dict[str, Any] | BadLineError]]:
    """Return each line that is not blank: its place, its bytes, and its object or the error."""
    for number, line in Lines(stream, name):
        if line.strip():
            try:
                found: dict[str, Any] | BadLineError = _object_of(line)
            except BadLineError as error:
                found = error
            yield f"{name} line {number}", line, found


def _object_of(line: bytes) -> dict[str, Any]:
    if is_too_long(line):
        raise BadLineError(TOO_LONG)
    try:
        found = _DECODER.decode(line.decode().rstrip("\r\n"))
    except UnicodeDecodeError:
        raise BadLineError("is not valid UTF-8") from None
    except json.JSONDecodeError as error:
        # This message contains no text of the line. The column is omitted so that such lines are counted together.
        what = error.msg.removesuffix(" at").removesuffix(" starting")
        cut = "" if line.endswith(b"\n") else "; it is the last line, and may be cut off"
        raise BadLineError(f"is not JSON ({what}){cut}") from None
    except RecursionError:
        raise BadLineError("is nested too deeply") from None
    except BadLineError:
        raise
    except ValueError:
        raise BadLineError("holds a number of thousands of digits") from None
    if not isinstance(found, dict):
        raise BadLineError(f"must be an object, not {_KINDS.get(type(found), 'null')}")
    return found


_KINDS: Final = {list: "a list", str: "text", int: "a number", float: "a number", bool: "a boolean"}


def _members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) < len(pairs):
        twice = next(key for key in members if sum(key == other for other, _ in pairs) > 1)
        raise BadLineError(f"has the key {shown_key(twice)!r} twice in one object; it can't be known which one counts")
    return members


def _refuse(constant: str) -> NoReturn:
    raise BadLineError(f"holds {constant}, which is not JSON; write null")


_DECODER: Final = json.JSONDecoder(object_pairs_hook=_members, parse_constant=_refuse)
