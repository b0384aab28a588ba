"""The page Deliveries: problems first, with the next step of each; Regal's last answers; the last days."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from airflow_provider_regal.ledger import formats
from airflow_provider_regal.ledger.admin import monitoring, words
from airflow_provider_regal.ledger.admin.monitoring import Sender, Totals, Wanted
from airflow_provider_regal.ledger.admin.words import NOTHING_SINCE, Since, State, TaskNow
from airflow_provider_regal.ledger.database import Database
from airflow_provider_regal.ledger.deliveries import FAILED, READING, SENDING, STOPPED, Counts, Record
from airflow_provider_regal.ledger.text import to_ledger_time
from airflow_provider_regal.plugin import charts
from airflow_provider_regal.plugin.tasks import tasks_of

PERIODS: Final = {"1": "last 24 hours", "7": "last 7 days", "30": "last 30 days", "": "all"}
STATES: Final = {
    "failed": "failed",
    "stopped": "stopped",
    "running": "running",
    "check": "OK, to check",
    "fixed": "fixed since",
    "planned": "waits for approval",
    "finished": "finished",
    "gone": "replaced or expired",
}
CALLS: Final = ("identify", "track", "page", "screen", "events")
_SHOWN_FIRST: Final = 100
_MOST_RUNNING: Final = 1_000
# First words of states without an end that indicate a problem -> how they are counted.
_WRONG: Final = {"TASK": "dead", "OUTAGE": "in an outage", "STALLED": "stalled", "STOPPED,": "waiting for a retry"}
_A_PAGE: Final = 50
_DAYS: Final = 14
_DEFAULT_PERIOD: Final = "7"


@dataclass(frozen=True)
class Row:
    """A delivery in the list.

    :param rate: requests per second, if there were any.
    :param limit: maximum requests per second: its own rate, or the account's limit.
    :param next_step: the first thing to do about it.
    """

    record: Record
    state: State
    task: str
    left: int
    rate: float | None
    limit: int | None
    cause: str
    next_step: str


@dataclass(frozen=True)
class Filters:
    """The values of the page's form."""

    dag: str = ""
    account: str = ""
    call: str = ""
    state: str = ""
    days: str = _DEFAULT_PERIOD
    before: str = ""
    page: int = 0

    @classmethod
    def of(cls, query: Mapping[str, str]) -> Filters:
        """Parse the query of the page's URL; values that are not among the choices are ignored."""
        page = query.get("page", "")
        before = query.get("before", "")
        return cls(
            dag=query.get("dag", ""),
            account=query.get("account", ""),
            call=query["call"] if query.get("call") in CALLS else "",
            state=query["state"] if query.get("state") in STATES else "",
            days=query["days"] if query.get("days") in PERIODS else _DEFAULT_PERIOD,
            before=before if _is_day(before) else "",
            page=int(page) if page.isdecimal() and len(page) < 6 else 0,
        )

    @property
    def narrows(self) -> bool:
        """Whether deliveries that need a look may be hidden."""
        return self != Filters(page=self.page)

    def narrow(self, readable: Wanted, now: datetime) -> Wanted:
        """Apply these filters to the readable deliveries."""
        end = datetime.combine(date.fromisoformat(self.before), datetime.min.time(), UTC) if self.before else None
        since = (end or now) - timedelta(days=int(self.days)) if self.days else None
        return replace(
            readable,
            dag_id=self.dag or None,
            account=self.account or None,
            call=self.call or None,
            group=self.state or None,
            since=None if since is None else to_ledger_time(since),
            until=None if end is None else to_ledger_time(end),
        )

    def with_page(self, page: int) -> dict[str, str]:
        """Return the query of another page of the list."""
        told = {"dag": self.dag, "account": self.account, "call": self.call, "state": self.state, "before": self.before}
        return {**{name: value for name, value in told.items() if value}, "days": self.days, "page": str(page)}


def _is_day(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return len(text) == len("2026-11-29")


@dataclass(frozen=True)
class Headline:
    """How many deliveries need attention, and how many are running.

    :param problems: the problem, such as ``dead`` -> deliveries; the worst first.
    """

    problems: dict[str, int]
    to_check: int
    running: int

    @classmethod
    def of(cls, totals: Totals, without_end: Sequence[State]) -> Headline:
        """Count deliveries that ended by their totals, and the others by their current state."""
        now = Counter(_WRONG.get(state.word.split()[0], "running") for state in without_end)
        ended = totals.states.get(FAILED, 0) + totals.states.get(STOPPED, 0)
        problems = {"failed or stopped": ended, **{name: now[name] for name in _WRONG.values()}}
        return cls({name: count for name, count in problems.items() if count}, totals.to_check, now["running"])


@dataclass(frozen=True)
class Summary:
    """The summary at the top of the page Deliveries when no filter is set."""

    headline: Headline
    regal: list[AccountNow]


def summary(database: Database, readable: Wanted) -> Summary:
    """Return the summary at the top of the page Deliveries when no filter is set.

    :param readable: the deliveries the user may see.
    """
    now = database.now()
    wanted = Filters().narrow(readable, now)
    running = monitoring.running(database, wanted, limit=_MOST_RUNNING)
    tasks = tasks_of(running)
    headline = Headline.of(monitoring.totals(database, wanted), _states_of(running, now, tasks))
    accounts = monitoring.choices(database, readable).accounts
    return Summary(headline, regal_now(database, accounts, readable, running, now, tasks=tasks))


def _states_of(records: Sequence[Record], now: datetime, tasks: Mapping[int, TaskNow]) -> list[State]:
    return [words.state_of(one, Counts.of(one), now, Since(tasks.get(one.id, TaskNow.RUNNING))) for one in records]


def known_since(database: Database, records: Sequence[Record]) -> dict[int, Since]:
    """Find out what has become of deliveries since: id -> what is known besides its record."""
    tasks, fixes = tasks_of(records), monitoring.fixes(database, records)
    unknown, replaced = monitoring.unknown_left(database, records), monitoring.replacements(database, records)
    return {
        one.id: Since(tasks.get(one.id, TaskNow.RUNNING), fixes.get(one.id), unknown.get(one.id), replaced.get(one.id))
        for one in records
    }


def view(database: Database, readable: Wanted, query: Mapping[str, str]) -> dict[str, Any]:
    """Collect what the page shows.

    :param readable: the deliveries the user may see.
    """
    now, filters = database.now(), Filters.of(query)
    wanted = filters.narrow(readable, now)
    senders = monitoring.senders(database)
    # Problems are shown on every page of the list; only the list itself is paged.
    first = monitoring.needing_a_look(database, wanted, limit=_SHOWN_FIRST + 1)
    others = monitoring.all_others(database, wanted, limit=_A_PAGE + 1, offset=filters.page * _A_PAGE)
    running = monitoring.running(database, wanted, limit=_MOST_RUNNING)
    tasks = tasks_of(running)
    since_then = known_since(database, [*first[:_SHOWN_FIRST], *others[:_A_PAGE]])
    rows = [row_of(record, now, senders, since_then[record.id]) for record in first[:_SHOWN_FIRST]]
    rows.sort(key=lambda row: row.state.severity)  # keeps newest first
    from_day = to_ledger_time(now - timedelta(days=_DAYS))
    by_day = monitoring.days(database, replace(wanted, since=from_day, until=None, group=None))
    choices = monitoring.choices(database, readable)
    totals = monitoring.totals(database, wanted)
    return {
        "filters": filters,
        "periods": PERIODS,
        "states_of_filter": STATES.items(),
        "choices": choices,
        "totals": totals,
        "headline": Headline.of(totals, _states_of(running, now, tasks)),
        "several_accounts": len(choices.accounts) > 1,
        "problems": [row for row in rows if row.state.tone in (words.BAD, words.WARN)],
        "running_rows": [row for row in rows if row.state.tone not in (words.BAD, words.WARN)],
        "more_first": len(first) > _SHOWN_FIRST,
        "others": [row_of(record, now, senders, since_then[record.id]) for record in others[:_A_PAGE]],
        "newer": filters.with_page(filters.page - 1) if filters.page else None,
        "older": filters.with_page(filters.page + 1) if len(others) > _A_PAGE else None,
        "regal": regal_now(database, choices.accounts, readable, [row.record for row in rows], now, tasks=tasks),
        "days": charts.per_day(by_day, last=now.date(), most=_DAYS),
        "bad_days": charts.per_day([day._replace(acknowledged=0) for day in by_day], last=now.date(), most=_DAYS),
        "now": now,
    }


def row_of(
    record: Record,
    now: datetime,
    senders: Mapping[str, Sender],
    since: Since = NOTHING_SINCE,
) -> Row:
    """Summarize a delivery in one line."""
    counts = Counts.of(record)
    sender = senders.get(record.holder or "")
    steps = words.next_steps(record, counts, now, since)
    return Row(
        record=record,
        state=words.state_of(record, counts, now, since),
        task=words.task_of(record),
        left=words.left_of(record),
        rate=words.per_second(counts),
        limit=record.rate if record.rate or sender is None else sender.rate_limit,
        cause="" if since.fix is not None else words.cause(record, counts, now, since),
        next_step=steps[0] if steps else "",
    )


@dataclass(frozen=True)
class AccountNow:
    """Regal's current answers to an account, as far as deliveries show them."""

    account: str
    tone: str
    told: str
    delivery: int


def regal_now(
    database: Database,
    accounts: list[str],
    readable: Wanted,
    shown: Sequence[Record],
    now: datetime,
    *,
    tasks: Mapping[int, TaskNow],
) -> list[AccountNow]:
    """Return Regal's last answers by account, from the ledger; no request is sent to Regal.

    :param shown: the deliveries shown; if one of them is in an outage, that takes precedence over the others.
    :param tasks: Airflow's state of their tasks.
    """

    def is_alive(record: Record) -> bool:
        return words.is_alive(record, now, tasks.get(record.id, TaskNow.RUNNING))

    found = []
    in_outage = {
        record.account: record for record in shown if is_alive(record) and Counts.of(record).outage_since is not None
    }
    for account, record in (monitoring.last_of_accounts(database, accounts, readable) | in_outage).items():
        counts = Counts.of(record)
        ended = formats.duration(formats.seconds_since(record.ended_at or record.held_at or record.started_at, now))
        if record.state in (READING, SENDING) and is_alive(record):
            if counts.outage_since is not None:
                since = formats.duration(formats.seconds_since(counts.outage_since, now))
                tone, told = words.BAD, f"has taken nothing for {since}: {counts.outage_reason}"
            else:
                speed = words.per_second(counts)
                tone, told = words.GOOD, "takes events now" + (f", {speed:.0f} requests/s" if speed else "")
        elif counts.outage_since is not None:
            tone, told = words.BAD, f"{_last_answer(counts.outage_reason or '')}, {ended} ago. Nothing was sent since"
        elif "API key" in (record.error or ""):
            tone, told = words.BAD, f"refused the API key {ended} ago"
        elif record.acknowledged:
            tone, told = words.GOOD, f"took events {ended} ago"
        else:
            tone, told = words.WARN, f"took no row of the last delivery, {ended} ago"
        found.append(AccountNow(account, tone, told, record.id))
    return found


def _last_answer(reason: str) -> str:
    return f"last answered {reason}" if reason.startswith("HTTP") else f"did not answer: {reason}"
