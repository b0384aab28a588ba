"""Write two weeks of realistic deliveries to a ledger, for pictures of the pages in Airflow's UI."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.engine import Connection

from airflow_provider_regal.ledger import schema
from airflow_provider_regal.ledger.database import Database, sqlite_engine
from airflow_provider_regal.ledger.text import to_ledger_time

ACCOUNT = "regal_default"
PERSON = "anne-smith"
_PHONE = "+12125550187"
_AGREED = "I agree to receive calls and texts about my lessons. Reply STOP at any time."
_PERSON_DAYS = {"yes": 20, "booked": 12, "no": 6, "late": 2}
_DOWN = "Regal could not be reached for longer than outage_patience (300 s); the last request: HTTP 503."
_RETRY = timedelta(minutes=6)
_SEED = 7
_DAYS = 14
_RATE = 100
_TASKS = (("crm_sync", "contacts", "identify", 12_400), ("crm_sync", "lessons", "track", 4_800),
          ("consents", "sync", "identify", 900), ("web_events", "pageviews", "page", 22_000))  # fmt: skip
_REASONS = (
    ("invalid", "phone", "phone: not a valid phone number of the region US", 24),
    ("invalid", "email", "email: not an email address", 5),
    ("HTTP 400", None, "properties.price must be a number", 2),
)


def write_history(file: Path) -> dict[str, int]:
    """Write it; return the ids of deliveries for pictures: ``failed``, ``outage``, ``stopped``, ``fine``, ..."""
    now = datetime.now(UTC).replace(microsecond=0)
    with closing(Database(sqlite_engine(file))) as database:
        return database.write(lambda connection: _History(connection, now).write())


class _History:
    def __init__(self, connection: Connection, now: datetime) -> None:
        self._connection = connection
        self._now = now
        self._random = random.Random(_SEED)  # noqa: S311 - the same pictures each time

    def write(self) -> dict[str, int]:
        self._connection.execute(schema.accounts.insert(), {"account": ACCOUNT, "identifiers": "plain"})
        self._person()
        fine = 0
        for back in range(_DAYS, 0, -1):
            for dag, task, call, usual in _TASKS:
                fine = self._day_of(dag, task, call, usual, back)
        return {
            "fine": fine,
            "failed": self._failed(),
            "check": self._to_check(),
            "stopped": self._stopped(),
            "outage": self._outage(),
            "sending": self._sending(),
        }

    def _day_of(self, dag: str, task: str, call: str, usual: int, back: int) -> int:
        read = int(usual * self._random.uniform(0.92, 1.08))
        rejected = self._random.choice((0, 0, 0, 1, 2)) if call == "identify" else 0
        skipped = int(read * self._random.uniform(0.55, 0.7)) if call == "identify" else 0
        counts = {"skips": {"unchanged": skipped}, "only_changed": True} if skipped else {}
        return self._delivery(
            dag, task, call, self._now - timedelta(days=back, minutes=40 + len(task)), "finished", read,
            rejected=rejected, skipped=skipped, counts=counts,
        )  # fmt: skip

    def _failed(self) -> int:
        rejected = sum(count for *_, count in _REASONS)
        reasons = "".join(f"\n  {rows:>6,} x {_cause(reason, said)}" for reason, _, said, rows in _REASONS)
        error = (
            f"Of 12,208 rows, {rejected} rejected, more than max_rejected=10. Top reasons:{reasons}\nList them with: "
            "airflow regal outcomes"
        )
        number = self._delivery(
            "crm_sync", "contacts", "identify", self._now - timedelta(minutes=52), "failed", 12_208, rejected=rejected,
            skipped=7_731, error=error, counts={"skips": {"unchanged": 7_731}, "only_changed": True},
        )  # fmt: skip
        self._outcomes(number, "rejected", [one for *reason, count in _REASONS for one in [tuple(reason)] * count])
        return number

    def _to_check(self) -> int:
        number = self._delivery(
            "crm_sync", "lessons", "track", self._now - timedelta(minutes=47), "finished", 4_790, unknown=9,
            counts={"outages": 1},
        )  # fmt: skip
        said = "it can't be known whether Regal received it: no answer within the timeout"
        self._outcomes(number, "unknown", [("no answer within the timeout", None, said)] * 9)
        return number

    def _stopped(self) -> int:
        error = (
            "Regal refused the API key (HTTP 401). Enter the right one in the connection 'regal_default', then clear "
            "the task: it resumes with the rows that are left."
        )
        return self._delivery(
            "consents", "backfill", "identify", self._now - timedelta(hours=19), "stopped", 30_000, left=17_220,
            error=error, earlier=(("lost", 0.35, None), ("stopped", 0.25, _DOWN)),
        )  # fmt: skip

    def _outage(self) -> int:
        since = to_ledger_time(self._now - timedelta(minutes=6))
        counts = {"outage_since": since, "outage_reason": "HTTP 503", "outages": 1}
        return self._delivery(
            "consents", "sync", "identify", self._now - timedelta(minutes=9), "sending", 912, left=640, counts=counts,
            holder="outage",
        )  # fmt: skip

    def _sending(self) -> int:
        return self._delivery(
            "web_events", "pageviews", "page", self._now - timedelta(minutes=2), "sending", 21_600, left=12_310,
            holder="sending",
        )  # fmt: skip

    def _delivery(  # noqa: PLR0917 - the first six of each are in the same order
        self, dag: str, task: str, call: str, at: datetime, state: str, read: int, *, rejected: int = 0,
        unknown: int = 0, skipped: int = 0, left: int = 0, error: str | None = None,
        counts: dict[str, Any] | None = None, holder: str | None = None,
        earlier: Sequence[tuple[str, float, str | None]] = (),
    ) -> int:  # fmt: skip
        acknowledged = read - rejected - unknown - skipped - left
        requests = acknowledged + rejected + unknown
        seconds = max(requests / (_RATE * self._random.uniform(0.9, 0.98)), 0.5)
        live = holder is not None
        told = {"requests": requests, "seconds": seconds, **(counts or {})}
        rest = 1 - sum(share for _, share, _ in earlier)
        ends = [*earlier, ("running" if live else state, rest, error)]
        run = f"scheduled__{at.replace(minute=0, second=0).isoformat()}"
        row = {
            "place": f"{dag} {task} {run}", "incarnation": 0, "account": ACCOUNT, "dag_id": dag, "run_id": run,
            "task_id": task, "map_index": -1, "call": call, "source": "", "epoch": 0, "try_number": len(ends),
            "restarted": 0, "conn_id": ACCOUNT, "holder": holder, "held_at": to_ledger_time(self._now),
            "hold_s": 3_600 if live else 120, "state": state, "kept_rows": read, "read_rows": read,
            "acknowledged": acknowledged, "rejected": rejected, "unknown": unknown, "skipped": skipped, "rate": _RATE,
            "counts": json.dumps(told), "error": error, "started_at": to_ledger_time(at),
            "ended_at": None if live else to_ledger_time(at + len(earlier) * _RETRY + timedelta(seconds=seconds)),
        }  # fmt: skip
        number = int(self._connection.execute(schema.deliveries.insert(), row).inserted_primary_key[0])
        for place, (end, share, why) in enumerate(ends, 1):
            is_last = place == len(ends)
            rows = (round(acknowledged * share), rejected * is_last, unknown * is_last)
            self._try(number, place, end, at + (place - 1) * _RETRY, seconds * share, rows, why)
        return number

    def _try(  # noqa: PLR0917
        self, delivery: int, number: int, state: str, began: datetime, seconds: float, rows: tuple[int, int, int],
        error: str | None,
    ) -> None:  # fmt: skip
        steps = min(max(int(seconds), 1), 40)
        speeds = [self._random.uniform(0.97, 1.03) for _ in range(steps)]
        points = [
            (round(seconds * step / steps, 1), round(rows[0] * sum(speeds[:step]) / sum(speeds)))
            for step in range(1, steps + 1)
        ]
        ended = None if state == "running" else to_ledger_time(began + timedelta(seconds=seconds))
        row = {
            "delivery": delivery, "number": number, "try_number": number, "began_at": to_ledger_time(began),
            "ended_at": ended, "state": state, "acknowledged": rows[0], "rejected": rows[1], "unknown": rows[2],
            "error": error, "began_with": "{}", "pace": json.dumps(points),
        }  # fmt: skip
        self._connection.execute(schema.tries.insert(), row)

    def _person(self) -> None:
        """Write the records of a person who opted in, and later opted out of one channel."""
        days = {name: to_ledger_time(self._now - timedelta(days=back)) for name, back in _PERSON_DAYS.items()}
        form = hashlib.sha256(_AGREED.encode()).hexdigest()
        self._connection.execute(schema.consent_texts.insert(), {"text_hash": form, "text": _AGREED})
        self._connection.execute(
            schema.contact_phones.insert(), {"account": ACCOUNT, "user_id": PERSON, "phone": _PHONE}
        )
        number = self._delivery("crm_sync", "contacts", "identify", self._now - timedelta(days=20), "finished", 3)
        for channel, subscribed, since in (("sms", 0, "no"), ("voice", 1, "yes")):
            known = {
                "account": ACCOUNT, "identifier": _PHONE, "channel": channel, "subscribed": subscribed,
                "evidence_at": days[since], "opt_out_at": None if subscribed else days[since], "state": "acknowledged",
                "acknowledged_at": days[since], "source": "crm_sync.contacts", "delivery": str(number),
                "changed_at": days[since],
            }  # fmt: skip
            self._connection.execute(schema.consents.insert(), known)
        for channel, subscribed, at, status, reason in (
            ("sms", 1, "yes", "acknowledged", None), ("voice", 1, "yes", "acknowledged", None),
            ("sms", 0, "no", "acknowledged", None),
            ("sms", 1, "late", "withheld", "a newer decision is on record"),
        ):  # fmt: skip
            log = {
                "account": ACCOUNT, "identifier": _PHONE, "channel": channel, "subscribed": subscribed,
                "given_at": days["yes" if subscribed else "no"], "ip": "198.51.100.54" if subscribed else None,
                "text_hash": form if subscribed else None, "form": "checkout" if subscribed else "STOP by text",
                "task": "crm_sync.contacts", "delivery": str(number), "position": 1, "status": status, "reason": reason,
                "acknowledged_at": days[at] if status == "acknowledged" else None, "logged_at": days[at],
            }  # fmt: skip
            self._connection.execute(schema.consent_log.insert(), log)
        for position, (call, event, at) in enumerate(
            (("identify", None, "yes"), ("track", "Lesson Booked", "booked"), ("identify", None, "no")), 1
        ):
            line = {
                "delivery": number, "position": position, "account": ACCOUNT, "call": call, "event": event,
                "user_id": PERSON, "phone": _PHONE, "status": "acknowledged", "attempts": 1, "first_at": days[at],
                "last_at": days[at],
            }  # fmt: skip
            self._connection.execute(schema.outcomes.insert(), line)

    def _outcomes(self, number: int, status: str, rows: Sequence[tuple[str, str | None, str]]) -> None:
        at = to_ledger_time(self._now - timedelta(minutes=50))
        lines = [
            {
                "delivery": number, "position": 211 + 173 * place + place % 7, "account": ACCOUNT, "call": "track",
                "event": "Lesson Booked" if status == "unknown" else None,
                "user_id": f"customer-{5_100 + 37 * place}", "phone": f"+1212555{100 + place:04}", "status": status,
                "reason": reason, "field": field, "message": message, "attempts": int(reason != "invalid"),
                "first_at": at, "last_at": at, "payload_hash": f"{number} {place}", "form": "row", "payload": "{}",
            }
            for place, (reason, field, message) in enumerate(rows)
        ]  # fmt: skip
        self._connection.execute(schema.outcomes.insert(), lines)


def _cause(reason: str, said: str) -> str:
    return said if reason == "invalid" else f"rejected, {reason}"
