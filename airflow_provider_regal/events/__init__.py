"""What is said: events, contacts and consent, without any I/O and without Airflow.

::

    written event ─▶ reading ─▶ models (contact, consent, traits, identifiers, times, values) ─▶ payload ─▶ JSON
"""

from airflow_provider_regal.events.consent import Consent, ConsentPolicy, OptIn, Withheld
from airflow_provider_regal.events.contact import Email, Phone
from airflow_provider_regal.events.models import Event, Identify, Page, Screen, Track
from airflow_provider_regal.events.payload import Payload, to_payload
from airflow_provider_regal.events.values import Reading

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
