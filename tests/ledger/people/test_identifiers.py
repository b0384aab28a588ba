"""How identifiers are stored: in plain text, or so that they identify no one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.ledger.people.identifiers import Identifiers
from airflow_provider_regal.ledger.text import LONGEST_KEY

PLAIN, HASHED = Identifiers(None), Identifiers(b"pepper")


@pytest.mark.parametrize("identifier", ["+12125550100", "ann@example.com", "user:7", "ä", "x" * LONGEST_KEY])
def test_without_a_secret_they_are_stored_as_they_are(identifier):
    assert PLAIN.plain
    assert PLAIN.stored(identifier) == identifier
    assert PLAIN.seed(b"seed") == b"seed"


@given(identifier=st.text(st.characters(exclude_categories=())), other=st.text())
def test_with_a_secret_they_name_nobody_and_are_found_again(identifier, other):
    stored = HASHED.stored(identifier)
    assert len(stored) == 64
    assert stored == Identifiers(b"pepper").stored(identifier)
    assert stored != Identifiers(b"salt").stored(identifier)
    assert (stored == HASHED.stored(other)) == (identifier == other)


@given(identifier=st.text(st.characters(exclude_categories=()), max_size=300))
def test_what_no_database_keeps_is_stored_as_its_hash(identifier):
    stored = PLAIN.stored(identifier)
    stored.encode("utf-8")  # no half of a surrogate pair
    assert len(stored) <= LONGEST_KEY
    assert "\0" not in stored
    assert stored == stored.strip()


def test_the_mark_tells_secrets_apart_and_reveals_none():
    marks = {one.mark for one in (PLAIN, HASHED, Identifiers(b"salt"))}
    assert len(marks) == 3
    assert HASHED.mark == Identifiers(b"pepper").mark
    assert "pepper" not in "".join(marks)
    assert HASHED.seed(b"seed") != b"seed"
