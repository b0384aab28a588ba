"""Follow docs/quickstart.md literally in a new folder, except the installation, and take its pictures.

The test of the page does the same.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from scripts.local import PROJECT, wait_for
from scripts.page_pictures import PICTURES, browser, take
from scripts.processes import free_port, running, stop_on_signals

PAGE = PROJECT / "docs" / "quickstart.md"
STEP = re.compile(r"^## (\d)\. [^\n]*\n(.*?)(?=^## )", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^```(\S*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INSTALL, LOOK = 1, 5
FOR_THE_SHELL = ("export ", ". ")


def follow(folder: Path) -> Iterator[tuple[int, str, str]]:
    """Run each step; yield its number, the sandbox's URL, and the output of the step's commands."""
    (folder / "venv" / "bin").mkdir(parents=True)
    (folder / "venv" / "bin" / "activate").write_text(f'export PATH="{Path(sys.executable).parent}:$PATH"\n')
    env = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW", "PYTEST"))}
    port, ui_port = free_port(8010), free_port(8080)
    env |= {
        "AIRFLOW__API__PORT": str(ui_port),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://localhost:{ui_port}/execution/",
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port(8794)),
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port(8793)),
    }
    said_before: list[str] = []
    with ExitStack() as stack:
        for number, text in STEP.findall(PAGE.read_text()):
            if int(number) == INSTALL:
                continue
            printed = ""
            for file, language, code in blocks(text):
                if file is not None:
                    (folder / file).write_text(code)
                elif language == "sh" and " sandbox" in code:
                    log = folder / "sandbox.log"
                    script = f"cd {folder}; . venv/bin/activate; exec {code.strip()} --port {port}"
                    process = stack.enter_context(running(["bash", "-c", script], env, log))
                    wait_for(f"http://127.0.0.1:{port}/sandbox/stats", process, log, patience_s=30)
                elif language == "sh" and "standalone" in code:
                    log = folder / "standalone.log"
                    script = "\n".join([f"cd {folder}", *said_before, f"exec {code.strip()}"])
                    process = stack.enter_context(running(["bash", "-c", script], env, log))
                    printed += f"http://localhost:{ui_port}"
                    wait_for(f"http://localhost:{ui_port}/api/v2/version", process, log, patience_s=300)
                elif language == "sh":
                    lines = code.replace("8010", str(port)).splitlines()
                    script = "\n".join(["set -euo pipefail", *said_before, *lines])
                    printed += run(script, folder, env)
                    said_before += [line for line in lines if line.startswith(FOR_THE_SHELL)]
            yield int(number), f"http://127.0.0.1:{port}", printed


def blocks(text: str) -> Iterator[tuple[str | None, str, str]]:
    """Find the code blocks of a step: the file to save each in, if any, its language, and its text."""
    end = 0
    for fence in FENCE.finditer(text):
        files = re.findall(r"[Ss]ave this as `([^`]+)`|And this as `([^`]+)`", text[end : fence.start()])
        end = fence.end()
        language, code = fence.groups()
        yield (files[-1][0] or files[-1][1] if files else None), language, code


def run(script: str, folder: Path, env: dict[str, str]) -> str:
    """Run commands in a shell, and return their output."""
    ran = subprocess.run(["bash", "-c", script], cwd=folder, env=env, capture_output=True, text=True, check=False)
    if ran.returncode:
        raise SystemExit(f"{script}\n{ran.stdout[-3000:]}\n{ran.stderr[-3000:]}")
    return ran.stdout


def main() -> None:
    """Take the pictures."""
    stop_on_signals()
    with tempfile.TemporaryDirectory() as folder:
        for number, sandbox, printed in follow(Path(folder)):
            print(f"step {number}\n{printed[-600:]}")
            if number == LOOK:
                with browser() as chromium:
                    take(chromium, sandbox, PICTURES / "quickstart-audience.png", (1100, 420), "light")
                    take(chromium, f"{sandbox}/activity", PICTURES / "quickstart-activity.png", (1100, 620), "light")


if __name__ == "__main__":
    main()
