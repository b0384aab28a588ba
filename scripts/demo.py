"""``make demo``: run the example DAGs in Airflow against a local Regal, and show what it holds then."""

from __future__ import annotations

import time

from scripts import local
from scripts.processes import stop_on_signals
from scripts.report import print_contacts, print_events, print_figures

RATE_LIMIT = 100
DAGS = ("regal_first_events",)


def run_dags(env: dict[str, str]) -> None:
    """Migrate Airflow's database and run every example DAG to its end."""
    say("Preparing Airflow's database in .demo/airflow")
    local.airflow(env, "db", "migrate", log="migrate.log")
    for dag in DAGS:
        say(f"Running the DAG {dag}")
        local.airflow(env, "dags", "test", dag, log=f"{dag}.log")


def show(here: local.Regal) -> None:
    """Print what the local Regal holds."""
    stats = here.settled_stats()
    print_contacts(here.ask("contacts"))
    print_events(here.ask("events"))
    print_figures(stats)


def say(what: str) -> None:
    """Say what is being done, with the time it started."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def main() -> None:
    """Run the demo."""
    stop_on_signals()
    with local.regal(rate_limit=RATE_LIMIT) as here:
        say(f"A local Regal listens at {here.url}")
        run_dags(local.airflow_environment(here))
        show(here)
    print(
        "\nThe logs are in .demo. To look around in Airflow's UI and on the local Regal's pages: make ui\n"
        "What the tasks do is written in dags/; what it all means, in docs/index.md."
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nStopped.") from None
