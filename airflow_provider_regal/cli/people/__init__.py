"""Commands about people: records of one person, owed opt-outs, suppressing, and forgetting."""
