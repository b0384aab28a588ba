"""The tables that the DAGs read, and which rows have to arrive."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

#: Each person has this many rows, some of them adjacent.
ROWS_PER_PERSON = 4
_TABLES = """
    CREATE TABLE source_rows (id serial PRIMARY KEY, dag text, task text, shard int, person text);
    CREATE INDEX ON source_rows (dag, task, shard);
    CREATE TABLE people (id serial PRIMARY KEY, person text, phone text, sms_opt_in bool, sms_opt_in_at timestamptz,
                         sms_opt_in_ip text);
    CREATE TABLE consents (id serial PRIMARY KEY, phone text, subscribed bool, given_at timestamptz, ip text);
"""
_ROWS = text("""
    INSERT INTO source_rows (dag, task, shard, person)
    SELECT :dag, :task, shard, :dag || '-' || :task || '-' || shard || '-' || (number / 2) % :people
    FROM generate_series(0, :shards - 1) shard, generate_series(0, :rows - 1) number ORDER BY shard, number
""")
# Every other person's newer decision is in the contacts, the others' in the consents; each is a yes or a no.
_PEOPLE = text("""
    INSERT INTO people (person, phone, sms_opt_in, sms_opt_in_at, sms_opt_in_ip)
    SELECT 'people-' || number, '+1212555' || lpad(number::text, 4, '0'), number % 4 < 2,
           now() - interval '10 days' + interval '1 day' * (number % 2), '203.0.113.9'
    FROM generate_series(1000, 999 + :people) number
""")
_CONSENTS = text("""
    INSERT INTO consents (phone, subscribed, given_at, ip)
    SELECT phone, NOT sms_opt_in, now() - interval '10 days' + interval '1 day' * (id % 2), '203.0.113.9'
    FROM people ORDER BY id DESC
""")


@dataclass(frozen=True)
class SourceRow:
    """A row of the table.

    :param row_id: a column in every event, which identifies the row.
    """

    row_id: int
    person: str


def make_tables(url: str) -> None:
    """Create the tables."""
    _change(url, text(_TABLES))


def add_rows(url: str, dag: str, task: str, *, shards: int, rows: int) -> None:
    """Add rows for each shard of a task."""
    values = {"dag": dag, "task": task, "shards": shards, "rows": rows, "people": rows // ROWS_PER_PERSON}
    _change(url, _ROWS, **values)


def add_people(url: str, people: int) -> None:
    """Add people with contradicting consents in both tables."""
    _change(url, _PEOPLE, people=people)
    _change(url, _CONSENTS)


def rows_of(url: str, dag: str, task: str, shard: int) -> list[SourceRow]:
    """Return the rows of a shard in the order in which the DAG reads them."""
    query = "SELECT id, person FROM source_rows WHERE dag = :dag AND task = :task AND shard = :shard ORDER BY id"
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:
        found = connection.execute(text(query), {"dag": dag, "task": task, "shard": shard})
        return [SourceRow(*row) for row in found]


def _change(url: str, statement: object, **values: object) -> None:
    engine = create_engine(url, poolclass=NullPool)
    with engine.begin() as connection:
        connection.execute(statement, values)
