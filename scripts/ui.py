"""``make ui``: the demo, with Airflow's UI and the local Regal's pages kept open until Ctrl-C."""

from __future__ import annotations

import sys

from scripts import demo, local
from scripts.processes import free_port, running, stop_on_signals


def main() -> None:
    """Run the demo, then Airflow's own processes, until Ctrl-C."""
    stop_on_signals()
    with local.regal(rate_limit=demo.RATE_LIMIT) as here:
        env = local.airflow_environment(
            here,
            AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL="5",
            AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT=str(free_port(8794)),
            AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT=str(free_port(8793)),
        )
        demo.run_dags(here, env)
        demo.say("Starting Airflow")
        log = local.HOME / "standalone.log"
        with running([sys.executable, "-m", "airflow", "standalone"], env, log) as process:
            local.wait_for(f"{local.airflow_url(env)}/api/v2/version", process, log, patience_s=180)
            print(
                f"\n  Airflow        {local.airflow_url(env)}/dags\n"
                f"  local Regal    {here.url}/\n\n"
                "Unpause a DAG in Airflow to see it run on its schedule. Ctrl-C ends both.",
                flush=True,
            )
            process.wait()
            raise SystemExit(f"Airflow ended by itself; see {log}.")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit("\nStopped.") from None
