"""Many rows, each with an outcome.

::

    rows ─▶ first_pass ─▶ snapshot ─▶ admission ─▶ window ─▶ engine: gate, pace, send ─▶ recorder ─▶ report
                │         (ledger)       │                     └─── retry ───┘             │
                └─▶ skipped: unchanged   └─▶ rejected, skipped ────────────────────────────┴─▶ commit (ledger)

``delivery`` decides what a try has to do (``resume``) and runs it; ``preview`` is the same without sending. ``sync``
makes rows of a table of consents. Nothing here knows Airflow.
"""
