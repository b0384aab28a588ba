"""The key of a contact: text that any database can look up, or a fault."""

from __future__ import annotations

import pytest

from airflow_provider_regal.delivery.reading.keys import ContactKeys
from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events.options import USUAL, RowMapping
from airflow_provider_regal.events.rows.mapping import RowMapper


@pytest.mark.parametrize(("value", "key"), [("u1", "u1"), (" u1 ", "u1"), (7, "7"), (7.0, "7")])
def test_the_same_contact_has_the_same_key(value, key):
    assert ContactKeys(RowMapper(RowMapping("identify"), USUAL), None).key_of({"user_id": value}) == key


@pytest.mark.parametrize(
    ("value", "reason"),
    [("a\ud800", "not valid Unicode"), (None, "is empty"), ("NULL", "is empty"), ([1], "a list cannot be the key")],
)
def test_what_no_database_can_look_up_is_no_key(value, reason):
    with pytest.raises(InvalidEventError, match=f"user_id: .*{reason}"):
        ContactKeys(RowMapper(RowMapping("identify"), USUAL), None).key_of({"user_id": value})
