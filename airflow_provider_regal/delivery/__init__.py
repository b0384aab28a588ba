"""Many rows, each with an outcome.

::

    rows ─▶ reading: first_pass ─▶ snapshot ─▶ sending: admission ─▶ window ─▶ engine ─▶ recorder ─▶ report
                │                  (ledger)               │             └─ retry ─┘         │
                └─▶ skipped: unchanged                    └─▶ rejected, skipped ────────────┴─▶ commit (ledger)

``delivery`` decides what a try has to do (``resume``, and ``approved`` for a plan) and runs it; ``dry_run`` lets it run
on a ledger that is thrown away. ``reading`` is what happens before the first send, ``sync`` the reading of a table of
consents, ``sending`` what happens from then on. Nothing here knows Airflow.
"""
