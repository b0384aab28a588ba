"""Deliver the rows of files to Regal: JSON Lines, CSV, Parquet, and Segment archives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_provider_regal.events.names import OPTIONAL_CALLS
from airflow_provider_regal.operators._files import check_csv, open_files, paths_of
from airflow_provider_regal.operators.bulk import RegalBulkOperator
from airflow_provider_regal.sources import FORMATS, FileFormat

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.delivery import Rows

# Options that a Segment message replaces.
_SAID_BY_MESSAGES: Final = ("event", "mapping", "types", "values")


class FileToRegalOperator(RegalBulkOperator):
    """Deliver the rows of files: contacts by identify, events by track, page or screen, or a Segment archive.

    .. code-block:: python

        FileToRegalOperator(
            task_id="contacts",
            path="s3://aws_default@warehouse/contacts/{{ ds }}/*.jsonl.gz",
            format="jsonl",
            call="identify",
        )

    Files may be plain or gzip, whatever their names. They are read completely before the first event is sent. A line
    that is not a row is rejected with its file and line.

    :param path: absolute path, URI of object storage, or glob; or a list of them (templated). The files of each are
        read in the order of their names.
    :param format: ``jsonl``, ``csv``, ``parquet`` (needs the extra ``parquet``), or ``segment``: JSON Lines of Segment
        messages, each of which names its own call.
    :param call: what the rows are: ``identify``, ``track``, ``page`` or ``screen``. Not for ``segment``.
    :param include: for a Segment archive: also send ``page`` and ``screen`` messages, which are skipped otherwise.
    :param delimiter: between the fields of CSV.
    :param encoding: of the text of CSV, such as ``cp1252`` or ``utf-16``.
    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators.bulk.RegalBulkOperator`, and of any
        task.
    """

    template_fields: Sequence[str] = (*RegalBulkOperator.template_fields, "path")

    def __init__(
        self,
        *,
        path: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        format: FileFormat = "jsonl",  # noqa: A002 - the word users know
        call: str | None = None,
        include: Sequence[str] = (),
        delimiter: str = ",",
        encoding: str = "utf-8",
        **kwargs: Any,
    ) -> None:
        check_format(format, call, include, kwargs)
        check_csv(format, delimiter, encoding)
        # For Segment messages the call only sets the guarantee: as for events, nothing is sent twice.
        super().__init__(call=call or "track", **kwargs)
        self.path = path
        self.format = format
        self.include = include
        self.delimiter = delimiter
        self.encoding = encoding

    def source(self) -> tuple[str, ...]:
        """Identify the files by the paths that were given."""
        return ("file", self.format, *paths_of(self.path))

    def lineage_inputs(self) -> list[Any]:
        """Return the files."""
        from airflow_provider_regal.assets._lineage import files_of

        return files_of(paths_of(self.path))

    def open_rows(self, context: Context) -> Rows:
        """Find the files."""
        return open_files(
            self.path, self.format, delimiter=self.delimiter, encoding=self.encoding, include=self.include
        )


def check_format(file_format: str, call: str | None, include: Sequence[str], options: dict[str, Any]) -> None:
    """Reject conflicting options.

    :raises ValueError: with the options in conflict.
    """
    if file_format not in FORMATS:
        raise ValueError(f"format must be one of {', '.join(FORMATS)}, not {file_format!r}")
    if isinstance(include, str) or not OPTIONAL_CALLS.issuperset(include):
        raise ValueError(f"include must be a list of {', '.join(sorted(OPTIONAL_CALLS))}")
    if file_format != "segment":
        if include:
            raise ValueError("include is for format='segment'; a file of pages has call='page'")
        if call is None:
            raise ValueError("call must say what the rows are: identify, track, page or screen")
        return
    given = ["call"] * (call is not None) + [name for name in _SAID_BY_MESSAGES if options.get(name) is not None]
    if given:
        raise ValueError(f"{', '.join(given)}: not for format='segment', whose messages say themselves what they are")
