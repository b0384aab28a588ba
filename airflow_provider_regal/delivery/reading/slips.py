"""Check column names: those that an option names and no row has, and those that are nearly reserved names."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from itertools import islice
from typing import Final

from airflow_provider_regal.events.privacy import shown_key
from airflow_provider_regal.events.rows.columns import ColumnsSeen

_log = logging.getLogger(__name__)
_MOST_WARNINGS: Final = 20


def look_for_slips(
    seen: ColumnsSeen,
    options: Mapping[str, Collection[str]],
    *,
    reserved: Collection[str],
    limited: bool = False,
) -> str | None:
    """Warn of columns with nearly reserved names; return an error if an option names a missing column, else None.

    :param options: option -> the columns that it names; ``mapping`` places them.
    :param limited: not all rows of the source were read, so others may have the columns.
    """
    near_misses = seen.near_misses(reserved, options.get("mapping", ()))
    for column, meant in islice(near_misses.items(), _MOST_WARNINGS):
        _log.warning(
            "The column %s has no meaning of its own, but looks like %s. If it is meant, name it so in the source or "
            "by mapping={%r: %r}; if not, say where it goes by mapping, and this warning ends",
            shown_key(column), meant, shown_key(column), meant,
        )  # fmt: skip
    slips = [
        f"{option} names {', '.join(map(repr, missing))}"
        for option, columns in options.items()
        if (missing := seen.missing(columns))
    ]
    if not slips:
        return None
    problem = f"{' and '.join(slips)}, and no row of the source has such a column."
    if limited:
        _log.warning("%s Other rows than the first may, which is all that limit= reads", problem)
        return None
    return f"{problem} Correct the name."
