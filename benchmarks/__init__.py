"""How fast it is, measured against others: ``make bench`` runs all of it and writes ``docs/performance.md``."""
