"""A sync of opt-ins: a table of consents, compared with what is on record, becomes the rows of a delivery.

::

    columns ─▶ rows: one decision each ─▶ store: newest of each, beside the ledger's ─▶ reconcile ─▶ events
"""
