"""Tasks: one operator a call."""
