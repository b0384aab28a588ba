"""The names of an account's data in Airflow's assets and OpenLineage."""
