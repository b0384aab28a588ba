"""``python -m airflow_provider_regal``."""

import sys

from airflow_provider_regal.cli import main

if __name__ == "__main__":
    sys.exit(main())
