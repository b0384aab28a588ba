"""``make ui``: keep Airflow's UI and the local Regal's pages open with the demo's data until Ctrl-C."""

from __future__ import annotations

import sys
from datetime import datetime

from scripts import demo, local
from scripts.processes import free_port, running, stop_on_signals


def main() -> None:
    """Run the demo unless an earlier one left its data, then Airflow's own processes, until Ctrl-C."""
    stop_on_signals()
    with local.regal(rate_limit=demo.RATE_LIMIT) as here:
        env = local.airflow_environment(
            here,
            AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
            AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port(8794)),
            AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port(8793)),
        )
        prepare(here, env)
        log = local.HOME / "standalone.log"
        with running([sys.executable, "-m", "airflow", "standalone"], env, log) as process:
            demo.say(f"Waiting until Airflow answers, up to a minute; its log is {log}")
            local.wait_for(f"{local.airflow_url(env)}/api/v2/version", process, log, patience_s=180)
            print(
                f"\n  Airflow        {local.airflow_url(env)}/dags\n"
                f"  local Regal    {here.url}/\n\n"
                "Unpause a DAG in Airflow to see it run on its schedule. Ctrl-C ends both.",
                flush=True,
            )
            try:
                process.wait()
            finally:
                local.keep_received(here)
            raise SystemExit(f"Airflow ended by itself; see {log}.")


def prepare(here: local.Regal, env: dict[str, str]) -> None:
    """Restore the results of an earlier demo, or run the demo's DAGs."""
    if not all(file.exists() for file in (local.RECEIVED, local.LEDGER, local.WAREHOUSE)):
        demo.run_dags(here, env)
        return
    made = datetime.fromtimestamp(local.RECEIVED.stat().st_mtime).astimezone()
    demo.say(f"Using what was made until {made:%Y-%m-%d %H:%M}; 'make demo' makes it anew")
    local.airflow(env, "db", "migrate", log="migrate.log")
    demo.say("Sending the local Regal what it had received then; this takes about 20 seconds")
    demo.say(f"It has {local.send_again(here):,} requests again")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\nStopped.")
