"""Events, contacts and consent, without any I/O and without Airflow.

::

    written event ─▶ reading ─┬─▶ models (contact, consent, traits, identifiers, times, values) ─▶ payload ─▶ JSON
    row, Segment call ─▶ rows ┘

The names below are loaded on first use: building the models takes time, which parsing a DAG file need not spend.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from airflow_provider_regal.events.consent import Consent, OptIn, Withheld
    from airflow_provider_regal.events.contact import Email, Phone
    from airflow_provider_regal.events.models import Event, Identify, Page, Screen, Track
    from airflow_provider_regal.events.options import ConsentPolicy, Reading
    from airflow_provider_regal.events.payload import Payload, to_payload
else:
    from importlib import import_module

    _HOMES = {
        "consent": ("Consent", "OptIn", "Withheld"),
        "contact": ("Email", "Phone"),
        "models": ("Event", "Identify", "Page", "Screen", "Track"),
        "options": ("ConsentPolicy", "Reading"),
        "payload": ("Payload", "to_payload"),
    }

    def __getattr__(name):  # noqa: ANN001, ANN202 - type checkers see the imports above
        for home, names in _HOMES.items():
            if name in names:
                globals()[name] = value = getattr(import_module(f"{__name__}.{home}"), name)
                return value
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "Consent",
    "ConsentPolicy",
    "Email",
    "Event",
    "Identify",
    "OptIn",
    "Page",
    "Payload",
    "Phone",
    "Reading",
    "Screen",
    "Track",
    "Withheld",
    "to_payload",
]
