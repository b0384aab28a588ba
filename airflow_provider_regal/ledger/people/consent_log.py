"""The consent log: the evidence of each decision that was sent, withheld or recorded.

Lines are added and never changed. They are only removed when a person is erased, or after ``consent_days``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from sqlalchemy import delete, select
from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.entries import batches
from airflow_provider_regal.ledger.text import LONGEST_NAME, fit
from airflow_provider_regal.ledger.upserts import write_rows

ACKNOWLEDGED: Final = "acknowledged"  #: Regal has it
UNKNOWN: Final = "unknown"  #: it can't be known whether Regal received it
REFUSED: Final = "refused"  #: Regal refused it
WITHHELD: Final = "withheld"  #: not sent
RECORDED: Final = "recorded"  #: not sent: Regal is known to have it

_AT_ONCE: Final = 500
_l, _t = schema.consent_log.c, schema.consent_texts.c


class LoggedConsent(NamedTuple):
    """A decision and its result.

    :param identifier: phone or email; ``user:<id>`` if the source has neither.
    :param given_at: when the person decided, as the ledger writes times; None if the source does not say.
    :param text: what the person agreed to.
    :param form: where it was collected.
    :param position: row of the source, from 1.
    :param place: file and line, if the source is a file.
    :param acknowledged_at: when Regal answered.
    """

    identifier: str
    channel: str
    subscribed: bool
    given_at: str | None
    ip: str | None
    text: str | None
    form: str | None
    position: int | None
    place: str | None
    status: str
    reason: str | None = None
    acknowledged_at: str | None = None


class LogLine(NamedTuple):
    """A line read from the log; ``identifier`` is in stored form.

    :param task: the task that sent it (``dag_id.task_id``).
    """

    logged_at: str
    account: str
    identifier: str
    channel: str
    subscribed: bool
    given_at: str | None
    ip: str | None
    text: str | None
    form: str | None
    task: str | None
    delivery: str | None
    position: int | None
    place: str | None
    status: str
    reason: str | None
    acknowledged_at: str | None


def add_lines(
    connection: Connection,
    lines: Sequence[LoggedConsent],
    *,
    account: str,
    task: str,
    delivery: str,
    stored: Callable[[str], str],
    now: str,
) -> None:
    """Add lines to the log of an account.

    :param stored: returns the stored form of an identifier.
    """
    if not lines:
        return
    texts = {line.text: _hash_of(line.text) for line in lines if line.text is not None}
    told = sorted((hashed, text) for text, hashed in texts.items())
    write_rows(connection, schema.consent_texts, ("text_hash", "text"), told, "keep")
    rows = []
    for line in lines:
        row = line._asdict()
        text = row.pop("text")
        row |= {
            "account": account, "identifier": stored(line.identifier), "subscribed": int(line.subscribed),
            "text_hash": None if text is None else texts[text],
            "form": line.form and fit(line.form, LONGEST_NAME), "place": line.place and fit(line.place, LONGEST_NAME),
            "reason": line.reason and fit(line.reason, schema.LONGEST_MESSAGE),
            "task": task or None, "delivery": delivery or None, "logged_at": now,
        }  # fmt: skip
        rows.append(row)
    connection.execute(schema.consent_log.insert(), rows)


def _hash_of(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=16).hexdigest()


def withheld_before(
    connection: Connection, account: str, identifiers: Sequence[str]
) -> set[tuple[str, str, str | None, str | None]]:
    """Return the decisions of these people that were withheld before: stored identifier, channel, time, reason."""
    found = set()
    for some in batches(sorted({*identifiers}), _AT_ONCE):
        wanted = select(_l.identifier, _l.channel, _l.given_at, _l.reason).where(
            (_l.account == account) & (_l.status == WITHHELD) & _l.identifier.in_(some)
        )
        found |= {tuple(row) for row in connection.execute(wanted)}
    return found


_LINES: Final = select(*(_t.text if name == "text" else _l[name] for name in LogLine._fields), _l.id).select_from(
    schema.consent_log.outerjoin(schema.consent_texts, _t.text_hash == _l.text_hash)
)


def lines_of(
    connection: Connection, identifiers: Sequence[str], *, account: str | None = None, limit: int | None = None
) -> list[LogLine]:
    """Return the lines of one person, oldest first.

    :param identifiers: in stored form.
    :param limit: maximum number of lines; the newest.
    """
    statement = _LINES.where(_l.identifier.in_(identifiers)).order_by(_l.id.desc())
    if account is not None:
        statement = statement.where(_l.account == account)
    if limit is not None:
        statement = statement.limit(limit)
    return [_line(row) for row in connection.execute(statement)][::-1]


def stream_lines(
    database: Database,
    *,
    account: str | None = None,
    delivery: int | None = None,
    status: str | None = None,
    since: str | None = None,
    until: str | None = None,
) -> Iterator[LogLine]:
    """Stream lines, oldest first, in constant memory.

    :param since: logged at this time (of the ledger) or later.
    :param until: logged before this time.
    """
    page = _LINES.order_by(_l.id).limit(_AT_ONCE)
    of_delivery = None if delivery is None else str(delivery)
    for column, value in ((_l.account, account), (_l.delivery, of_delivery), (_l.status, status)):
        if value is not None:
            page = page.where(column == value)
    if since is not None:
        page = page.where(_l.logged_at >= since)
    if until is not None:
        page = page.where(_l.logged_at < until)
    last = -1
    while True:
        rows = database.read(partial(_fetch, statement=page.where(_l.id > last)))
        yield from map(_line, rows)
        if len(rows) < _AT_ONCE:
            return
        last = rows[-1][-1]


def _fetch(connection: Connection, statement: Any) -> list[Any]:
    return [*connection.execute(statement)]


def _line(row: Any) -> LogLine:
    return LogLine._make(row[:-1])._replace(subscribed=bool(row[4]))


def drop_lines(database: Database, before: str) -> Iterator[int]:
    """Remove lines logged before a time, in small transactions; yield the number that each removed.

    What proves an opt-in that Regal still has is kept.
    """
    c = schema.consents.c
    proves = (
        select(c.account)
        .where((c.account == _l.account) & (c.identifier == _l.identifier) & (c.channel == _l.channel))
        .where((c.subscribed == 1) & (c.evidence_at == _l.given_at) & (_l.subscribed == 1))
        .exists()
    )
    old = select(_l.id).where((_l.logged_at < before) & ~proves).order_by(_l.id).limit(_AT_ONCE)
    last = -1
    while found := database.write(partial(_drop, wanted=old.where(_l.id > last))):
        yield len(found)
        last = found[-1]


def _drop(connection: Connection, wanted: Any) -> list[int]:
    found = [row[0] for row in connection.execute(wanted)]
    if found:
        connection.execute(delete(schema.consent_log).where(_l.id.in_(found)))
    return found
