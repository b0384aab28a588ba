"""The rows sources give: each says where it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_regal.sources.marks import ORIGIN_MARK, REJECT_MARK, ROW_MARK, Marked


def row_of(columns: Mapping[str, Any], origin: str) -> Marked:
    """Return a row of a table."""
    return Marked({ORIGIN_MARK: origin, ROW_MARK: columns})


def bad_row(what: str, reason: str, origin: str, kept: Mapping[str, Any] | None = None) -> Marked:
    """Return what is no row.

    :param what: the place of the fault, such as ``the line`` or a column.
    :param reason: what is wrong with it, without values.
    :param kept: what to keep of it, beside its reason.
    """
    return Marked({ORIGIN_MARK: origin, REJECT_MARK: [[what, reason]], ROW_MARK: dict(kept or {})})
