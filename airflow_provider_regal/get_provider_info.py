"""The provider's metadata, which Airflow reads before it imports any other module of this package."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_regal import __version__
from airflow_provider_regal.connection_form import CONN_FIELDS, HIDDEN_FIELDS, PLACEHOLDERS, RELABELING

#: Assets in Airflow 3, datasets in Airflow 2.
_URIS: Final = [
    {
        "schemes": ["regal"],
        "handler": "airflow_provider_regal.assets.regal.sanitize_uri",
        "to_openlineage_converter": "airflow_provider_regal.assets.regal.to_openlineage",
    }
]


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
                    f"airflow_provider_regal.operators.{module}"
                    for module in (
                        "identify",
                        "track",
                        "page",
                        "screen",
                        "rows",
                        "opt_in",
                        "plan",
                        "redeliver",
                        "bulk",
                    )
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
        "notifications": ["airflow_provider_regal.notifications.regal.RegalNotifier"],
        "asset-uris": _URIS,
        "dataset-uris": _URIS,
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
                            "The ledger holds phones, emails and ids as HMAC-SHA256 with this key, so that it names "
                            "no one. Empty: as they are. An account keeps the key it began with."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "sensitive": True,
                        "example": None,
                        "default": "",
                    },
                    "ledger_conn_id": {
                        "description": (
                            "Connection of the ledger's database: PostgreSQL or MySQL/MariaDB, for any number of "
                            "workers. Empty: the SQLite file ``regal/ledger.db`` in Airflow's home, for one machine."
                        ),
                        "version_added": "0.1.0",
                        "type": "string",
                        "example": "regal_ledger",
                        "default": "",
                    },
                    "allow_local_ledger": {
                        "description": (
                            "Use the SQLite file even with an executor that can run tasks on other machines: all its "
                            "workers are on this one."
                        ),
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                    "people_page": {
                        "description": (
                            "Show the page about one person (all that is on record of a phone, email or user id) to "
                            "users who may change connections. It needs Airflow 3.1."
                        ),
                        "version_added": "0.1.0",
                        "type": "boolean",
                        "example": None,
                        "default": "False",
                    },
                    "history_days": {
                        "description": "Deliveries and the outcomes of their rows are kept for so many days.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "90",
                    },
                    "dead_letter_days": {
                        "description": "Payloads of rejected and unknown rows are kept for so many days.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "30",
                    },
                    "plan_days": {
                        "description": "A plan that is not sent within so many days expires: its rows are dropped.",
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": None,
                        "default": "7",
                    },
                    "consent_days": {
                        "description": (
                            "Lines of the consent log are kept for so many days, and longer while they prove an "
                            "opt-in that Regal still has. Empty: forever."
                        ),
                        "version_added": "0.1.0",
                        "type": "integer",
                        "example": "1825",
                        "default": "",
                    },
                },
            }
        },
    }
