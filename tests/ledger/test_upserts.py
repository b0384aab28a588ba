"""Many rows at once: new ones are added, existing ones replaced or left unchanged, in every database."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.upserts import write_rows

TYPES = ("account", "name", "type")


@pytest.fixture
def database(accounts):
    return accounts().database


def write(database, known, *rows, table=schema.types, columns=TYPES):
    database.write(lambda connection: write_rows(connection, table, columns, rows, known))


def read(database, table=schema.types):
    columns = [table.c[name] for name in TYPES] if table is schema.types else [table]
    return sorted(map(tuple, database.read(lambda connection: connection.execute(select(*columns)).fetchall())))


def test_known_ones_are_replaced(database):
    write(database, "replace", ("acme", "a", "int"), ("acme", "b", "int"))
    write(database, "replace", ("acme", "b", "str"), ("acme", "c", "str"))
    assert read(database) == [("acme", "a", "int"), ("acme", "b", "str"), ("acme", "c", "str")]


def test_known_ones_are_left_alone(database):
    write(database, "keep", ("acme", "a", "int"))
    write(database, "keep", ("acme", "a", "str"), ("acme", "b", "str"))
    assert read(database) == [("acme", "a", "int"), ("acme", "b", "str")]


def test_of_a_known_one_only_the_columns_told_change(database):
    contacts = schema.contacts
    columns = ("account", "contact", "row_hash", "acknowledged_at")
    write(database, "replace", ("acme", "c", "r1", "t1"), table=contacts, columns=columns)
    write(
        database,
        "replace",
        ("acme", "c", "p1", "t1"),
        table=contacts,
        columns=("account", "contact", "payload_hash", "acknowledged_at"),
    )
    ((account, contact, row_hash, payload_hash, *_),) = read(database, contacts)
    assert (account, contact, row_hash, payload_hash) == ("acme", "c", "r1", "p1")


def test_a_known_one_is_emptied_where_no_row_has_a_value(database):
    columns = ("account", "contact", "row_hash", "payload_hash", "acknowledged_at")
    for row in (("acme", "c", "r1", "p1", "t1"), ("acme", "c", None, "p2", "t2")):
        write(database, "replace", row, table=schema.contacts, columns=columns)
    assert read(database, schema.contacts) == [("acme", "c", None, "p2", "t2", None)]


def test_many_and_none(database):
    write(database, "replace")
    write(database, "replace", *(("acme", f"name-{number:04d}", "x") for number in range(3_000)))
    assert len(read(database)) == 3_000


def test_whatever_stands_in_them(database):
    odd = ["%", "%s", ":x", "?", "'", '"', "\\", "{}", "NULL", "ä😀", "a, b", "[1]"]
    write(database, "replace", *(("acme", one, one) for one in odd))
    assert {name: kind for _, name, kind in read(database)} == {one: one for one in odd}
