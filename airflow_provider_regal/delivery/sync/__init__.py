"""A sync of opt-ins: compare a consent table with what is on record, and turn the changes into rows of a delivery.

::

    columns ─▶ rows: one decision each ─▶ store: newest of each, beside the ledger's ─▶ reconcile ─▶ events
"""
