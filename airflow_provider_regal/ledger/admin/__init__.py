"""Queries and maintenance of the ledger: history, forgetting a person, retention, copying to another database.

Sending a row never waits for this. Deliveries only use modules outside this folder, and run ``retention`` when they
end.
"""
