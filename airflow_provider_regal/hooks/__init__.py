"""Hooks: Airflow's connection to Regal."""
