"""The page about contracts: its contract is valid, and rejects what the table says, for the stated reason."""

from __future__ import annotations

import json
import re

import pytest

from airflow_provider_regal.events import Identify, Track, to_payload
from airflow_provider_regal.events.data_contract import DataContract
from tests.docs.blocks import PROJECT
from tests.events.saying import NOW

PAGE = (PROJECT / "docs" / "contracts.md").read_text()
(CONTRACT,) = (json.loads(block) for block in re.findall(r"^```json\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
TABLE = PAGE[PAGE.index("| event | properties | reason |") : PAGE.index("- **An opt-out is never held back.**")]
LINES = re.findall(r"^\| (`.+`|\(a contact\)) \| `(.+)` \| `(.+)` \|$", TABLE, re.MULTILINE)
FORMATS = PAGE[PAGE.index("| format | is |") : PAGE.index("Nothing in a contract is ignored")]


def faults(event, values):
    contract = DataContract(CONTRACT)
    contract.load(None)
    kind = Identify(user_id="u", traits=values) if event is None else Track(event=event, user_id="u", properties=values)
    return [str(fault) for fault in contract.faults_of(to_payload(kind, now=NOW).body)]


def test_the_whole_table_is_read():
    assert len(LINES) == len(TABLE.strip().splitlines()) - 2


@pytest.mark.parametrize(("event", "values", "reason"), LINES)
def test_a_row_is_rejected_for_the_reason_on_the_page(event, values, reason):
    assert faults(None if event == "(a contact)" else event.strip("`"), json.loads(values)) == [reason]


@pytest.mark.parametrize(
    ("event", "values"),
    [("Lesson Booked", {"lesson_id": 7, "subject": "Piano", "price": 12.5}), (None, {"plan": "gold", "more": 1})],
)
def test_what_meets_it_is_let_through(event, values):
    assert faults(event, values) == []


def test_every_format_is_on_the_page_and_no_other():
    from airflow_provider_regal.events.data_contract import _FORMATS

    assert re.findall(r"^\| `([\w-]+)` \|", FORMATS, re.MULTILINE) == list(_FORMATS)
