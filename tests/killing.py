"""Programs that are killed while Regal keeps them waiting."""

from __future__ import annotations

import os
import subprocess
import sys
import time


def kill_while_sending(regal, program, *arguments):
    """Run a program in a process of its own, and kill it once its request has arrived."""
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], env=dict(os.environ))
    ends = time.monotonic() + 60
    while not regal.stats()["requests"] and time.monotonic() < ends:
        time.sleep(0.05)
    process.kill()
    process.wait()
    assert regal.stats()["requests"]
