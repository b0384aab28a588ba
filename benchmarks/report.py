"""Generate the tables and pictures of ``docs/performance.md`` from the raw results: ``python -m benchmarks.report``.

A table is placed between ``<!-- table: name -->`` and ``<!-- end -->``; do not edit it by hand. Tables without results
are left unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from benchmarks import tables
from benchmarks.running import PROJECT, RESULTS

PAGE: Final = PROJECT / "docs" / "performance.md"
PICTURES: Final = PROJECT / "docs" / "pictures"
_BLOCK: Final = re.compile(r"(<!-- table: ([a-z_]+) -->\n).*?(<!-- end -->)", re.DOTALL)

Results = dict[str, Any]

# Table -> its results file, and the function that makes it.
TABLES: Final[dict[str, tuple[str, Callable[[Results], str]]]] = {
    "machine": ("whole_path", tables.machine),
    "whole_path": ("whole_path", tables.whole_path),
    "targets": ("whole_path", tables.targets),
    "where_it_goes": ("where_it_goes", tables.where_it_goes),
    "pacing": ("pacing", tables.pacing),
    "margins": ("pacing_margins", tables.margins),
    "paced_cpu": ("pacing_cpu", tables.paced_cpu),
    "sharing": ("sharing", tables.sharing),
    "sharing_singles": ("sharing_singles", tables.sharing),
    "sharing_simulated": ("sharing_simulated", tables.sharing_simulated),
    "storms": ("chaos", tables.storms),
    "troubles": ("chaos", tables.troubles),
    "outages": ("chaos_outages", tables.outages),
    "scale_deliveries": ("at_scale", tables.scale_deliveries),
    "scale_singles": ("at_scale", tables.scale_singles),
    "scale_commits": ("at_scale", tables.scale_commits),
    "scale_growth": ("at_scale", tables.scale_growth),
    "memory": ("memory", tables.memory),
    "unchanged_contacts": ("unchanged_contacts", tables.unchanged_contacts),
    "sync_unchanged": ("sync_unchanged", tables.by_candidate),
    "contract": ("contract", tables.by_candidate),
    "dag_parse": ("dag_parse", tables.by_candidate),
    "start_up": ("start_up", tables.by_candidate),
}
# Picture (and the function of ``pictures`` that draws it) -> the results file.
DRAWN: Final = {
    "whole_path": "whole_path",
    "arrivals": "pacing",
    "sharing": "sharing",
    "sharing_simulated": "sharing_simulated",
    "where_it_goes": "where_it_goes",
}


def results(name: str) -> Results | None:
    """Read raw results; None if there are none."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text()) if file.exists() else None


def filled(page: str) -> str:
    """Put the tables into a page.

    :raises ValueError: the page has a table that no function makes.
    """

    def fill(block: re.Match[str]) -> str:
        begin, name, end = block.groups()
        if name not in TABLES:
            raise ValueError(f"{PAGE.name} has a table {name!r}, which nothing makes")
        source, make = TABLES[name]
        found = results(source)
        return block[0] if found is None else f"{begin}{make(found).strip()}\n{end}"

    return _BLOCK.sub(fill, page)


def main() -> None:
    """Generate all tables and pictures."""
    from benchmarks import pictures  # needs matplotlib, which the tests don't use

    PICTURES.mkdir(exist_ok=True)
    for name, source in DRAWN.items():
        if (found := results(source)) is not None:
            getattr(pictures, name)(found, PICTURES / f"{name}.svg")
            print(f"docs/pictures/{name}.svg")
    PAGE.write_text(filled(PAGE.read_text()))
    print(PAGE.relative_to(PROJECT))


if __name__ == "__main__":
    main()
