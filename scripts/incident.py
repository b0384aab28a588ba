"""``make incident NAME=outage``: one of five incidents in a real Airflow with a local Regal, to be fixed in a browser.

The incident ``outage`` lasts an hour; ``MINUTES=5`` shortens it. ``NAME="outage bad-phones"`` runs one after the other,
and ``NAME=all`` all of them. For what to look at, see docs/runbook.md.
"""

from __future__ import annotations

import argparse
import time

from scripts.incidents.data import INCIDENTS, Incident
from scripts.incidents.stage import NEW_KEY, OUTAGE_MINUTES, Stage, stage
from scripts.processes import stop_on_signals

ALL = "all"


def main() -> None:
    """Prepare the incidents, and keep Airflow and the local Regal open until Ctrl-C."""
    listed = "\n".join(f"  {one.name:14} {one.told}" for one in INCIDENTS.values())
    parser = argparse.ArgumentParser(
        prog="make incident",
        description=f"NAME= is one of:\n{listed}\n  {ALL:14} one after the other",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", nargs="+", choices=[*INCIDENTS, ALL])
    parser.add_argument("--minutes", type=float, default=OUTAGE_MINUTES, help="how long the outage lasts")
    args = parser.parse_args()
    names = list(INCIDENTS) if ALL in args.name else args.name
    stop_on_signals()
    say("Starting Airflow and a local Regal, with healthy earlier runs")
    with stage(names, outage_minutes=args.minutes) as here:
        for name in names:
            say(f"Letting it happen: {INCIDENTS[name].told}")
            here.prepare(name)
            show(here, INCIDENTS[name])
            if name != names[-1]:
                input("Fix it, then press Enter for the next one.\n")
        while True:
            time.sleep(3_600)


def show(here: Stage, incident: Incident) -> None:
    """Print where to look, and what others report."""
    print(
        f"\n  Look here     {here.page_of(incident)}\n"
        f"  local Regal   {here.here.url}/   (stands for Regal's UI)\n"
        f"  upstream      {here.airflow}/dags/upstream_repair   (stands for the team whose data it is)\n"
    )
    if incident.name == "revoked-key":
        print(f"Regal's administrator says: the key was rotated; the new one is {NEW_KEY}\n")
    if incident.name == "outage":
        print(f"Regal is back {here.outage_minutes:g} minutes after it went down.\n")
    print("What happened, who is affected, is it normal, what do you press? Ctrl-C ends it.", flush=True)


def say(what: str) -> None:
    """Print the current step, with the time it started."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped.")
