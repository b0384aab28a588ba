"""What a ledger does, whatever database it lies in: all checks."""

from __future__ import annotations

from tests.journal import ledger_claims, ledger_crowd, ledger_memory

CHECKS = [
    check
    for module in (ledger_claims, ledger_memory, ledger_crowd)
    for name, check in vars(module).items()
    if name.startswith("check_")
]
NAMES = [check.__name__.removeprefix("check_") for check in CHECKS]
