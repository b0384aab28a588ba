"""What people and housekeeping ask of the ledger: history, forgetting a person, retention, moving to another database.

Nothing a row waits for. Deliveries use only what is outside this folder, and start ``retention`` as they end.
"""
