"""What ``make incident`` prepares: rows, healthy earlier runs, and five things that go wrong."""
