"""From a source to Regal."""
