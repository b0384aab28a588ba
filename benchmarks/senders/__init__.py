"""The candidates: each module sends rows of the same table to the same server, in the way its name says.

``python -m benchmarks.senders NAME WORK`` runs one in a process of its own: first some rows that are not measured, so
that nothing is charged for imports and first connections, then those that are.
"""
