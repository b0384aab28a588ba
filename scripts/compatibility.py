"""The results of ``make matrix``, and the table in docs/compatibility.md that is generated from them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from scripts.local import PROJECT

RESULTS: Final = PROJECT / "docs" / "compatibility.json"
PAGE: Final = PROJECT / "docs" / "compatibility.md"
RELEASED: Final = "released"
NEWEST: Final = "newest"
_BEGIN: Final = "<!-- Made by `make matrix` from compatibility.json. -->"
_END: Final = "<!-- End of what is made. -->"
_CLASSIFIER: Final = re.compile(r"Programming Language :: Python :: (3\.\d+)")

Result = dict[str, Any]


def read() -> list[Result]:
    """Return the stored results."""
    found: list[Result] = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    return found


def save(result: Result) -> None:
    """Store a result, replacing an earlier one of the same run, and regenerate the table of the page."""
    kept = with_result(read(), result)
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")
    PAGE.write_text(with_table(PAGE.read_text(), kept))


def with_result(kept: list[Result], result: Result) -> list[Result]:
    """Return the results with one more, or one replaced."""
    return sorted([*(one for one in kept if _run(one) != _run(result)), result], key=_order)


def with_table(page: str, results: list[Result]) -> str:
    """Return the page with the table of these results."""
    before, _, rest = page.partition(_BEGIN)
    return before + "\n".join([_BEGIN, "", *table(results), "", _END]) + rest.partition(_END)[2]


def table(results: list[Result]) -> Iterator[str]:
    """Return the lines of the table, one for each Airflow version."""
    yield "| Airflow | released | Python | connection form | `airflow regal` | pages in Airflow | newest packages |"
    yield "|---|---|---|---|---|---|---|"
    for airflow in sorted({one["airflow"] for one in results}, key=_numbers):
        mine = [one for one in results if one["airflow"] == airflow]
        released = [one for one in mine if one["packages"] == RELEASED]
        newest = next((one for one in mine if one["packages"] == NEWEST), None)
        if not released:
            continue
        one = released[0]
        yield (
            f"| {airflow} | {one['released']} | {', '.join(each['python'] for each in released)} "
            f"| {'yes' if one['form_fields'] else '[with the FAB provider](connection.md)'} "
            f"| {_yes(one['command'])} | {_yes(one['pages'])} | {_newest(newest)} |"
        )


def faults(results: list[Result], *, page: str, classifiers: list[str]) -> Iterator[str]:
    """List where page and classifiers differ from the results."""
    if page != with_table(page, results):
        yield "docs/compatibility.md: its table is not that of compatibility.json; run `make matrix`"
    claimed = {found[1] for line in classifiers if (found := _CLASSIFIER.fullmatch(line))}
    ran = {one["python"] for one in results if one["works"]}
    if claimed != ran:
        yield f"pyproject.toml: classifiers claim Python {sorted(claimed)}, `make matrix` ran on {sorted(ran)}"


def _newest(result: Result | None) -> str:
    if result is None:
        return "not tried"
    if not result["works"]:
        return "Airflow itself fails"
    return f"work, without the extra {', '.join(unfit)}" if (unfit := result.get("unfit")) else "work"


def _yes(has: bool) -> str:
    return "yes" if has else "no"


def _run(result: Result) -> tuple[str, str, str]:
    return result["airflow"], result["python"], result["packages"]


def _order(result: Result) -> tuple[Any, ...]:
    return _numbers(result["airflow"]), _numbers(result["python"]), result["packages"] == NEWEST


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))
