"""The cost of a contract: preparing a row of ten columns, with and without one.

``python -m benchmarks.contract [rows] [rounds]`` stores each round. A round prepares the same rows without a contract,
with one that contains types, as written by ``contract infer``, and with one that restricts values further.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime
from typing import Any, Final

from airflow_provider_regal.delivery.reading.prepare import Preparer
from airflow_provider_regal.delivery.reading.prepared import Ready
from airflow_provider_regal.delivery.settings import DeliverySettings
from benchmarks.running import write_results

TEXTS: Final = [f"text_{number}" for number in range(6)]
NUMBERS: Final = [f"number_{number}" for number in range(4)]
TYPES: Final = {name: {"type": "string" if name in TEXTS else "number"} for name in (*TEXTS, *NUMBERS)}
MORE: Final = {
    name: {**schema, **({"maxLength": 100, "pattern": "^v"} if name in TEXTS else {"minimum": 0})}
    for name, schema in TYPES.items()
}


def contract(properties: dict[str, Any]) -> dict[str, Any]:
    """Return a contract in which every name is required, and no other is allowed."""
    schema = {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}
    return {"events": {"Order Placed": schema}}


KINDS: Final = {"without": None, "types alone": contract(TYPES), "types, lengths and patterns": contract(MORE)}


def measure(rows: int, given: dict[str, Any] | None) -> float:
    """Return microseconds of CPU per row."""
    settings = DeliverySettings.of(call="track", event="Order Placed", contract=given)
    preparer, now = Preparer(settings, event_source="airflow"), datetime.now(UTC)
    row = {"user_id": "u1", **dict.fromkeys(TEXTS, "value"), **dict.fromkeys(NUMBERS, 1.5)}
    if not isinstance(preparer.prepare(0, row, now), Ready):
        raise TypeError("the row does not meet the contract")
    begun = time.process_time()
    for number in range(rows):
        preparer.prepare(number, row, now)
    return 1e6 * (time.process_time() - begun) / rows


def main() -> None:
    """Measure, and store the results."""
    rows, rounds = map(int, sys.argv[1:] or (20_000, 5))
    kept = []
    for _ in range(rounds):
        kept.append({name: {"cpu_a_row_us": measure(rows, given)} for name, given in KINDS.items()})
        print(kept[-1], flush=True)
    print(write_results("contract", kept, rows=rows))


if __name__ == "__main__":
    main()
