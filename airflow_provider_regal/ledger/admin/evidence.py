"""Write the evidence of consent to a file: JSON with what is on record now, or CSV of the decisions."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import Any, TextIO

from airflow_provider_regal.ledger.admin.history import Consents
from airflow_provider_regal.ledger.people.consent_log import LogLine


def write_csv(stream: TextIO, head: dict[str, Any], found: Consents | None, lines: Iterable[LogLine]) -> int:
    """Write decisions as CSV; return how many."""
    writer, count = csv.writer(stream), 0
    writer.writerow(LogLine._fields)
    for line in lines:
        writer.writerow([*line[:4], str(line.subscribed).lower(), *line[5:]])
        count += 1
    return count


def write_json(stream: TextIO, head: dict[str, Any], found: Consents | None, lines: Iterable[LogLine]) -> int:
    """Write one object; write the decisions one by one, however many there are."""
    count = 0
    if found is not None:
        head = {**head, "consents": [one._asdict() for one in found.consents]}
    stream.write(json.dumps(head, indent=1)[:-2] + ',\n "decisions": [')
    for count, line in enumerate(lines, 1):
        stream.write(("," if count > 1 else "") + "\n  " + json.dumps(line._asdict(), ensure_ascii=False))
    stream.write("\n ]\n}\n")
    return count
