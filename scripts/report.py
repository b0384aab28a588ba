"""Print what the local Regal has, as plain text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from scripts.accounts import Accounts
    from scripts.opt_ins import OptIns, Run

CHANNELS = ("sms", "voice", "email")
CONTACTS_SHOWN = 4
EVENTS_SHOWN = 12


def print_contacts(contacts: Sequence[dict[str, Any]]) -> None:
    """Print the contacts with their subscriptions, since when, and the evidence."""
    heading("Contacts in Regal", len(contacts))
    for contact in reversed(contacts[-CONTACTS_SHOWN:]):
        print(f"  {contact['name'] or '(no name)'}   user id {contact['user_id'] or '-'}")
        for address, info in (contact["phones"] | contact["emails"]).items():
            primary = "   primary" if info["is_primary"] else ""
            print(f"    {address}{primary}")
            for channel in CHANNELS:
                if channel in info:
                    print(f"      {channel:6}{consent(info[channel])}")
    print_rest(len(contacts) - CONTACTS_SHOWN)


def consent(status: dict[str, Any]) -> str:
    """Return one line about the consent on a channel, with its date and evidence."""
    if not (since := status.get("since") or status["timestamp"] or status["received_at"]):
        return str(status["status"])
    if status["status"] == "Subscribed":
        given = f', from {status["ip"]}, to "{shorten(status["text"], 46)}"' if status["ip"] else ", no evidence"
    else:
        given = f", {status['source']}" if status["source"] else ""
    return f"{status['status']} since {since[:19]}{given}"


def print_events(events: Sequence[dict[str, Any]]) -> None:
    """Print the events in the order of their arrival."""
    heading("Events Regal received", len(events))
    rows = [
        (
            str(event["number"]),
            event["received_at"][11:19],
            event["name"] or "contact update",
            str(event["answer"]),
            ", ".join(event["body"].get("properties", {})) or "-",
        )
        for event in events[:EVENTS_SHOWN]
    ]
    print_table(("no", "at (UTC)", "event", "answer", "properties"), rows)
    print_rest(len(events) - EVENTS_SHOWN)


def print_opt_ins(accounts: OptIns) -> None:
    """Print what each run of the opt-in sync sent and withheld, and what happened to the outdated opt-in."""
    first, then = accounts.runs
    heading("Consents synced from the warehouse", len(accounts.held()))
    print_table(("", "first run", "an hour later"), figures_of(first, then), right=True)
    opted_out = accounts.sms_of(accounts.opted_out)
    print(f"\n  One of those who opted out, {accounts.opted_out}, in Regal:")
    for word in opted_out["history"][-2:]:
        print(f"    sms {consent(word)}")
    print(f"  Among the changes is an old yes of {accounts.stale}, back from a backup in place of the no after it.")
    print(f"  It was withheld. In Regal still:\n    sms {consent(accounts.sms_of(accounts.stale))}")


def figures_of(*runs: Run) -> list[tuple[str, ...]]:
    """Return the results of each run, one line for each figure."""
    plans = [run.report["plan"] for run in runs]
    figures = (
        ("rows in the table", [run.report["read"] for run in runs]),
        ("  unchanged", [plan["unchanged"] for plan in plans]),
        ("  older than another row or what Regal has", [plan["older"] for plan in plans]),
        ("  no evidence: not sent", [plan["no_evidence"] for plan in plans]),
        ("  unreadable, such as no valid phone: not sent", [plan["unreadable"] for plan in plans]),
        ("  opt-outs, sent first", [plan["opt_outs"] for plan in plans]),
        ("  opt-ins, sent after them", [plan["opt_ins"] for plan in plans]),
        ("requests", [len(run.requests) for run in runs]),
    )
    return [(name, *(f"{value:,}" for value in values)) for name, values in figures]


def print_deliveries(accounts: Accounts) -> None:
    """Print the outcomes of the warehouse's rows, and that the crash reached no one twice."""
    reports = {task: accounts.report(task) for task in ("contacts", "events")}
    heading("Rows delivered from the warehouse", sum(report["read"] for report in reports.values()))
    outcomes = ("read", "acknowledged", "rejected", "unknown", "skipped", "opt_ins_withheld")
    print_table(
        ("task", "tries", *(outcome.replace("_", " ") for outcome in outcomes)),
        [(task, str(accounts.tries(task)), *(str(r[name]) for name in outcomes)) for task, r in reports.items()],
    )
    for task, report in reports.items():
        for reason, count in report["reasons"].items():
            print(f"  {task}: {count} x {reason}")
    arrived = accounts.arrivals()
    print(f"\n  The task 'events' was killed (SIGKILL) when Regal had {accounts.killed_after} of its events.")
    print("  Airflow's retry went on from there. Unknown are those whose answers the crash took with it.")
    print(f"  Events that arrived: {len(arrived)}; twice: {sum(times > 1 for times in arrived.values())}")


def print_rest(count: int) -> None:
    """Return how many are not shown."""
    if count > 0:
        print(f"  ... and {count:,} more")


def print_figures(stats: dict[str, Any]) -> None:
    """Print discrepancies, if any, and the rate measured by the server."""
    findings = stats["contract_findings"] | stats["behaviour_findings"]
    said = "; ".join(finding["text"] for finding in findings.values()) or "none"
    print(f"\n  Findings about these events: {said}")
    print(f"  Received twice: {stats['duplicates']}")
    print(f"  Most in any one second: {stats['worst_window_1s_all']} (limit {stats['rate_limit']})")


def heading(text: str, count: int) -> None:
    """Print a heading with a count."""
    print(f"\n{text} ({count:,})")


def print_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, right: bool = False) -> None:
    """Print rows in aligned columns.

    :param right: right-align all columns but the first.
    """
    lines = [tuple(head), *map(tuple, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        cells = [cell.ljust(width) for cell, width in zip(line, widths, strict=True)]
        if right:
            cells[1:] = [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  " + "  ".join(cells).rstrip())


def shorten(text: str | None, length: int) -> str:
    """Truncate a text."""
    text = text or "no wording kept"
    return text if len(text) <= length else text[: length - 3] + "..."
