"""Transfers from a source to Regal."""
