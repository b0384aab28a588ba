"""Send contacts, events and opt-ins from Apache Airflow to Regal.io."""

__version__ = "0.1.0"
