"""From the first send on: rows of the snapshot are admitted, ordered, paced, sent, and their outcomes committed.

::

    snapshot ─▶ admission ─▶ window (order) ─▶ engine (gate, pace) ─▶ Regal
                                                  └─▶ recorder ─▶ commit, and the next reservation
"""
