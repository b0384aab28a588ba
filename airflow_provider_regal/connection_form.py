"""The connection form in the Airflow UI: defined once, read as metadata since 3.2 and through the hook before."""

from __future__ import annotations

from typing import Any, Final

from airflow_provider_regal import defaults

# Regal has no user name, no database and no other port, and each option in the extra has its own field.
HIDDEN_FIELDS: Final = ["login", "schema", "port", "extra"]
RELABELING: Final = {"password": "API key", "host": "Events URL"}
PLACEHOLDERS: Final = {
    "host": defaults.HOST,
    "password": "the key alone, from Regal: Settings > Integrations",
}

CONN_FIELDS: Final[dict[str, Any]] = {
    "rate_limit": {
        "label": "Rate limit (requests/s)",
        "description": (
            f"A task never sends more in any second. Empty: {defaults.RATE_LIMIT}, Regal's advice for syncs; an "
            "account may send 300 in all unless Regal raised it."
        ),
        "schema": {"type": ["integer", "null"], "default": defaults.RATE_LIMIT, "minimum": 1},
    },
    "timeout": {
        "label": "Timeout (s)",
        "description": f"How long to wait for an answer to one request. Empty: {defaults.TIMEOUT_S:.0f}.",
        "schema": {"type": ["number", "null"], "default": defaults.TIMEOUT_S, "exclusiveMinimum": 0},
    },
    "event_source": {
        "label": "Event source",
        "description": f"Where events come from, as Regal shows it. Empty: {defaults.EVENT_SOURCE}.",
        "schema": {"type": ["string", "null"], "default": defaults.EVENT_SOURCE},
    },
    "account": {
        "label": "Account",
        "description": (
            "The name of this Regal account in the ledger. Set it if several connections lead to one account. "
            "Empty: the connection id."
        ),
        "schema": {"type": ["string", "null"], "default": ""},
    },
    "dry_run": {
        "label": "Dry run",
        "description": "Check every event and send none.",
        "schema": {"type": ["boolean", "null"], "default": False},
    },
}


def widgets_of_2_11() -> dict[str, Any]:
    """Build the fields for Airflow 2.11 to 3.1, which render forms with wtforms.

    Without that library, as in Airflow 3.0 without the FAB provider, there are none: Airflow shows its generic form.
    """
    try:
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import BooleanField, IntegerField, StringField
        from wtforms.validators import NumberRange, Optional, Regexp
    except ImportError:
        return {}

    # Airflow 2.11 rejects a hook with a field of any other class, so the timeout, which may have a fraction, is text.
    kinds = dict.fromkeys(CONN_FIELDS, StringField) | {"rate_limit": IntegerField, "dry_run": BooleanField}
    above_0 = Regexp(r"(?!0*\.?0*$)[0-9]+(\.[0-9]+)?$", message="A number above 0.")
    limits = {"rate_limit": [Optional(), NumberRange(min=1)], "timeout": [Optional(), above_0]}
    text = {"widget": BS3TextFieldWidget()}
    return {
        name: kinds[name](
            field["label"],
            description=field["description"],
            default=field["schema"]["default"],
            validators=limits.get(name, []),
            **({} if name == "dry_run" else text),
        )
        for name, field in CONN_FIELDS.items()
    }
