"""The temporary database of a sync, in which the source's consents are compared with the ledger's.

The ledger's consents are copied into it, so comparing takes set operations in one local SQLite file, whatever database
the ledger is in. Only the hashes of known rows are in memory. From an SQLite ledger, only these are read at first;
later, whatever the source did not repeat.

::

    ledger ─▶ known ─┐
                     ├─▶ compare ─▶ opt-outs, opt-ins, removed, stale, unchanged
    source ─▶ wanted ┘
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from airflow_provider_regal.delivery.sync.known_rows import COUNT_AT, KNOWN_BY, KnownRows

_TABLES: Final = """
CREATE TABLE known (
    key TEXT, channel TEXT, subscribed INTEGER, evidence_at TEXT, opt_out_at TEXT, state TEXT,
    pending_subscribed INTEGER, pending_at TEXT, source TEXT, inferred_at TEXT, row_hash TEXT,
    PRIMARY KEY (key, channel)
) WITHOUT ROWID;
CREATE TABLE unseen (row_hash TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE wanted (
    key TEXT, channel TEXT, at TEXT, subscribed INTEGER, timeless INTEGER, identifier TEXT, user_id TEXT, ip TEXT,
    text TEXT, source TEXT, row_hash TEXT, source_row INTEGER, place TEXT, rows INTEGER, PRIMARY KEY (key, channel)
) WITHOUT ROWID;
CREATE TABLE opt_outs (
    key TEXT, channel TEXT, identifier TEXT, at TEXT, PRIMARY KEY (key, channel)
) WITHOUT ROWID;
CREATE TABLE mentioned (key TEXT, channel TEXT, PRIMARY KEY (key, channel)) WITHOUT ROWID;
CREATE TABLE doubted (key TEXT, channel TEXT, at TEXT, PRIMARY KEY (key, channel)) WITHOUT ROWID;
CREATE TABLE unfit (row TEXT, place TEXT, faults TEXT, loses_a_decision INTEGER, person TEXT);
"""
_WANT: Final = """
INSERT INTO wanted VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1) ON CONFLICT (key, channel) DO UPDATE SET
    rows = rows + 1, at = {at}, subscribed = {subscribed}, timeless = {timeless}, identifier = {identifier},
    user_id = {user_id}, ip = {ip}, text = {text}, source = {source}, row_hash = {row_hash}, source_row = {source_row},
    place = {place}
"""
_NEWER: Final = "(excluded.at > at OR (excluded.at = at AND excluded.subscribed < subscribed))"
_WANT_NEWEST: Final = _WANT.format(
    **{
        name: f"CASE WHEN {_NEWER} THEN excluded.{name} ELSE {name} END"
        for name in (
            "at",
            "subscribed",
            "timeless",
            "identifier",
            "user_id",
            "ip",
            "text",
            "source",
            "row_hash",
            "source_row",
            "place",
        )
    }
)
_OPT_OUT: Final = """
INSERT INTO opt_outs VALUES (?, ?, ?, ?) ON CONFLICT (key, channel) DO UPDATE
SET at = max(at, excluded.at)
"""
_DOUBT: Final = """
INSERT INTO doubted VALUES (?, ?, ?) ON CONFLICT (key, channel) DO UPDATE SET at = max(at, excluded.at)
"""
_KNOWN: Final = """identifier, channel, subscribed, evidence_at, opt_out_at, state, pending_subscribed, pending_at,
    source, inferred_at, row_hash"""
_HASHES: Final = f"""
SELECT substr(row_hash, 1, {KNOWN_BY}) || substr(row_hash, {COUNT_AT + 1}, 1)
FROM {{}} WHERE row_hash IS NOT NULL AND state = 'acknowledged'
"""  # noqa: S608 - made of constants
_OF_ACCOUNT: Final = " AND account = ?"
# An opt-out without a time is nothing new if the newest decision that Regal has, or may have, is an opt-out.
_TIMELESS: Final = """
UPDATE wanted SET at = coalesce((
    SELECT CASE WHEN k.subscribed = 0 THEN k.evidence_at ELSE k.opt_out_at END FROM known k
    WHERE k.key = wanted.key AND k.channel = wanted.channel
    AND (k.subscribed IS NOT 1 OR k.opt_out_at >= k.evidence_at)
    AND (k.pending_subscribed IS NOT 1 OR k.opt_out_at >= k.pending_at)
), at) WHERE timeless
"""
_SEEN: Final = f"""(k.row_hash IS NOT NULL AND k.state = 'acknowledged'
    AND substr(k.row_hash, 1, {KNOWN_BY}) NOT IN (SELECT row_hash FROM unseen))"""  # noqa: S608 - made of constants
_COPY_WANTED: Final = f"""
INSERT OR REPLACE INTO known SELECT {", ".join(f"k.{column.strip()}" for column in _KNOWN.split(","))}
FROM wanted w CROSS JOIN ledger.regal_consents k
WHERE k.account = ? AND k.identifier = w.key AND k.channel = w.channel
"""  # noqa: S608 - made of constants
# Read together with the hashes: people another run starts sending later must not look removed from the source.
_COPY_OPEN: Final = f"""
INSERT INTO known SELECT {_KNOWN} FROM ledger.regal_consents
WHERE account = ? AND (row_hash IS NULL OR state <> 'acknowledged')
"""  # noqa: S608 - made of constants
_COPY_UNSEEN: Final = f"""
INSERT OR IGNORE INTO known SELECT {_KNOWN} FROM ledger.regal_consents k
WHERE account = ? AND substr(row_hash, 1, {KNOWN_BY}) IN (SELECT row_hash FROM unseen)
"""  # noqa: S608 - made of constants
# A person who was opted out for vanishing from this source has returned.
_COMES_BACK: Final = """(k.inferred_at IS NOT NULL AND k.source = :source AND (
        (k.subscribed = 0 AND k.evidence_at = k.inferred_at)
        OR (k.pending_subscribed = 0 AND k.pending_at = k.inferred_at)
    ))"""
# Older than a row that the source still has and that was not read again: no news, and nothing is withheld.
_KIND: Final = f"""
CASE
    WHEN (w.at < k.evidence_at OR (w.at = k.evidence_at AND w.subscribed AND NOT k.subscribed))
        AND {_SEEN} THEN 'superseded'
    WHEN w.subscribed AND w.at <= (SELECT d.at FROM doubted d WHERE d.key = w.key AND d.channel = w.channel)
        THEN 'stale'
    WHEN w.subscribed AND w.at <= k.opt_out_at THEN 'stale'
    WHEN w.subscribed AND {_COMES_BACK} THEN 'changed'
    WHEN w.at < k.evidence_at OR (w.at = k.evidence_at AND w.subscribed AND NOT k.subscribed) THEN 'stale'
    WHEN w.subscribed = k.subscribed AND w.at = k.evidence_at THEN 'unchanged'
    WHEN :once AND w.subscribed AND k.state IN ('sending', 'unknown') AND k.pending_at = w.at
        AND k.pending_subscribed = w.subscribed THEN 'in_doubt'
    WHEN k.evidence_at IS NULL THEN 'new'
    ELSE 'changed'
END
"""  # noqa: S608 - made of constants
_COMPARE: Final = f"""
CREATE TABLE compared AS
SELECT w.*, {_KIND} AS kind, k.subscribed IS NOT NULL AND k.subscribed <> w.subscribed AS flips,
    w.row_hash IS NOT k.row_hash AND (k.row_hash IS NULL OR k.source = :source) AS another_row,
    {_SEEN} AND k.state = 'acknowledged' AS was_seen
FROM wanted w LEFT JOIN known k ON k.key = w.key AND k.channel = w.channel
"""  # noqa: S608 - made of constants
_REMOVED: Final = f"""
CREATE TABLE removed AS
SELECT key, channel, subscribed FROM known k WHERE source = ? AND evidence_at IS NOT NULL
AND NOT {_SEEN}
AND NOT EXISTS (SELECT 1 FROM wanted w WHERE w.key = k.key AND w.channel = k.channel)
AND NOT EXISTS (SELECT 1 FROM mentioned m WHERE m.key = k.key AND m.channel = k.channel)
"""  # noqa: S608 - made of constants
# Several rows may share a hash, and a row that was not read again may be older than one that was.
_OVERTAKEN: Final = "SELECT count(*) FROM compared WHERE kind = 'changed' AND was_seen"
_TO_SEND: Final = """
SELECT identifier, channel, subscribed, at, timeless, user_id, ip, text, source, row_hash, source_row, place
FROM compared
WHERE subscribed = ? AND (kind IN ('new', 'changed') OR (? AND kind = 'unchanged'))
ORDER BY coalesce('user:' || user_id, identifier), identifier, channel
"""
_BATCH: Final = 1_000


class Wanted(NamedTuple):
    """The source's newest decision for one phone or email on one channel.

    :param at: in the ledger's form.
    :param source_row: the row's number in the source, from 1; 0 if it is in none.
    :param place: file and line, or the row number, in words.
    """

    identifier: str
    channel: str
    subscribed: int
    at: str
    timeless: int
    user_id: str | None
    ip: str | None
    text: str | None
    source: str | None
    row_hash: str | None
    source_row: int = 0
    place: str | None = None


class SyncStore:
    """The working database of one sync, deleted when closed."""

    def __init__(self) -> None:
        # An empty name makes a temporary file, which SQLite deletes. Several threads use it, one after the other.
        self._db = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
        self._rows = KnownRows(())
        self._ledger: tuple[str, str] | None = None
        self._db.execute("BEGIN")

    def know(self, consents: Iterable[Sequence[Any]]) -> None:
        """Copy what the ledger knows, from streamed rows."""
        self._db.executemany("INSERT INTO known VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", consents)
        self._rows = KnownRows(one for (one,) in self._db.execute(_HASHES.format("known")))

    def know_file(self, file: str, account: str) -> None:
        """Read which rows an SQLite ledger knows; the rest is read after the source."""
        self._ledger = (file, account)
        with self._attached(file):
            self._db.execute("BEGIN")  # one consistent view for both reads
            hashes = self._db.execute(_HASHES.format("ledger.regal_consents") + _OF_ACCOUNT, (account,))
            self._rows = KnownRows(one for (one,) in hashes)
            self._db.execute(_COPY_OPEN, (account,))
            self._db.execute("COMMIT")

    @contextmanager
    def _attached(self, file: str) -> Iterator[None]:
        self._db.execute("COMMIT")  # SQLite can't attach a database within a transaction
        self._db.execute("ATTACH ? AS ledger", (file,))
        yield
        self._db.execute("DETACH ledger")
        self._db.execute("BEGIN")

    def unchanged(self, hashes: Sequence[str]) -> list[int]:
        """Return the number of consents of each row if the row is unchanged and all were acknowledged, else 0.

        Also records that the source still has them.
        """
        return self._rows.see(hashes)

    def want(self, key: str, wanted: Wanted) -> None:
        """Add a decision; of several rows the newest wins, at equal times the opt-out.

        :param key: the identifier in the ledger's form.
        """
        identifier, channel, subscribed, at, timeless, user_id, ip, text, source, row_hash, source_row, place = wanted
        self._db.execute(
            _WANT_NEWEST,
            (
                key, channel, at, subscribed, timeless, identifier, user_id, ip, text, source, row_hash, source_row,
                place,
            ),
        )  # fmt: skip
        if not subscribed:
            self.bar(key, wanted)

    def bar(self, key: str, opt_out: Wanted) -> None:
        """Record that an opt-out was read, whether it can be sent or not."""
        self._db.execute(_OPT_OUT, (key, opt_out.channel, opt_out.identifier, opt_out.at))

    def mention(self, key: str, channel: str) -> None:
        """Record a person who is still in the source, although the row can't be used."""
        self._db.execute("INSERT OR IGNORE INTO mentioned VALUES (?, ?)", (key, channel))

    def doubt(self, key: str, channel: str, at: str) -> None:
        """Record an unreadable decision: no yes of that time or before is sent."""
        self._db.execute(_DOUBT, (key, channel, at))

    def reject(self, row: str, place: str, faults: str, person: Sequence[str] = (), *, loses_a_decision: bool) -> None:
        """Store a row that can never be sent.

        :param place: its place in the source.
        :param person: the identifiers of its person, as far as they can be read.
        :param loses_a_decision: it is a no, or can't be read as yes or no.
        """
        told = (row, place, faults, loses_a_decision, json.dumps(person))
        self._db.execute("INSERT INTO unfit VALUES (?, ?, ?, ?, ?)", told)

    def compare(self, *, once: bool, source: str) -> None:
        """Compare both sides, once both are complete.

        :param once: what may have been sent must not be sent again.
        :param source: only consents last acknowledged from this source can count as removed from it.
        """
        self._db.executemany("INSERT OR IGNORE INTO unseen VALUES (?)", ((one,) for one in self._rows.unseen()))
        if self._ledger is not None:
            file, account = self._ledger
            with self._attached(file):
                self._db.execute(_COPY_WANTED, (account,))
                self._db.execute(_COPY_UNSEEN, (account,))
        self._db.execute(_TIMELESS)
        self._db.execute(_COMPARE, {"once": once, "source": source})
        self._db.execute(_REMOVED, (source,))

    def count(self, kind: str) -> int:
        """Count the results of a kind."""
        return self._number("SELECT count(*) FROM compared WHERE kind = ?", kind)

    @property
    def still(self) -> int:
        """Count the unchanged consents of rows that were not read again."""
        return self._rows.seen - self._number(_OVERTAKEN)

    @property
    def superseded(self) -> int:
        """Count the rows that a newer row of the source supersedes."""
        return self._number("SELECT coalesce(sum(rows - 1), 0) FROM wanted") + self.count("superseded")

    def count_flips(self, *, subscribed: bool) -> int:
        """Count the consents that would flip.

        :param subscribed: the new decision.
        """
        where = "flips AND kind = 'changed' AND subscribed = ?"
        return self._number(f"SELECT count(*) FROM compared WHERE {where}", int(subscribed))  # noqa: S608

    def flips(self, *, subscribed: bool) -> Iterator[Wanted]:
        """Return the consents that would flip, in source order."""
        return self._compared(f"flips AND kind = 'changed' AND subscribed = {int(subscribed)} ORDER BY source_row")

    def removed(self, *, subscribed: bool) -> int:
        """Count the known consents that the source no longer has."""
        return self._number("SELECT count(*) FROM removed WHERE subscribed = ?", int(subscribed))

    def to_send(self, *, subscribed: bool, unchanged: bool) -> Iterator[Wanted]:
        """Return the differences, contact by contact.

        :param unchanged: also return what does not differ.
        """
        return map(Wanted._make, self._db.cursor().execute(_TO_SEND, (int(subscribed), unchanged)))

    def gone(self) -> Iterator[tuple[str, str]]:
        """Return key and channel of subscribed people who are no longer in the source."""
        return self._db.cursor().execute("SELECT key, channel FROM removed WHERE subscribed = 1 ORDER BY key, channel")

    def stale(self) -> Iterator[Wanted]:
        """Return decisions older than those on record."""
        return self._compared("kind = 'stale'")

    def unchanged_consents(self) -> Iterator[Wanted]:
        """Return decisions that are already on record."""
        return self._compared("kind = 'unchanged'")

    def said_again(self) -> Iterator[Wanted]:
        """Return decisions that are already on record, but from a different row."""
        return self._compared("kind = 'unchanged' AND another_row")

    def opt_outs(self) -> Iterator[tuple[str, str, str]]:
        """Return every opt-out that was read: identifier, channel, and newest time (of reading, if it has none)."""
        return self._db.cursor().execute("SELECT identifier, channel, at FROM opt_outs")

    def unfit(self) -> Iterator[tuple[str, str, str, int, list[str]]]:
        """Return what can never be sent: row, place, faults, whether a decision is lost, and the person."""
        found = self._db.cursor().execute(
            "SELECT row, place, faults, loses_a_decision, person FROM unfit ORDER BY rowid"
        )
        return ((*one[:4], json.loads(one[4])) for one in found)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    def _compared(self, where: str) -> Iterator[Wanted]:
        columns = ", ".join(Wanted._fields)
        return map(Wanted._make, self._db.cursor().execute(f"SELECT {columns} FROM compared WHERE {where}"))  # noqa: S608

    def _number(self, query: str, *values: object) -> int:
        return int(self._db.execute(query, values).fetchone()[0])
