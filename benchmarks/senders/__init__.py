"""The candidates: each module sends rows of the same table to the same server, in its own way.

``python -m benchmarks.senders NAME WORK`` runs one in its own process: first some rows that are not measured, so that
imports and first connections don't count, then the measured ones.
"""
