"""Everything before the first send: read each row, compare it with the ledger, prepare it, store it in the snapshot.

Start with ``first_pass``; each question it asks about a row has its own module.
"""
