"""Many rows, each with an outcome.

::

    rows ─▶ snapshot ─▶ prepare: map, validate ─▶ order ─▶ gate, pace ─▶ send ─▶ acknowledged ─┐
                                  │                            ▲          │                    ├▶ progress ─▶ report
                                  └─▶ rejected ─┐              └─ retry ──┤                    │
                                                └─────▶ dead letters ◀────┴─▶ rejected, unknown┘

``run`` opens the run folder and decides what a try has to do; ``engine`` does it, on one asyncio loop.
"""
