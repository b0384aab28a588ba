"""What Airflow's assets and OpenLineage call the data of a Regal account."""
