"""Deliver many rows and record an outcome for each.

::

    rows ─▶ reading: first_pass ─▶ snapshot ─▶ sending: admission ─▶ window ─▶ engine ─▶ recorder ─▶ report
                │                  (ledger)               │             └─ retry ─┘         │
                └─▶ skipped: unchanged                    └─▶ rejected, skipped ────────────┴─▶ commit (ledger)

``delivery`` decides what a try has to do (with ``resume``, and ``approved`` for a plan) and runs it; ``dry_run`` runs
it on a temporary ledger. ``reading`` covers everything before the first send, ``sending`` everything after it, and
``sync`` the reading of a consent table. Nothing here imports Airflow.
"""
