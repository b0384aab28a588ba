"""Speed compared with alternatives: ``make bench`` runs all benchmarks and writes ``docs/performance.md``."""
