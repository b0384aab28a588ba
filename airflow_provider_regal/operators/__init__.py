"""Operators: one for each call."""
