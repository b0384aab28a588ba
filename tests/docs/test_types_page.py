"""The page about types: what its table says is what is sent."""

from __future__ import annotations

import json
import re
from datetime import date, datetime, timedelta
from decimal import Decimal
from http import HTTPMethod
from ipaddress import ip_interface
from uuid import UUID
from zoneinfo import ZoneInfo

import pyarrow as pa
import pytest

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import Identify, to_payload
from tests.docs.blocks import PROJECT
from tests.events.saying import NOW

NAMES = {
    "Decimal": Decimal, "date": date, "datetime": datetime, "timedelta": timedelta, "UUID": UUID, "ZoneInfo": ZoneInfo,
    "ip_interface": ip_interface, "pa": pa, "HTTPMethod": HTTPMethod, "float": float,
}  # fmt: skip
PAGE = (PROJECT / "docs" / "types.md").read_text()
TABLE = PAGE[PAGE.index("| value | for example") : PAGE.index("`send_nulls=True`")]
LINES = re.findall(r"^\| [^|]+ \| `(.+)` \| (.+) \|$", TABLE, re.MULTILINE)


def test_the_whole_table_is_read():
    assert len(LINES) == len(TABLE.strip().splitlines()) - 2


@pytest.mark.parametrize(("example", "sent"), LINES, ids=[example for example, _ in LINES])
def test_a_value_is_sent_as_the_page_says(example, sent):
    value = eval(example, {"__builtins__": {}}, NAMES)
    written = {"user_id": "u", "traits": {"x": value}}
    if sent == "the row is rejected":
        with pytest.raises(InvalidEventError):
            Identify.read(written)
        return
    body = json.loads(to_payload(Identify.read(written), now=NOW).encoded)
    expected = {} if sent == "left out" else {"traits": {"x": json.loads(sent.strip("`"))}}
    assert {key: value for key, value in body.items() if key == "traits"} == expected
