"""Empty ledgers in real databases: SQLite in a file, PostgreSQL and MariaDB if they run (marked ``services``)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine
from sqlalchemy.engine import make_url

POSTGRES = os.environ.get("REGAL_TEST_POSTGRES", "postgresql+psycopg2://postgres@127.0.0.1:5432/postgres")
MARIADB = os.environ.get("REGAL_TEST_MARIADB", "mysql+pymysql://root@127.0.0.1:3306/test")

SERVERS = [
    pytest.param("postgresql", marks=pytest.mark.services),
    pytest.param("mariadb", marks=pytest.mark.services),
]
PROVED = ["sqlite", SERVERS[0]]  #: what promises are tested on
EVERY = ["sqlite", *SERVERS]


def administer(url: str, *statements: str) -> None:
    """Run statements outside a transaction."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    engine.dispose()


def _server(url: str, drop: str) -> Iterator[str]:
    name = f"regal_test_{uuid4().hex[:16]}"
    administer(url, f"CREATE DATABASE {name}")
    yield make_url(url).set(database=name).render_as_string(hide_password=False)
    administer(url, drop.format(name))


@pytest.fixture
def postgres_url() -> Iterator[str]:
    """Create a database for one test; yields its URL."""
    yield from _server(POSTGRES, "DROP DATABASE {} WITH (FORCE)")


@pytest.fixture(scope="module")
def postgres_for_module() -> Iterator[str]:
    """Create a database for the tests of a module; returns its URL."""
    yield from _server(POSTGRES, "DROP DATABASE {} WITH (FORCE)")


@pytest.fixture
def mariadb_url() -> Iterator[str]:
    """Create a database for one test; returns its URL."""
    yield from _server(MARIADB, "DROP DATABASE {}")


@pytest.fixture
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return the URL of an empty ledger; parametrize it indirectly with the kinds above, else it is SQLite's."""
    kind = getattr(request, "param", "sqlite")
    if kind == "sqlite":
        return f"sqlite:///{tmp_path / 'ledger.db'}"
    url: str = request.getfixturevalue({"postgresql": "postgres_url", "mariadb": "mariadb_url"}[kind])
    return url


def on(kinds: list[object]) -> Callable:
    """Run a test on databases of these kinds."""
    return pytest.mark.parametrize("database_url", kinds, indirect=True)
