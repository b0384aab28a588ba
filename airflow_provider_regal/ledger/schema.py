"""The ledger's tables, and how to create and migrate them. ``docs/ledger.md`` explains them for queries.

Times are text in UTC (``2026-11-24T02:08:07.123456Z``): they sort as text and look the same in every database.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Any, Final

from sqlalchemy import (
    BigInteger,
    Column,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    inspect,
    literal_column,
    select,
    text,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.schema import CreateColumn

from airflow_provider_regal.errors import WrongLedgerError
from airflow_provider_regal.ledger.text import LONGEST_KEY, LONGEST_NAME, TIME_LENGTH

LONGEST_MESSAGE: Final = 1_000
_HASH: Final = 64
_CHANNEL: Final = 16
_WORD: Final = 32

metadata: Final = MetaData()


def _exact(length: int) -> Any:
    """Return a text type that is case sensitive and sorts by code point, as in Python, in every database."""
    binary = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    return (
        String(length)
        .with_variant(String(length, collation="C"), "postgresql")
        .with_variant(binary, "mysql")
        .with_variant(binary, "mariadb")
    )


def _words(length: int) -> Any:
    wide = mysql.VARCHAR(length, charset="utf8mb4")
    return String(length).with_variant(wide, "mysql").with_variant(wide, "mariadb")


def _long_text() -> Any:
    wide = mysql.LONGTEXT(charset="utf8mb4")
    return Text().with_variant(wide, "mysql").with_variant(wide, "mariadb")


def _bytes() -> Any:
    return LargeBinary().with_variant(mysql.LONGBLOB(), "mysql").with_variant(mysql.LONGBLOB(), "mariadb")


def _number() -> Any:
    return BigInteger().with_variant(sqlite.INTEGER(), "sqlite")


def _time(name: str, **options: Any) -> Column[Any]:
    return Column(name, _exact(TIME_LENGTH), **options)


schema_version: Final = Table(
    "regal_schema",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("version", Integer, nullable=False),
    Column("salt", String(_HASH), nullable=False),  # of the hashes of API keys
)
accounts: Final = Table(
    "regal_accounts",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("api_key_hash", String(_HASH)),
    Column("identifiers", String(_HASH)),  # how they are stored: "plain", or the mark of a ledger_key
)
deliveries: Final = Table(
    "regal_deliveries",
    metadata,
    Column("id", _number(), primary_key=True, autoincrement=True),
    Column("place", String(_HASH), nullable=False),  # hash of dag, run, task, map index, name and account
    Column("incarnation", Integer, nullable=False),  # increases if a run was deleted and created again, or restarted
    Column("account", _exact(LONGEST_KEY), nullable=False),
    Column("dag_id", _exact(LONGEST_NAME)),
    Column("run_id", _exact(LONGEST_NAME)),
    Column("task_id", _exact(LONGEST_NAME)),
    Column("map_index", Integer, nullable=False),
    Column("name", _exact(LONGEST_NAME)),
    Column("call", String(_WORD), nullable=False),
    Column("source", String(_HASH), nullable=False),  # fingerprint of connection, rendered SQL, paths
    Column("options", String(_HASH)),  # fingerprint of the options that affect the result for a row
    Column("plan", _long_text()),  # JSON: for a plan, the options with which it is sent
    Column("sender", _long_text()),  # JSON: for a plan, the task instance that sends it
    Column("conn_id", _exact(LONGEST_NAME)),  # the connection that its last try used
    Column("epoch", Integer, nullable=False),  # increases with each clear of a finished task
    Column("try_number", Integer, nullable=False),
    Column("restarted", SmallInteger, nullable=False),
    Column("holder", String(_HASH)),  # the try that writes; NULL when released
    Column("last_write", String(_HASH)),  # of the holder: detects a commit whose answer was lost
    _time("held_at"),  # time of its last commit, by the database's clock
    Column("hold_s", Integer, nullable=False),  # seconds after that in which its requests may still be in flight
    Column("state", String(_WORD), nullable=False),
    Column("kept_rows", Integer),  # in the snapshot; NULL until the source was read completely
    Column("read_rows", Integer, nullable=False),
    Column("acknowledged", Integer, nullable=False),
    Column("rejected", Integer, nullable=False),
    Column("unknown", Integer, nullable=False),
    Column("skipped", Integer, nullable=False),
    Column("rate", Integer),  # requests/s it wants
    Column("counts", _long_text()),  # JSON: why rows were skipped, requests, repeats, outages, seconds, plan
    Column("error", _words(LONGEST_MESSAGE)),
    _time("started_at", nullable=False),
    _time("ended_at"),
    Index("regal_deliveries_place", "place", "incarnation", unique=True),
    Index("regal_deliveries_started", "account", "started_at"),
    # MySQL allows 3,072 bytes: the names are cut, only there.
    Index("regal_deliveries_task", "dag_id", "task_id", "started_at", mysql_length={"dag_id": 190, "task_id": 190}),
    sqlite_autoincrement=True,  # an id is never reused
)
tries: Final = Table(
    "regal_tries",
    metadata,
    Column("delivery", _number(), primary_key=True, autoincrement=False),
    Column("number", Integer, primary_key=True, autoincrement=False),  # of the delivery's tries, from 1
    Column("try_number", Integer, nullable=False),  # Airflow's
    _time("began_at", nullable=False),
    _time("ended_at"),
    Column("state", String(_WORD), nullable=False),
    Column("acknowledged", Integer, nullable=False),  # rows that got this outcome in this try
    Column("rejected", Integer, nullable=False),
    Column("unknown", Integer, nullable=False),
    Column("error", _words(LONGEST_MESSAGE)),
    Column("began_with", String(_HASH), nullable=False),  # JSON: the delivery's counts when it began
    Column("pace", _long_text()),  # JSON: [seconds of sending, rows acknowledged so far in this try], a few dozen
    sqlite_with_rowid=False,
)
row_chunks: Final = Table(
    "regal_row_chunks",
    metadata,
    Column("delivery", _number(), primary_key=True, autoincrement=False),
    Column("chunk", Integer, primary_key=True, autoincrement=False),
    Column("rows", _bytes(), nullable=False),  # 1,000 rows, compressed
    Column("states", _bytes(), nullable=False),  # one byte a row
)
outcomes: Final = Table(
    "regal_outcomes",
    metadata,
    Column("delivery", _number(), primary_key=True, autoincrement=False),
    Column("position", Integer, primary_key=True, autoincrement=False),  # row of the source, from 1
    Column("account", _exact(LONGEST_KEY), nullable=False),
    Column("place", _words(LONGEST_NAME)),  # file and line, if the source is a file
    Column("call", String(_WORD), nullable=False),
    Column("event", _words(LONGEST_NAME)),
    Column("user_id", _exact(LONGEST_KEY)),
    Column("phone", _exact(LONGEST_KEY)),
    Column("email", _exact(LONGEST_KEY)),
    Column("status", String(_WORD), nullable=False),
    Column("reason", _words(LONGEST_KEY)),
    Column("field", _words(LONGEST_KEY)),
    Column("message", _words(LONGEST_MESSAGE)),
    Column("attempts", Integer, nullable=False),
    _time("first_at", nullable=False),
    _time("last_at", nullable=False),
    Column("payload_hash", String(_HASH)),
    Column("form", String(_WORD)),  # the kind of payload: body, event, row, consent, unreadable
    Column("payload", _long_text()),  # JSON; only of a dead letter
    Column("consents", _long_text()),  # JSON: what else a redelivery has to ask the ledger for
    Column("redelivered_by", _number()),  # the delivery that took it
    _time("found_at"),  # when somebody reported that Regal has this unknown row
    sqlite_with_rowid=False,
)
# For a person's timeline, and to find rows that were rejected before.
Index("regal_outcomes_user", outcomes.c.user_id)
Index("regal_outcomes_phone", outcomes.c.phone)
Index("regal_outcomes_email", outcomes.c.email)
_dead: Final = outcomes.c.payload.is_not(None)
Index("regal_outcomes_dead", outcomes.c.payload_hash, postgresql_where=_dead, sqlite_where=_dead)
# For the few rows of a delivery that were not delivered.
_not_delivered: Final = outcomes.c.status != literal_column("'acknowledged'")
Index(
    "regal_outcomes_failed",
    outcomes.c.delivery,
    outcomes.c.status,
    outcomes.c.position,
    postgresql_where=_not_delivered,
    sqlite_where=_not_delivered,
)
contacts: Final = Table(
    "regal_contacts",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("contact", _exact(LONGEST_KEY), primary_key=True),  # the value of its key column
    Column("row_hash", String(_HASH)),  # of the row Regal last acknowledged
    Column("payload_hash", String(_HASH)),
    _time("acknowledged_at", nullable=False),
    Column("delivery", _number()),
    sqlite_with_rowid=False,
)
contact_phones: Final = Table(
    "regal_contact_phones",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("user_id", _exact(LONGEST_KEY), primary_key=True),
    Column("phone", _exact(LONGEST_KEY), primary_key=True),
    Index("regal_contact_phones_by_phone", "account", "phone"),
    sqlite_with_rowid=False,
)
messages: Final = Table(
    "regal_messages",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("message_id", _exact(LONGEST_KEY), primary_key=True),
    Column("state", String(_WORD), nullable=False),
    Column("doubt", String(_WORD)),
    _time("acknowledged_at"),
    Column("delivery", _exact(_HASH)),
    _time("changed_at"),
    sqlite_with_rowid=False,
)
consents: Final = Table(
    "regal_consents",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("identifier", _exact(LONGEST_KEY), primary_key=True),  # phone, email, or user:<id>
    Column("channel", _exact(_CHANNEL), primary_key=True),
    Column("subscribed", SmallInteger),  # what Regal has: 1, 0, or NULL for nothing
    _time("evidence_at"),  # since when
    _time("opt_out_at"),  # of the newest opt-out read: no opt-in up to then is sent
    Column("opt_out_source", _exact(LONGEST_NAME)),  # the task that read it
    Column("opt_out_delivery", _exact(_HASH)),  # and its delivery
    _time("owed_since"),  # since when Regal lacks that opt-out; NULL if it lacks none
    _time("inferred_at"),  # of the newest inferred opt-out: the person vanished from a sync's source
    Column("state", String(_WORD), nullable=False),
    Column("pending_subscribed", SmallInteger),  # what is being sent, or is unknown
    _time("pending_at"),
    Column("doubt", String(TIME_LENGTH + 4)),
    _time("acknowledged_at"),
    Column("source", _exact(LONGEST_NAME)),  # the task that sent it
    Column("delivery", _exact(_HASH)),
    _time("changed_at"),
    Column("row_hash", String(_HASH)),
    sqlite_with_rowid=False,  # rows are stored in the order of their key, in which they are read
)
# Few opt-outs are owed at any time. MySQL has no partial indexes, so its index contains all rows.
_owed: Final = consents.c.owed_since.is_not(None)
Index(
    "regal_consents_owed",
    *(consents.c[name] for name in ("account", "owed_since", "identifier", "channel")),
    postgresql_where=_owed,
    sqlite_where=_owed,
)
consent_texts: Final = Table(
    "regal_consent_texts",
    metadata,
    Column("text_hash", String(_HASH), primary_key=True),
    Column("text", _long_text(), nullable=False),  # what people agreed to; each text is stored once
)
consent_log: Final = Table(
    "regal_consent_log",
    metadata,
    Column("id", _number(), primary_key=True, autoincrement=True),
    Column("account", _exact(LONGEST_KEY), nullable=False),
    Column("identifier", _exact(LONGEST_KEY), nullable=False),
    Column("channel", _exact(_CHANNEL), nullable=False),
    Column("subscribed", SmallInteger, nullable=False),
    _time("given_at"),  # when the person decided, if the source says so
    Column("ip", String(_HASH)),
    Column("text_hash", String(_HASH)),
    Column("form", _words(LONGEST_NAME)),  # where it was collected
    Column("task", _exact(LONGEST_NAME)),  # dag_id.task_id, kept after the delivery is deleted
    Column("delivery", _exact(_HASH)),
    Column("position", Integer),
    Column("place", _words(LONGEST_NAME)),  # file and line, if the source is a file
    Column("status", String(_WORD), nullable=False),  # acknowledged, unknown, refused, withheld, recorded
    Column("reason", _words(LONGEST_MESSAGE)),
    _time("acknowledged_at"),  # when Regal answered
    _time("logged_at", nullable=False),
    Index("regal_consent_log_person", "identifier"),
    Index("regal_consent_log_delivery", "delivery"),
    sqlite_autoincrement=True,
)
suppressions: Final = Table(
    "regal_suppressions",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("identifier", _exact(LONGEST_KEY), primary_key=True),  # phone, email or user:<id>; if forgotten, a hash
    Column("kind", String(_WORD), nullable=False),  # suppressed, forgotten
    _time("added_at", nullable=False),
    Column("added_by", _words(LONGEST_NAME)),
    Column("source", _words(LONGEST_NAME)),
    Column("note", _words(LONGEST_MESSAGE)),
    Column("opt_outs", _long_text()),  # JSON: channel -> time of a forgotten person's newest opt-out
    Index("regal_suppressions_kind", "account", "kind"),
    sqlite_with_rowid=False,
)
senders: Final = Table(
    "regal_senders",  # who currently shares the account's rate limit
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("sender", String(_HASH), primary_key=True),  # the holder of a delivery, or "single events"
    Column("wants", Integer, nullable=False),  # requests/s it could use
    Column("granted", Integer, nullable=False),  # requests/s it may send
    Column("rate_limit", Integer, nullable=False),  # of its connection
    _time("until", nullable=False),  # after that it has stopped, unless it has committed again
    _time("next_at"),  # for single events: the next free slot
    _time("draining_until"),  # for single events: what was granted is valid until then
    sqlite_with_rowid=False,
)
types: Final = Table(
    "regal_types",
    metadata,
    Column("account", _exact(LONGEST_KEY), primary_key=True),
    Column("name", _exact(LONGEST_KEY), primary_key=True),
    Column("type", String(_WORD), nullable=False),
    _time("since"),
)


def _create(connection: Connection) -> None:
    metadata.create_all(connection, tables=[table for table in metadata.sorted_tables if table is not schema_version])


def _add_tries(connection: Connection) -> None:
    _add_column(connection, deliveries.c.conn_id)
    tries.create(connection, checkfirst=True)


def _add_found_at(connection: Connection) -> None:
    _add_column(connection, outcomes.c.found_at)


def _add_column(connection: Connection, column: Column[Any]) -> None:
    if column.name not in {one["name"] for one in inspect(connection).get_columns(column.table.name)}:
        told = CreateColumn(column).compile(dialect=connection.dialect)
        connection.execute(text(f"ALTER TABLE {column.table.name} ADD COLUMN {told}"))


# Each migrates from the version before it; migrations are only ever added. A step checks what exists: the first one
# creates the newest tables, and a database that commits each change of a table may have done half of a step.
MIGRATIONS: Final[Sequence[Callable[[Connection], None]]] = (_create, _add_tries, _add_found_at)


def version_of(connection: Connection) -> int | None:
    """Return the version of the tables; None if there are none."""
    if not inspect(connection).has_table(schema_version.name):
        return None
    found: int | None = connection.execute(select(schema_version.c.version)).scalar()
    return found


def upgrade(connection: Connection, migrations: Sequence[Callable[[Connection], None]] = MIGRATIONS) -> int:
    """Create the tables, or migrate them to this version; in one transaction if the database supports it.

    If two processes do it at once, the second fails on what the first created and has to try again.

    :param migrations: each migrates from the previous version.
    :returns: how many migrations were applied.
    :raises WrongLedgerError: a newer version of this package created them.
    """
    metadata.create_all(connection, tables=[schema_version])
    version = schema_version.c.version
    found = connection.execute(select(version)).scalar()
    if found is None:
        connection.execute(schema_version.insert(), {"id": 1, "version": 0, "salt": secrets.token_hex(16)})
        found = 0
    if found < len(migrations):  # another process may have done it while we waited for the lock
        found = connection.execute(select(version).with_for_update()).scalar_one()
    if found > len(migrations):
        raise WrongLedgerError(
            f"The ledger has schema version {found}; this airflow-provider-regal knows versions up to "
            f"{len(migrations)}. Upgrade airflow-provider-regal on every worker, or name another database in "
            "ledger_conn_id."
        )
    for number in range(found, len(migrations)):
        migrations[number](connection)
        connection.execute(schema_version.update().values(version=number + 1))
    return len(migrations) - int(found)
