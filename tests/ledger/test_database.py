"""The ledger's database when things go wrong: locked, read-only, full, killed, gone for a while."""

from __future__ import annotations

import logging
import os
import sqlite3
import stat
import subprocess
import threading
import time
import traceback
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import create_engine, create_mock_engine, event, text
from sqlalchemy.engine import make_url

from airflow_provider_regal.errors import LedgerError, WrongLedgerError
from airflow_provider_regal.ledger import database as module
from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.account import Account
from airflow_provider_regal.ledger.database import Database, sqlite_engine
from airflow_provider_regal.ledger.text import from_ledger_time
from tests.databases import EVERY, MARIADB, POSTGRES, SERVERS, administer, on
from tests.ledger.accounts import PHONE, DeliveryAccount, known, opt_in
from tests.ledger.proxy import Door
from tests.ledger.view import engine_of


@pytest.fixture
def opened():
    """Open databases; all are closed in the end."""
    made = []

    def open_it(engine, **options):
        made.append(Database(engine, **options))
        return made[-1]

    yield open_it
    for one in made:
        one.close()


def keep(database, name="plan"):
    """Write something."""
    Account(database, account="acme").register("key")
    database.write(lambda connection: Account(database, account="acme").keep_types(connection, {name: "str"}))


def kept(database):
    return set(Account(database, account="acme").types())


def told(caught):
    """All that a log would show of an error."""
    return "".join(traceback.format_exception(caught.value))


class TestFile:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "of its own" / "ledger.db"

    def test_it_is_for_its_owner_only(self, path, opened):
        keep(opened(sqlite_engine(path)))
        files = list(path.parent.iterdir())
        assert len(files) > 1, "the log beside the file holds rows, too"
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700

    def test_a_closed_one_leaves_no_connection_open(self, path):
        database = Database(sqlite_engine(path))
        keep(database)
        database.close()
        assert [file.name for file in path.parent.iterdir()] == ["ledger.db"]

    def test_a_folder_that_cannot_be_created_is_named(self, tmp_path):
        (tmp_path / "file").touch()
        with pytest.raises(LedgerError, match=r"file/ledger\.db cannot be opened for writing"):
            sqlite_engine(tmp_path / "file" / "ledger.db")

    def test_what_is_erased_is_gone_from_the_file(self, path, opened):
        database = opened(sqlite_engine(path))
        keep(database, "a-name-to-be-found")
        database.write(lambda connection: connection.execute(schema.types.delete()))
        database.write(lambda connection: connection.execute(text("CREATE TABLE more (x INTEGER)")))
        database.close()
        assert b"a-name-to-be-found" not in path.read_bytes()

    def test_a_read_only_one_is_named_as_such(self, path, opened):
        Database(sqlite_engine(path)).close()
        database = opened(create_engine(f"sqlite:///file:{path}?mode=ro&uri=true"), migrate=False)
        with pytest.raises(LedgerError, match="It is read-only: the worker's user must be able to write"):
            keep(database)

    def test_a_full_disk_is_named_as_such_and_leaves_what_was_there(self, path, opened):
        engine = sqlite_engine(path)
        database = opened(engine)
        keep(database)
        pages = database.read(lambda connection: connection.execute(text("PRAGMA page_count")).scalar_one())
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(f"PRAGMA max_page_count={pages}"))
        rows = [{"account": "acme", "name": f"name-{number}", "type": "x"} for number in range(5_000)]
        with pytest.raises(LedgerError, match="Its disk is full: free some space"):
            database.write(lambda connection: connection.execute(schema.types.insert(), rows))
        assert kept(database) == {"plan"}

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount a small disk")
    def test_a_disk_that_is_really_full(self, tmp_path, opened):
        disk = tmp_path / "disk"
        disk.mkdir()
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
            pytest.skip("no disk can be mounted here")
        try:
            database = Database(sqlite_engine(disk / "ledger.db"))
            keep(database)
            rows = [{"account": "acme", "name": f"name-{number}" * 10, "type": "x"} for number in range(20_000)]
            with pytest.raises(LedgerError, match="disk is full"):
                database.write(lambda connection: connection.execute(schema.types.insert(), rows))
            assert kept(database) == {"plan"}
            database.close()
        finally:
            subprocess.run(["umount", disk], check=True)

    def test_a_lock_held_too_long_is_named_as_such_in_the_time_that_was_set(self, path, opened, monkeypatch, caplog):
        monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 1)
        database = opened(sqlite_engine(path))
        database.patience_s = 0.5
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            with pytest.raises(LedgerError, match="locked or unreachable for too long"):
                keep(database)
            assert 0.9 < time.monotonic() - began < 3
            assert kept(database) == set(), "readers do not wait for the writer"

    def test_a_lock_that_is_released_is_waited_for_and_told_of(self, path, opened, monkeypatch, caplog):
        monkeypatch.setattr(module, "LOCK_TIMEOUT_S", 0.1)
        monkeypatch.setattr(module, "_SAID_AFTER_S", 0.3)
        database = opened(sqlite_engine(path))
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            threading.Timer(1.0, lambda: other.execute("ROLLBACK")).start()
            with caplog.at_level(logging.WARNING, "airflow_provider_regal"):
                keep(database)
        assert kept(database) == {"plan"}
        assert [record.message.partition(" for ")[0] for record in caplog.records] == ["Waiting"]
        assert "another transaction holds a lock" in caplog.text

    @pytest.mark.parametrize("hidden", [True, False])
    def test_an_error_names_nobody(self, hidden, path, opened):
        opened(sqlite_engine(path))
        database = opened(create_engine(f"sqlite:///{path}", hide_parameters=hidden))
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE regal_consents")
        with pytest.raises(LedgerError, match="nothing of this step was recorded") as caught:
            DeliveryAccount(database, "1", account="acme").claim([opt_in(5)])
        assert "no such table" in told(caught)
        assert caught.value.__cause__ is not None
        assert PHONE not in told(caught)


def test_a_database_of_another_kind_is_refused():
    engine = create_mock_engine("oracle://", lambda *_: None)
    with pytest.raises(WrongLedgerError, match=r"cannot live in oracle. Name a connection of PostgreSQL"):
        Database(engine)


@on(EVERY)
class TestEveryDatabase:
    @pytest.fixture
    def database(self, database_url, opened):
        return opened(engine_of(database_url))

    def test_a_row_that_is_there_already_is_not_quoted(self, database):
        row = {"account": "acme", "name": PHONE, "type": "str"}
        database.patience_s = 0.1
        with pytest.raises(LedgerError) as caught:
            database.write(lambda connection: [connection.execute(schema.types.insert(), [row]) for _ in range(2)])
        assert "IntegrityError" in told(caught) or "UniqueViolation" in told(caught)
        assert PHONE not in told(caught)

    def test_work_that_is_stopped_by_an_error_of_its_own_leaves_nothing(self, database):
        def work(connection):
            Account(database, account="acme").keep_types(connection, {"plan": "str"})
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            database.write(work)
        assert kept(database) == set()

    def test_the_time_is_the_databases_own_in_the_ledgers_form(self, database):
        def ask(connection):
            return connection.execute(text(f"SELECT {database.now_sql}")).scalar_one()

        there = from_ledger_time(database.read(ask))
        assert abs(there - datetime.now(UTC)) < timedelta(seconds=5)
        assert abs(database.now() - datetime.now(UTC)) < timedelta(seconds=5)
        assert database.now().tzinfo is UTC

    def test_every_wait_has_a_limit_and_nothing_is_compiled(self, database):
        asked = {
            "sqlite": ["PRAGMA busy_timeout", "PRAGMA synchronous", "PRAGMA secure_delete", "PRAGMA journal_mode"],
            "postgresql": [
                "SHOW lock_timeout", "SHOW statement_timeout", "SHOW idle_in_transaction_session_timeout", "SHOW jit",
            ],
            "mysql": [
                "SELECT @@innodb_lock_wait_timeout", "SELECT @@max_statement_time",
                "SELECT @@idle_transaction_timeout", "SELECT @@tx_isolation",
            ],
        }  # fmt: skip
        found = database.read(
            lambda connection: [connection.exec_driver_sql(one).scalar_one() for one in asked[database.dialect]]
        )
        expected = {
            "sqlite": [10_000, 2, 1, "wal"],
            "postgresql": ["10s", "1min", "10s", "off"],
            "mysql": [10, 60, 10, "READ-COMMITTED"],
        }
        assert found == expected[database.dialect]

    def test_writers_of_the_same_rows_wait_for_each_other_and_lose_nothing(self, database_url, database, opened):
        """Read, then write what was read: under a lock, or with a retry."""
        keep(database, "counter")

        def count_up(own):
            for _ in range(15):

                def work(connection):
                    where = schema.types.c.name == "counter"
                    now = connection.execute(schema.types.select().where(where).with_for_update()).one().type
                    number = 0 if now == "str" else int(now)
                    connection.execute(schema.types.update().where(where).values(type=str(number + 1)))

                own.write(work)

        threads = [threading.Thread(target=count_up, args=(opened(engine_of(database_url)),)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert Account(database, account="acme").types()["counter"][0] == "60"


@pytest.mark.slow
@on(SERVERS)
def test_a_process_that_freezes_within_a_transaction_loses_its_locks(database_url, opened):
    """The next try of its task needs them soon. When it wakes up, its transaction begins again."""
    frozen, other = opened(engine_of(database_url)), opened(engine_of(database_url))
    keep(frozen)
    locked, woken, seen = threading.Event(), threading.Event(), []

    def work(connection):
        seen.append(
            connection.execute(text("SELECT type FROM regal_types WHERE name = 'plan' FOR UPDATE")).scalar_one()
        )
        locked.set()
        woken.wait(60)
        connection.execute(text("UPDATE regal_types SET type = 'frozen'"))

    thread = threading.Thread(target=frozen.write, args=(work,))
    thread.start()
    assert locked.wait(10)
    began = time.monotonic()
    other.write(lambda connection: connection.execute(text("UPDATE regal_types SET type = 'other'")))
    waited_s = time.monotonic() - began
    woken.set()
    thread.join(30)

    assert 5 < waited_s < 20
    assert seen == ["str", "other"]
    assert Account(other, account="acme").types()["plan"][0] == "frozen"


@pytest.mark.services
class TestPostgresIsInTrouble:
    """A killed backend, a restart, a network that is gone: a transaction is tried again, within its patience."""

    @pytest.fixture
    def door(self):
        made = Door(make_url(POSTGRES).port or 5432)
        yield made
        made.shut()

    @pytest.fixture
    def database(self, postgres_url, door, opened):
        return opened(create_engine(make_url(postgres_url).set(port=door.port), hide_parameters=True))

    def kill_backends(self, database):
        name = database.read(lambda connection: connection.execute(text("SELECT current_database()")).scalar_one())
        administer(
            POSTGRES,
            f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'",
        )

    def test_a_connection_that_died_in_the_pool_costs_nothing(self, database):
        keep(database)
        self.kill_backends(database)
        keep(database, "more")
        assert kept(database) == {"plan", "more"}

    def test_a_backend_killed_within_a_transaction_is_begun_again(self, database):
        calls = []

        def work(connection):
            Account(database, account="acme").keep_types(connection, {f"call-{len(calls)}": "str"})
            calls.append(1)
            if len(calls) == 1:
                pid = connection.execute(text("SELECT pg_backend_pid()")).scalar_one()
                administer(POSTGRES, f"SELECT pg_terminate_backend({pid})")
            Account(database, account="acme").keep_types(connection, {"last": "str"})

        database.write(work)
        assert kept(database) == {"call-1", "last"}, "nothing of the first attempt"

    def test_a_server_that_is_gone_for_a_moment_is_waited_for(self, database, door):
        keep(database)
        door.shut()
        threading.Timer(2.0, door.open).start()
        keep(database, "more")
        assert kept(database) == {"plan", "more"}

    def test_a_server_that_stays_away_is_named_as_such(self, database, door):
        door.shut()
        database.patience_s = 1.0
        began = time.monotonic()
        with pytest.raises(LedgerError, match=r"Check that the database is up|unreachable for too long") as caught:
            keep(database)
        assert time.monotonic() - began < 5
        assert "OperationalError" in told(caught)

    def test_a_server_that_never_was_is_named_as_such(self, monkeypatch):
        monkeypatch.setattr(module, "_PATIENCE_S", 0.5)
        with pytest.raises(LedgerError, match="Check that the database is up"):
            Database(create_engine("postgresql+psycopg2://postgres@127.0.0.1:1/test"))

    def test_a_lock_held_by_somebody_else_is_waited_for_no_longer_than_the_limit(self, database, postgres_url):
        keep(database)
        database.patience_s = 0.1
        other = create_engine(postgres_url)
        with other.begin() as connection:
            connection.execute(text("LOCK TABLE regal_types IN ACCESS EXCLUSIVE MODE"))
            began = time.monotonic()
            with pytest.raises(LedgerError, match="locked or unreachable for too long"):
                keep(database, "more")
            assert 9 < time.monotonic() - began < 15
        other.dispose()

    def test_a_ledger_that_may_only_be_read_is_named_as_such(self, database, postgres_url, opened):
        options = {"options": "-c default_transaction_read_only=on"}
        reader = opened(create_engine(postgres_url, connect_args=options), migrate=False)
        with pytest.raises(LedgerError, match="It is read-only"):
            keep(reader)

    def test_a_server_that_takes_no_more_connections_is_named_as_such(self, database, postgres_url, monkeypatch):
        role = make_url(postgres_url).database
        administer(POSTGRES, f"CREATE ROLE {role} LOGIN CONNECTION LIMIT 0")
        monkeypatch.setattr(module, "_PATIENCE_S", 0.5)
        try:
            with pytest.raises(LedgerError, match="It takes no more connections"):
                Database(create_engine(make_url(postgres_url).set(username=role)))
        finally:
            administer(POSTGRES, f"DROP ROLE {role}")

    def test_a_unique_violation_names_its_code_and_no_value(self, database):
        row = {"account": "acme", "name": PHONE, "type": "str"}
        database.patience_s = 0.1
        with pytest.raises(LedgerError) as caught:
            database.write(lambda connection: connection.execute(schema.types.insert(), [row, row]))
        assert "UniqueViolation 23505" in told(caught)
        assert PHONE not in told(caught)


@pytest.mark.services
class TestMariaDbIsInTrouble:
    def test_a_connection_killed_in_the_pool_costs_nothing(self, mariadb_url, opened):
        database = opened(engine_of(mariadb_url))
        keep(database)
        number = database.read(lambda connection: connection.execute(text("SELECT CONNECTION_ID()")).scalar_one())
        administer(MARIADB, f"KILL {number}")
        keep(database, "more")
        assert kept(database) == {"plan", "more"}

    def test_a_lock_held_by_somebody_else_is_waited_for_no_longer_than_the_limit(self, mariadb_url, opened):
        database = opened(engine_of(mariadb_url))
        account = DeliveryAccount(database, "1", account="acme")
        account.claim([opt_in(5)])
        database.patience_s = 0.1
        other = create_engine(mariadb_url)
        with other.begin() as connection:
            connection.execute(text("SELECT * FROM regal_consents FOR UPDATE"))
            began = time.monotonic()
            with pytest.raises(LedgerError, match="locked or unreachable for too long"):
                account.claim([opt_in(6)])
            assert 9 < time.monotonic() - began < 15
        other.dispose()
        assert len(known(account)) == 1
