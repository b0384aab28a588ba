"""A segment: what one try adds to a run folder on object storage, as one object. Pure.

It is a line of JSON, the header, and the bytes of its parts one after the other.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

_VERSION = 1


class DamagedError(ValueError):
    """The segments of a folder do not fit together, so nobody can tell which rows were sent."""


class Kind(StrEnum):
    """What a segment is for.

    ``take``: its writer holds the folder from now on. ``write``: it still does. ``claim``: another asks for it.
    ``close``: its writer is done, and sends nothing more. ``note``: nobody held the folder, and its writer, who does
    not hold it either, has added something.
    """

    TAKE = "take"
    WRITE = "write"
    CLAIM = "claim"
    CLOSE = "close"
    NOTE = "note"

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds a folder of which this is the last word."""
        return self in (Kind.CLOSE, Kind.NOTE)


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """Which try it is: a later one may ask an earlier one to leave."""

    epoch: int
    number: int


@dataclass(frozen=True, slots=True)
class Part:
    """A file of the run folder, or what was appended to it.

    :param name: of the file.
    :param offset: how long the file was before; None if the part is the whole of it.
    :param key: of the object that holds the part; None if the segment itself does.
    """

    name: str
    size: int
    offset: int | None = None
    key: str | None = None
    data: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Segment:
    """One entry of the log.

    :param writer: a random name of the process that wrote it.
    :param quiet_s: if this is the last the writer wrote: after how many seconds nothing of it is under way any more.
    :param whole: it holds or names every file; what was before counts no more.
    :param gone: files that were removed.
    """

    kind: Kind
    writer: str
    rank: Rank
    quiet_s: float
    whole: bool = False
    parts: tuple[Part, ...] = ()
    gone: tuple[str, ...] = ()

    def encode(self, number: int) -> bytes:
        """Write it as the content of an object.

        :param number: its own: no two segments have the same content.
        """
        header = {
            "version": _VERSION,
            "segment": number,
            "kind": self.kind.value,
            "writer": self.writer,
            "rank": asdict(self.rank),
            "quiet_s": self.quiet_s,
            "whole": self.whole,
            "gone": self.gone,
            "parts": [[part.name, part.size, part.offset, part.key] for part in self.parts],
        }
        inside = (part.data for part in self.parts if part.key is None)
        return b"".join((json.dumps(header).encode(), b"\n", *inside))


def decode(content: bytes) -> Segment:
    """Read a segment.

    :raises DamagedError: it is none.
    """
    head, _, rest = content.partition(b"\n")
    try:
        header: dict[str, Any] = json.loads(head)
        segment = Segment(
            kind=Kind(header["kind"]),
            writer=header["writer"],
            rank=Rank(**header["rank"]),
            quiet_s=float(header["quiet_s"]),
            whole=bool(header["whole"]),
            gone=tuple(header["gone"]),
            parts=tuple(_cut(header["parts"], rest)),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedError("an object in the folder's log is no segment") from error
    return segment


def _cut(listed: Iterable[list[Any]], rest: bytes) -> Iterable[Part]:
    position = 0
    for name, size, offset, key in listed:
        data = b""
        if key is None:
            data = rest[position : position + size]
            position += size
            if len(data) != size:
                raise ValueError("a part is cut off")
        yield Part(name, size, offset, key, data)
    if position != len(rest):
        raise ValueError("there is more than the parts")


def files_of(segments: Iterable[Segment]) -> dict[str, list[Part]]:
    """Put segments together, in their order: file -> its parts, one after the other.

    :raises DamagedError: one is missing.
    """
    files: dict[str, list[Part]] = {}
    for segment in segments:
        if segment.whole:
            files.clear()
        for name in segment.gone:
            files.pop(name, None)
        for part in segment.parts:
            if part.offset is None:
                files[part.name] = [part]
            elif sum(earlier.size for earlier in files.get(part.name, [])) == part.offset:
                files.setdefault(part.name, []).append(part)
            else:
                raise DamagedError(f"{part.name} has a gap")
    return files
