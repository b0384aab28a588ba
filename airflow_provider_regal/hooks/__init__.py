"""How Airflow reaches Regal."""
