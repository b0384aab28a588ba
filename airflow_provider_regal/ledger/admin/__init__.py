"""Queries and maintenance of the ledger: history, forgetting a person, retention, copying to another database.

``delivery`` and ``sources`` import nothing from this folder, so no row waits for it. When a delivery has ended, its
hook uses the folder: for the next steps in the error message, and for ``retention``.
"""
