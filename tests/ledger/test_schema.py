"""How the tables are created and migrated, in every database."""

from __future__ import annotations

import pytest
from sqlalchemy import inspect, text

from airflow_provider_regal.errors import LedgerError, WrongLedgerError
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.schema import MIGRATIONS, upgrade
from tests.databases import EVERY
from tests.ledger.view import engine_of


@pytest.fixture(params=EVERY)
def database_url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    return request.getfixturevalue("postgres_url" if request.param == "postgresql" else "mariadb_url")


@pytest.fixture
def database(database_url):
    made = Database(engine_of(database_url))
    yield made
    made.close()


def migrate(database, *more):
    return database.write(lambda connection: upgrade(connection, (*MIGRATIONS, *more)))


def version(database):
    return database.read(lambda connection: connection.execute(text("SELECT version FROM regal_schema")).scalar_one())


def tables(database_url):
    engine = engine_of(database_url)
    found = set(inspect(engine).get_table_names())
    engine.dispose()
    return found


def test_opening_it_makes_all_tables_once(database, database_url):
    assert tables(database_url) >= {table.name for table in schema.metadata.sorted_tables}
    assert version(database) == len(MIGRATIONS)
    assert database.upgrade() == 0
    Database(engine_of(database_url)).close()


def test_it_can_be_left_alone(database_url):
    made = Database(engine_of(database_url), migrate=False)
    made.close()
    assert tables(database_url) == set()


def test_the_salt_of_a_ledger_is_its_own_and_stays(database):
    salt = text("SELECT salt FROM regal_schema")
    before = database.read(lambda connection: connection.execute(salt).scalar_one())
    migrate(database, lambda connection: None)
    assert database.read(lambda connection: connection.execute(salt).scalar_one()) == before
    assert len(before) == 32


def test_a_newer_ledger_is_refused_with_what_to_do(database, database_url):
    database.write(lambda connection: connection.execute(text("UPDATE regal_schema SET version = 99")))
    with pytest.raises(WrongLedgerError, match=r"schema version 99;.*Upgrade airflow-provider-regal"):
        Database(engine_of(database_url))


def test_an_older_ledger_is_migrated_once_step_by_step(database):
    made = []
    steps = [lambda c: made.append(1), lambda c: made.append(2)]
    assert [migrate(database, *steps) for _ in range(2)] == [2, 0]
    assert made == [1, 2]
    assert version(database) == len(MIGRATIONS) + 2


def test_a_ledger_of_the_first_version_gets_what_it_lacks_and_keeps_what_it_has(database):
    """Also where a step was done half, as a database that commits with each change of a table may leave it."""
    row = {
        "place": "p", "incarnation": 1, "account": "acme", "map_index": -1, "call": "track", "source": "", "epoch": 0,
        "try_number": 1, "restarted": 0, "hold_s": 30, "state": "finished", "read_rows": 3, "acknowledged": 3,
        "rejected": 0, "unknown": 0, "skipped": 0, "started_at": "2026-11-29T08:00:00.000000Z",
    }  # fmt: skip
    database.write(lambda connection: connection.execute(schema.deliveries.insert(), row))
    line = {
        "delivery": 1, "position": 1, "account": "acme", "call": "track", "status": "unknown", "attempts": 1,
        "first_at": "2026-11-29T08:00:00.000000Z", "last_at": "2026-11-29T08:00:00.000000Z",
    }  # fmt: skip
    database.write(lambda connection: connection.execute(schema.outcomes.insert(), line))
    for left_over in (["DROP TABLE regal_tries"], []):
        as_it_was = [
            *left_over,
            "ALTER TABLE regal_deliveries DROP COLUMN conn_id",
            "ALTER TABLE regal_outcomes DROP COLUMN found_at",
            "UPDATE regal_schema SET version = 1",
        ]
        for statement in as_it_was:
            database.write(lambda connection, told=statement: connection.execute(text(told)))
        assert [database.upgrade() for _ in range(2)] == [2, 0]
        assert version(database) == len(MIGRATIONS) == 3
        deliveries = database.read(lambda connection: connection.execute(schema.deliveries.select()).all())
        assert [(one.account, one.acknowledged, one.conn_id) for one in deliveries] == [("acme", 3, None)]
        assert database.read(lambda connection: connection.execute(schema.tries.select()).all()) == []
        outcomes = database.read(lambda connection: connection.execute(schema.outcomes.select()).all())
        assert [(one.position, one.found_at) for one in outcomes] == [(1, None)]


def test_a_step_that_fails_leaves_the_ledger_as_it_was(database):
    if database.dialect == "mysql":
        pytest.skip("it commits with each change of a table")
    with pytest.raises(LedgerError):
        migrate(
            database,
            lambda c: c.execute(text("ALTER TABLE regal_types ADD COLUMN more INTEGER")),
            lambda c: c.execute(text("no SQL")),
        )
    assert version(database) == len(MIGRATIONS)
    database.read(lambda connection: connection.execute(schema.types.select()).all())
    with pytest.raises(LedgerError):
        database.read(lambda connection: connection.execute(text("SELECT more FROM regal_types")))


def test_texts_of_people_are_compared_exactly(database):
    """``a`` is not ``A``, nor ``ä`` ``a``: databases differ in that, unless the columns say how."""
    names = ["a", "A", "ä", "é", "e\u0301"]
    rows = [{"account": "acme", "name": name, "type": str(number)} for number, name in enumerate(names)]
    database.write(lambda connection: connection.execute(schema.types.insert(), rows))
    found = database.read(
        lambda connection: connection.execute(
            schema.types.select().where(schema.types.c.name == "a").order_by(schema.types.c.name)
        ).all()
    )
    assert [row.name for row in found] == ["a"]
