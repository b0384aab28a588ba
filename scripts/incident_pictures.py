"""Run all incidents, take the pictures of docs/runbook.md, fix the incidents, and print the clicks needed."""

from __future__ import annotations

import sys
import time

from scripts import local
from scripts.incidents.data import INCIDENTS
from scripts.incidents.on_call import OnCall
from scripts.incidents.stage import stage
from scripts.page_pictures import PICTURES, browser
from scripts.processes import stop_on_signals

_SIZE = {"width": 1280, "height": 960}
#: For this long after its last commit, the page considers a task alive, whatever Airflow reports.
_UNTIL_DEAD_S = 4


def main() -> None:
    """Run all incidents, or those named."""
    stop_on_signals()
    local.HOME.mkdir(parents=True, exist_ok=True)
    incidents = [INCIDENTS[name] for name in sys.argv[1:] or INCIDENTS]
    print("| incident | clicks to the cause | words | seconds the browser took | clicks to fix it |")
    with stage([incident.name for incident in incidents]) as here, browser() as chromium:
        for incident in incidents:
            here.prepare(incident.name)
            if incident.name == "killed-worker":
                time.sleep(_UNTIL_DEAD_S)
            on_call = OnCall(here, chromium.new_page(viewport=_SIZE), PICTURES)
            started = time.monotonic()
            on_call.find_the_cause(incident)
            took, clicks, words = time.monotonic() - started, on_call.clicks, on_call.words
            on_call.mend(incident)
            print(f"| `{incident.name}` | {clicks} | {words} | {took:.0f} | {on_call.clicks - clicks} |", flush=True)
            on_call.page.close()


if __name__ == "__main__":
    main()
