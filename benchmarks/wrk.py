"""wrk, which sends as fast as a compiled client can: the current capacity of this machine and server."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.running import CLIENT_CORE, alone_on

SCRIPT = Path(__file__).parent / "senders" / "post.lua"
MISSING = "wrk is not installed (Debian: apt-get install wrk); its rows are left out."


def installed() -> bool:
    """Return whether wrk is installed."""
    return shutil.which("wrk") is not None


def run(url: str, key: str, bodies: Path, *, connections: int, seconds: float) -> dict[str, Any]:
    """Post ready-made bodies for a while; certificates are not checked, since wrk can't.

    :param bodies: a file with one body per line.
    :raises RuntimeError: it failed, or an answer was not 200.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ran = subprocess.run(
        ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "-s", SCRIPT, url, "--", bodies, key],
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: alone_on(CLIENT_CORE),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode != 0:
        raise RuntimeError(f"wrk failed:\n{ran.stdout}\n{ran.stderr}")
    said = json.loads(ran.stdout.splitlines()[-1])
    if said["wrong"] or said["errors"]:
        raise RuntimeError(f"wrk got wrong answers: {said}")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"acknowledged": said["requests"], "wall_s": said["wall_s"], "cpu_s": round(cpu, 4)}
