"""Segment archives: JSON Lines of messages, plain or gzip."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import IO, Any

from airflow_provider_regal.events.rows.segment import Invalid, Skipped, read_message
from airflow_provider_regal.sources.json_lines import BadLineError, objects
from airflow_provider_regal.sources.marks import EVENT_MARK, ORIGIN_MARK, REJECT_MARK, ROW_MARK, SKIP_MARK, Marked
from airflow_provider_regal.sources.rows import bad_row


def read_segment(stream: IO[bytes], name: str, include: Collection[str] = ()) -> Iterator[Marked]:
    """Return the event of each message with its place, or the reason it is not sent.

    Nothing is kept of a line that is not a message: it may contain the source's write key.

    :param stream: the file, plain or gzip.
    :param name: of the file, for messages.
    :param include: ``page``, ``screen``: which of them are events.
    """
    for origin, _, found in objects(stream, name):
        if isinstance(found, BadLineError):
            yield bad_row("the line", str(found), origin)
            continue
        yield message_row(found, origin, include)


def message_row(message: Mapping[str, Any], origin: str, include: Collection[str] = ()) -> Marked:
    """Return the event of one message, or the reason it is not sent.

    :param origin: its place.
    """
    read = read_message(message, include)
    if isinstance(read, Skipped):
        row = {} if read.opt_outs is None else {EVENT_MARK: "identify", ROW_MARK: read.opt_outs}
        return Marked({ORIGIN_MARK: origin, SKIP_MARK: read.reason, **row})
    if isinstance(read, Invalid):
        faults = [[fault.field, fault.reason] for fault in read.faults]
        return Marked({ORIGIN_MARK: origin, REJECT_MARK: faults, ROW_MARK: {}})
    return Marked({ORIGIN_MARK: origin, EVENT_MARK: read.call, ROW_MARK: read.written})
