"""The local Regal in a separate process, which keeps every request of a test and records its stalls.

``python -m tests.distributed.regal_server PORT KEY RATE_LIMIT STALLS_FILE``
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from airflow_provider_regal.sandbox.account import Account
from airflow_provider_regal.sandbox.server import listen, start
from airflow_provider_regal.sandbox.settings import SandboxSettings

BEAT_S = 0.005
NOTED_S = 0.01
_PRIORITY = 10


async def serve(account: Account, port: int, stalls: Path) -> None:
    """Serve until killed; each stall of the server is a line in ``stalls``: its end and duration."""
    await start(account, listen("127.0.0.1", port))
    with stalls.open("w", buffering=1) as out:
        while True:
            began = time.monotonic()
            await asyncio.sleep(BEAT_S)
            stall_s = time.monotonic() - began - BEAT_S
            if stall_s > NOTED_S:
                out.write(f"{time.time()} {stall_s}\n")


def main() -> None:
    """Read the command line and serve, with priority over other work if permitted: its clock judges the limit."""
    port, key, rate_limit, stalls = sys.argv[1:]
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(_PRIORITY))
    settings = SandboxSettings(api_key=key, rate_limit=int(rate_limit), keep_events=100_000)
    asyncio.run(serve(Account(settings), int(port), Path(stalls)))


if __name__ == "__main__":
    main()
