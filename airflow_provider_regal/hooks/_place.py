"""Where a task instance keeps its run folder, and which of its tries this is."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit
from uuid import uuid4

from airflow_provider_regal._compat import conf
from airflow_provider_regal.delivery.tries import Try
from airflow_provider_regal.errors import FixConnectionError
from airflow_provider_regal.hooks._bucket import bucket_at, is_on_object_storage, open_bucket, tidy_bucket
from airflow_provider_regal.journal.bucket import Bucket
from airflow_provider_regal.journal.run_folder import remove_old_folders

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context

_log = logging.getLogger(__name__)
_DAY_S: Final = 86_400.0
_PATIENCE_OF_TIDYING_S: Final = 3.0
_POINTER: Final = "regal_run_folder"
_PROGRESS: Final = "regal_progress"
_LOST_POINTER: Final = "If the run folder gets lost, a later try cannot notice that, and sends again"


@dataclass(frozen=True, slots=True)
class Place:
    """What a delivery needs to know of the task instance it runs in.

    :param folder: the same for every try.
    :param lost: if the folder is missing: whether an earlier try may have had one.
    :param source: names the task, whatever its run: ``dag_id.task_id``, of a mapped one ``dag_id.task_id[map_index]``.
    :param started: called once the delivery starts: remembers the folder where Airflow can.
    :param progress: called with each progress line.
    """

    folder: Path | Bucket
    this: Try
    lost: bool
    source: str = ""
    started: Callable[[], None] = lambda: None
    progress: Callable[[str], None] = lambda line: None


def storage() -> Path:
    """Find the folder of all run folders: ``[regal] storage_path``, by default ``regal`` in Airflow's home.

    :raises FixConnectionError: it is on object storage, and what is asked for needs a folder.
    """
    given = conf.get("regal", "storage_path", fallback="")
    if not given:
        return Path(conf.get("core", "dags_folder")).parent / "regal"
    parts = urlsplit(given)
    if is_on_object_storage(given) or parts.netloc:
        raise FixConnectionError(
            f"[regal] storage_path is {parts.scheme}://..., but this needs a folder every worker sees, such as "
            "/mnt/regal."
        )
    return Path(unquote(parts.path))


def tidy(now: float) -> int:
    """Remove run folders older than ``[regal] retention_days``, at most once a day.

    :param now: seconds since 1970.
    :returns: how many were removed.
    """
    days = conf.getint("regal", "retention_days", fallback=30)
    if (bucket := open_bucket(patience_s=_PATIENCE_OF_TIDYING_S)) is not None:
        return tidy_bucket(bucket, days=days, now=now)
    stamp = storage() / ".tidied"
    if stamp.exists() and now - stamp.stat().st_mtime < _DAY_S:
        return 0
    stamp.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    stamp.touch()
    return remove_old_folders(storage(), older_than_s=days * _DAY_S, now=now)


def place_of(context: Context, name: str | None) -> Place:
    """Find the place of a task instance.

    :param name: of the delivery, where a task makes several.
    """
    ti: Any = context["ti"]
    task = context["task"]
    suffix = "" if name is None else f"/{quote(name, safe='')}"
    key = _POINTER + suffix
    map_index = max(getattr(ti, "map_index", -1), -1)
    names = [_name(str(part)) for part in (ti.dag_id, ti.run_id, ti.task_id, map_index)]
    folder = below(*names, *(() if name is None else ("deliveries", _name(name))))
    # Grows when a finished task is cleared, and stays through automatic retries.
    this = Try(epoch=max(int(ti.max_tries) - int(task.retries or 0), 0), number=int(ti.try_number))
    source = f"{ti.dag_id}.{ti.task_id}" + (f"[{map_index}]" if map_index >= 0 else "")
    source += "" if name is None else f"/{name}"
    store: Any = context.get("task_state_store")  # Airflow 3.3 and later
    shared = isinstance(folder, Bucket)  # every worker sees it: if nothing is there, nothing was started
    if store is None:
        return Place(folder, this, lost=not shared and (this.number > 1 or this.epoch > 0), source=source)
    notes = _Notes(store)
    return Place(
        folder,
        this,
        lost=not shared and notes.has(key, otherwise=this.number > 1 or this.epoch > 0),
        source=source,
        started=lambda: notes.keep(key, str(folder), _LOST_POINTER),
        progress=lambda line: notes.keep(_PROGRESS + suffix, line, "The progress of this task is not shown in Airflow"),
    )


class _Notes:
    """Airflow's task state store; a delivery goes on without it, since the run folder is the truth.

    :param store: what Airflow gives a task.
    """

    def __init__(self, store: Any) -> None:
        self._store = store
        self._complained_of: set[str] = set()

    def has(self, key: str, *, otherwise: bool) -> bool:
        """Say whether a note is there.

        :param otherwise: what to believe if nobody can tell.
        """
        try:
            return self._store.get(key) is not None
        except Exception as error:  # noqa: BLE001 - whatever Airflow raises
            self._complain("Airflow cannot tell whether an earlier try had a run folder", error)
            return otherwise

    def keep(self, key: str, value: str, without: str) -> None:
        """Keep a note, if Airflow takes it.

        :param without: what follows if it does not.
        """
        try:
            self._store.set(key, value)
        except Exception as error:  # noqa: BLE001 - whatever Airflow raises
            self._complain(without, error)

    def _complain(self, what: str, error: Exception) -> None:
        if what not in self._complained_of:  # progress comes every ten seconds
            self._complained_of.add(what)
            _log.warning("%s: its task state store failed (%s). The delivery goes on.", what, type(error).__name__)


def place_outside_a_task(name: str | None) -> Place:
    """Find a place for a delivery that no task instance makes, such as one from a script: it cannot be resumed."""
    return Place(below("outside-tasks", _name(name or uuid4().hex)), Try(), lost=False)


def place_at(name: str) -> Path | Bucket:
    """Find a run folder again by its name."""
    return bucket_at(name) if is_on_object_storage(name) else Path(name)


def below(*names: str) -> Path | Bucket:
    """Find a folder below that of all run folders."""
    bucket = open_bucket()
    return storage().joinpath(*names) if bucket is None else bucket.below(*names)


def _name(part: str) -> str:
    """Make one folder's name of any text; run ids stay readable, and no text can point elsewhere."""
    return quote(part, safe=":+@=,").replace(".", "%2E") if part.strip(".") == "" else quote(part, safe=":+@=,")
