"""Admit, order, pace and send the rows of the snapshot, and commit their outcomes.

::

    snapshot ─▶ admission ─▶ window (order) ─▶ engine (gate, pace) ─▶ Regal
                                                  └─▶ recorder ─▶ commit, and the next reservation
"""
