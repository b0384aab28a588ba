"""A folder on object storage: whole objects, some of them made only if nobody else made them before.

Every request is tried again for a while, since object storage throttles and hiccups; whoever waits for it sends
nothing meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

PATIENCE_S: Final = 20.0
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 3.0
_REQUEST_S: Final = 10.0
_FILE_S: Final = 900.0
_LAST_TRY_S: Final = 3.0
_AT_ONCE: Final = 8
_LEAST_CODE: Final = 3


class StorageError(OSError):
    """Object storage cannot be read or written; the message names no key and no value."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An object that is there.

    :param modified: when it was written, by the storage's clock: seconds since 1970.
    """

    size: int
    modified: float


class Bucket:
    """A folder of a bucket; keys are relative to it.

    :param fs: an fsspec file system whose ``pipe_file(mode="create")`` is atomic, such as s3fs.
    :param path: of the folder on it, without the scheme.
    :param uri: the same as users write it.
    :param patience_s: seconds for which a request is tried again.
    """

    def __init__(
        self,
        fs: Any,
        path: str,
        uri: str,
        *,
        patience_s: float = PATIENCE_S,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._fs = fs
        self.path = path.rstrip("/")
        self.uri = uri.rstrip("/")
        self._patience_s = patience_s
        self._request_s = min(_REQUEST_S, max(patience_s, _LAST_TRY_S))
        self._monotonic = monotonic
        self._sleep = sleep
        self._given_up = False
        self._lock = threading.Lock()
        self.requests = 0

    def __str__(self) -> str:
        return self.uri

    def below(self, *names: str) -> Bucket:
        """Give a folder in it."""
        return Bucket(
            self._fs,
            "/".join((self.path, *names)),
            "/".join((self.uri, *names)),
            patience_s=self._patience_s,
            monotonic=self._monotonic,
            sleep=self._sleep,
        )

    def create(self, key: str, data: bytes) -> bool:
        """Make an object, all at once.

        :returns: whether it is ours; False if another was there first.
        """
        try:
            self._persist(lambda: self._call("pipe_file", key, data, mode="create"), FileExistsError)
        except FileExistsError:
            # Ours, where only the answer was lost.
            return self.get(key) == data
        return True

    def is_exclusive(self, key: str, data: bytes) -> bool:
        """Say whether an object that is there cannot be made again: some storages ignore the condition."""
        try:
            self._persist(lambda: self._call("pipe_file", key, data, mode="create"), FileExistsError)
        except FileExistsError:
            return True
        return False

    def put(self, key: str, data: bytes) -> None:
        """Write an object, whatever is there."""
        self._persist(lambda: self._call("pipe_file", key, data, timeout_s=_FILE_S))

    def put_file(self, key: str, file: Path) -> None:
        """Write a file, whatever is there."""
        self._persist(lambda: self._call("put_file", str(file), self._at(key), timeout_s=_FILE_S, absolute=True))

    def get(self, key: str) -> bytes | None:
        """Read an object that is not empty; None if there is none."""
        try:
            found: bytes = self._persist(lambda: self._call("cat_file", key, start=0), FileNotFoundError)
        except FileNotFoundError:
            return None
        return found

    def get_file(self, key: str, file: Path) -> bool:
        """Read an object into a file.

        :returns: whether there was one.
        """
        try:
            self._persist(
                lambda: self._call("get_file", self._at(key), str(file), timeout_s=_FILE_S, absolute=True),
                FileNotFoundError,
            )
        except FileNotFoundError:
            return False
        return True

    def get_many(self, keys: Iterable[str]) -> Mapping[str, bytes | None]:
        """Read several at once."""
        wanted = list(keys)
        with ThreadPoolExecutor(_AT_ONCE * 2) as threads:
            return dict(zip(wanted, threads.map(self.get, wanted), strict=True))

    def list(self, folder: str = "", *, deep: bool = False) -> dict[str, Stored]:
        """List what is in a folder.

        :param deep: and in those below it.
        :returns: key -> what is there.
        """
        try:
            if deep:
                self._fs.invalidate_cache()
                found = self._persist(
                    lambda: self._call("find", folder, detail=True, timeout_s=_FILE_S), FileNotFoundError
                )
            else:
                listed = self._persist(
                    lambda: self._call("ls", folder, detail=True, refresh=True, timeout_s=_FILE_S), FileNotFoundError
                )
                found = {entry["name"]: entry for entry in listed}
        except FileNotFoundError:
            return {}
        start = len(self.path) + 1
        return {
            name[start:]: Stored(int(entry["size"] or 0), _seconds(entry.get("LastModified") or entry["created"]))
            for name, entry in found.items()
            if entry["type"] == "file" and name.startswith(self.path + "/")
        }

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are none too many."""
        gone = [self._at(key) for key in keys]
        if gone:
            self._persist(lambda: self._call("rm", gone, timeout_s=_FILE_S, absolute=True))

    @property
    def _name(self) -> str:
        return "/".join(self.uri.split("/", 3)[:3])

    def _at(self, key: str) -> str:
        return f"{self.path}/{key}" if key else self.path

    def _call(
        self,
        method: str,
        first: Any,
        *rest: Any,
        timeout_s: float | None = None,
        absolute: bool = False,
        **options: Any,
    ) -> Any:
        with self._lock:
            self.requests += 1
        if getattr(self._fs, "async_impl", False):
            options["timeout"] = _LAST_TRY_S if self._given_up else timeout_s or self._request_s
        return getattr(self._fs, method)(first if absolute else self._at(first), *rest, **options)

    def _persist(self, act: Callable[[], Any], *answers: type[OSError]) -> Any:
        """Do something until it succeeds, or patience ends.

        :param answers: failures that are an answer; they are raised as they are.
        :raises StorageError: patience ended; from now on everything is tried only once.
        """
        deadline, pause_s = self._monotonic() + self._patience_s, _FIRST_PAUSE_S
        while True:
            try:
                result = act()
            except Exception as error:  # botocore's are no OSErrors
                if isinstance(error, answers):
                    raise
                if self._given_up or self._monotonic() + pause_s >= deadline:
                    self._given_up = True
                    raise StorageError(f"{self._name} cannot be reached or written: {_kind(error)}.") from error
            else:
                return result
            self._sleep(pause_s)
            pause_s = min(pause_s * 2, _LONGEST_PAUSE_S)


def _seconds(when: datetime | float) -> float:
    return when.timestamp() if isinstance(when, datetime) else when


def _kind(error: BaseException) -> str:
    """Name an error: its code if it has one, else its class; its words may hold a key."""
    cause = error.__cause__ or error
    response = getattr(cause, "response", None)
    code = response.get("Error", {}).get("Code") if isinstance(response, dict) else None
    if isinstance(code, str) and len(code) >= _LEAST_CODE:
        return code
    return type(error).__name__
