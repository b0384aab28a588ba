"""Notifiers, for callbacks of DAGs and tasks and for deadline alerts."""
