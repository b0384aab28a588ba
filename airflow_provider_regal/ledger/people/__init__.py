"""People in the ledger: how identifiers are stored, evidence of their decisions, owed opt-outs, and suppressions."""
