"""The setup of ``make incident``: rows, healthy earlier runs, and five things that go wrong."""
