"""Ledgers in every database."""

from __future__ import annotations

import pytest

from airflow_provider_regal.ledger import entries
from tests.databases import EVERY
from tests.ledger.accounts import Accounts
from tests.ledger.view import engine_of


def where_of(kind, request, tmp_path):
    """Return the location of an empty ledger in a kind of database."""
    if kind == "sqlite":
        return tmp_path / "of its own" / "ledger.db"
    return request.getfixturevalue("postgres_url" if kind == "postgresql" else "mariadb_url")


@pytest.fixture
def portable(monkeypatch):
    """Use only standard SQL with SQLite, as with any other database."""
    monkeypatch.setattr(entries, "_BULK_UPDATES", {})
    entries.Entries._update_of.cache_clear()
    yield
    entries.Entries._update_of.cache_clear()


@pytest.fixture(params=EVERY)
def accounts(request, tmp_path):
    """Makes accounts over one empty ledger."""
    where = where_of(request.param, request, tmp_path)
    made = Accounts(lambda: engine_of(where))
    made.where = where
    yield made
    made.close()
