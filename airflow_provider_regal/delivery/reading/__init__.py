"""Before the first send: each row is read, compared with the ledger, prepared, and kept in the snapshot.

``first_pass`` is where it starts; what it asks about a row has a module each.
"""
