"""What Airflow learns about this package before it imports any of it."""

from __future__ import annotations

from typing import Any

from airflow_provider_regal import __version__
from airflow_provider_regal.connection_form import CONN_FIELDS, HIDDEN_FIELDS, PLACEHOLDERS, RELABELING


def get_provider_info() -> dict[str, Any]:
    """Describe the provider to Airflow."""
    return {
        "package-name": "airflow-provider-regal",
        "name": "Regal",
        "description": "Sends contacts, events and opt-ins to `Regal.io <https://www.regal.ai/>`__.",
        "versions": [__version__],
        "hooks": [{"integration-name": "Regal", "python-modules": ["airflow_provider_regal.hooks.regal"]}],
        "operators": [
            {
                "integration-name": "Regal",
                "python-modules": [
                    f"airflow_provider_regal.operators.{call}"
                    for call in ("identify", "track", "page", "screen", "rows", "opt_in", "redeliver")
                ],
            }
        ],
        "transfers": [
            {
                "source-integration-name": "SQL",
                "target-integration-name": "Regal",
                "python-module": "airflow_provider_regal.transfers.sql_to_regal",
            },
            {
                "source-integration-name": "Files",
                "target-integration-name": "Regal",
                "python-module": "airflow_provider_regal.transfers.file_to_regal",
            },
        ],
        "task-decorators": [
            {"name": "regal", "class-name": "airflow_provider_regal.decorators.regal.regal_task"},
        ],
        "integrations": [
            {
                "integration-name": "Regal",
                "external-doc-url": "https://developer.regal.ai/",
                "tags": ["service"],
            }
        ],
        "connection-types": [
            {
                "connection-type": "regal",
                "hook-name": "Regal",
                "hook-class-name": "airflow_provider_regal.hooks.regal.RegalHook",
                "ui-field-behaviour": {
                    "hidden-fields": HIDDEN_FIELDS,
                    "relabeling": RELABELING,
                    "placeholders": PLACEHOLDERS,
                },
                "conn-fields": CONN_FIELDS,
            }
        ],
        "extra-links": ["airflow_provider_regal.links.RegalDeadLettersLink"],
        "cli": ["airflow_provider_regal.cli.get_cli_commands"],
        "config": {
            "regal": {
                "description": "Settings of the Regal provider.",
                "options": {
                    "dry_run": {
                        "description": (
                            "Check every event and send none, in every task. A connection can do the same for "
                            "itself with the extra ``dry_run``."
                        ),
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                    "ledger_key": {
                        "description": (
                            "Ledgers hold phones, emails and ids as HMAC-SHA256 with this key, so that they name "
                            "nobody. Empty: as they are. An account keeps the key it began with."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "sensitive": True,
                        "example": None,
                        "default": "",
                    },
                    "retention_days": {
                        "description": "Run folders nothing was written to for so long are removed.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "30",
                    },
                    "storage_path": {
                        "description": (
                            "Where tasks keep rows, progress and dead letters: a folder that every worker sees, or "
                            "a bucket, ``s3://conn_id@bucket/prefix``. Empty: ``regal`` beside the DAGs folder."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "/mnt/shared/regal",
                        "default": "",
                    },
                },
            }
        },
    }
