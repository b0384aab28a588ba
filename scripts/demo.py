"""``make demo``: run the example DAGs in Airflow against a local Regal, kill a task midway, and show the result."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from scripts import consents, local
from scripts.accounts import Accounts
from scripts.crash import Crash
from scripts.opt_ins import OptIns
from scripts.processes import stop_on_signals
from scripts.report import print_contacts, print_deliveries, print_events, print_figures, print_opt_ins
from scripts.warehouse import EVENTS_OF_THE_DAY, SEED, make_warehouse

RATE_LIMIT = 300
FIRST = "regal_first_events"
OPT_INS = "regal_opt_in_sync"
BULK = "regal_contacts_and_events"


def run_dags(here: local.Regal, env: dict[str, str]) -> tuple[OptIns, Accounts]:
    """Migrate Airflow's database and run the example DAGs to completion.

    :returns: the results of the opt-in sync and of the bulk delivery, not audited yet.
    """
    now = datetime.now(UTC)
    say("Preparing Airflow's database and a warehouse in .demo")
    make_warehouse(local.WAREHOUSE, now)
    local.forget_ledger()
    local.airflow(env, "db", "migrate", log="migrate.log")
    with local.api_server(env) as answers:
        say(f"Running the DAG {FIRST}")
        local.airflow(env, "dags", "test", FIRST, log=f"{FIRST}.log")
        opt_ins = sync_opt_ins(here, env)
        answers()
        say(f"Running the DAG {BULK}; its task 'events' is killed midway")
        crash = Crash(here, BULK, "events", after=EVENTS_OF_THE_DAY // 2)
        local.airflow(env, "dags", "test", "--use-executor", BULK, now.isoformat(), log=f"{BULK}.log", over=crash.look)
    return opt_ins, Accounts(here, BULK, now, killed_after=crash.arrived)


def sync_opt_ins(here: local.Regal, env: dict[str, str]) -> OptIns:
    """Run the opt-in sync twice, with an hour's changes in between."""
    accounts = OptIns(here, OPT_INS)
    for hour in range(2):
        say(f"Running the DAG {OPT_INS}" if hour == 0 else "Changing consents in the warehouse, and running it again")
        if hour:
            accounts.stale, accounts.opted_out = consents.change(local.WAREHOUSE, SEED, datetime.now(UTC))
        before = here.ask("stats")["requests"]
        local.airflow(env, "dags", "test", OPT_INS, log=f"{OPT_INS}.{hour + 1}.log")
        accounts.note(before)
    return accounts


def show(here: local.Regal, opt_ins: OptIns, accounts: Accounts) -> None:
    """Print what the local Regal has, and whether the figures add up."""
    stats = here.settled_stats()
    print_contacts(here.ask("contacts"))
    print_events(here.ask("events"))
    print_opt_ins(opt_ins)
    print_deliveries(accounts)
    print_figures(stats)
    if wrong := [*opt_ins.audit(), *accounts.audit(stats)]:
        raise SystemExit("\nThe figures do not add up:\n  " + "\n  ".join(wrong))


def find(env: dict[str, str], phone: str) -> None:
    """Print everything on record about one customer, with ``airflow regal find``."""
    print(f"\n$ airflow regal find {phone}")
    print(local.ask_ledger(env, "find", phone))


def say(what: str) -> None:
    """Print the current step, with the time it started."""
    print(f"{time.strftime('%H:%M:%S')}  {what}", flush=True)


def main() -> None:
    """Run the demo."""
    stop_on_signals()
    with local.regal(rate_limit=RATE_LIMIT) as here:
        say(f"A local Regal listens at {here.url}")
        env = local.airflow_environment(here)
        opt_ins, accounts = run_dags(here, env)
        show(here, opt_ins, accounts)
        find(env, opt_ins.opted_out)
        local.keep_received(here)
    print(
        "\nThe logs are in .demo. To look around in Airflow's UI and on the local Regal's pages: make ui\n"
        "What the tasks do is written in dags/; what it all means, in docs/index.md."
    )


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nStopped.") from None
