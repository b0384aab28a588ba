"""Read the bytes of a file, unzip them if needed, and split them into lines, in constant memory."""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Iterator
from typing import IO, Any, Final

from airflow_provider_regal.sources import BadSourceError, SourceError

UTF_8: Final = "utf-8"
# Four times the largest event that is sent, since JSON may write a character as \uXXXX.
LONGEST_LINE: Final = 1024 * 1024
_BUFFER: Final = 256 * 1024
_GZIP: Final = b"\x1f\x8b"
_DAMAGES: Final = (EOFError, zlib.error, gzip.BadGzipFile, UnicodeError)
_BOM: Final = b"\xef\xbb\xbf"
# Starts of files that are not lines of text.
_NO_TEXT: Final = {
    b"PAR1": "a Parquet file: format='parquet' reads it",
    b"PK\x03\x04": "a ZIP file; unzip it, or zip it with gzip",
    b"BZh": "a bzip2 file; zip it with gzip",
    b"\x28\xb5\x2f\xfd": "a Zstandard file; zip it with gzip",
    b"\xfd7zXZ": "an xz file; zip it with gzip",
    b"\xff\xfe": "UTF-16 text; save it as UTF-8, or name its encoding (CSV: encoding='utf-16')",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8, or name its encoding (CSV: encoding='utf-16')",
}


class DamagedFileError(SourceError, OSError):
    """A file can't be read completely, so it can't be known how many of its rows are missing."""


class _Raw(io.RawIOBase):
    """Adapts any object with ``read`` to a raw stream: some object storage streams are incomplete."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _AsUtf8(io.RawIOBase):
    """Converts text of another encoding to UTF-8; undecodable bytes stay, so that only their line is rejected."""

    def __init__(self, stream: io.BufferedReader, encoding: str) -> None:
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            data = self._stream.read1(_BUFFER)
            self._left = self._decoder.decode(data, final=not data).encode("utf-8", "surrogateescape")
            if not data:
                break
        part, self._left = self._left[: len(buffer)], self._left[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)


class Lines:
    """The lines of a file as UTF-8, one at a time.

    :param stream: opened for reading bytes; unzipped if it contains gzip, whatever its name.
    :param name: of the file, for messages.
    :param encoding: of its text.
    :raises BadSourceError: the file is not text.
    """

    def __init__(self, stream: IO[bytes], name: str, encoding: str = UTF_8) -> None:
        self._name = name
        self._damage: Exception | None = None
        self.number = 0
        self._plain = _buffered(_Raw(stream))
        if self._peek(_GZIP):
            self._plain = _buffered(gzip.GzipFile(fileobj=self._plain))
        if codecs.lookup(encoding).name != UTF_8:
            self._plain = _buffered(_AsUtf8(self._plain, encoding))
        for start, what in _NO_TEXT.items():
            if self._peek(start):
                raise BadSourceError(f"{name} is {what}.")

    def next(self) -> bytes | None:
        """Read the next line, including its line end, without a byte order mark; None after the last.

        A line that is too long is truncated and has no line end: see :func:`is_too_long`.

        :raises DamagedFileError: the file is truncated or damaged.
        """
        line = self._read()
        if not line:
            return None
        self.number += 1
        if is_too_long(line):
            while (more := self._read()) and not more.endswith(b"\n"):
                pass
        return line.removeprefix(_BOM)

    def __iter__(self) -> Iterator[tuple[int, bytes]]:
        while (line := self.next()) is not None:
            yield self.number, line

    def _read(self) -> bytes:
        line = b""
        if self._damage is None:
            try:
                line = self._plain.readline(LONGEST_LINE + 1)
            except _DAMAGES as error:
                self._damage = error
        if self._damage is not None:
            raise DamagedFileError(
                f"{self._name} breaks off or is damaged after line {self.number} ({type(self._damage).__name__}); "
                "nothing was sent. Write the file again, and run the task again."
            )
        return line

    def _peek(self, start: bytes) -> bool:
        try:
            return self._plain.peek(len(start))[: len(start)] == start
        except _DAMAGES as error:
            self._damage = error  # raised when it is read; another read would look like the end
            return False


def is_too_long(line: bytes) -> bool:
    """Return whether a line is longer than any event and was truncated."""
    return len(line) > LONGEST_LINE and not line.endswith(b"\n")


TOO_LONG: Final = f"is longer than {LONGEST_LINE:,} bytes; no event is"


def _buffered(stream: Any) -> io.BufferedReader:
    return io.BufferedReader(stream, _BUFFER)
