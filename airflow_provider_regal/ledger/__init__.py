"""The ledger: the package's only memory, an SQL database that is always present.

::

    Database ── one transaction at a time: read() or write(), with timeouts and retries
       │
       ├─ deliveries   who delivers what, who holds it now, its counts, its snapshot in chunks; its ``Commit`` writes
       │               these, the outcomes and the account's records in one conditional transaction, or nothing
       ├─ outcomes     one line per row that was sent, rejected or is unknown; payloads of dead letters
       ├─ account      what is known of an account: consents, contacts, message ids, types
       ├─ people       how identifiers are stored, evidence of decisions, owed opt-outs, suppressions
       └─ admin        what people ask: history, one person's timeline, forgetting, retention, copying

``rules`` and ``states`` are pure. Nothing is stored in two places, so nothing has to be reconciled after a crash.
"""
