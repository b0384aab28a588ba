"""The public names are loaded on first use, and all exist."""

from __future__ import annotations

import pytest

from airflow_provider_regal import events
from airflow_provider_regal.events.models import Identify, Track
from airflow_provider_regal.events.options import ConsentPolicy, Reading


def test_every_public_name_is_there():
    assert [name for name in events.__all__ if getattr(events, name).__name__ != name] == []
    assert {"Identify", "Track", "Page", "Screen", "OptIn"} <= set(events.__all__)


def test_a_public_name_is_the_one_of_its_module():
    assert (events.Identify, events.Track) == (Identify, Track)
    assert (events.ConsentPolicy, events.Reading) == (ConsentPolicy, Reading)


def test_a_name_that_is_not_there_is_said_so():
    with pytest.raises(AttributeError, match=r"airflow_provider_regal\.events.*'Identity'"):
        events.Identity  # noqa: B018
    with pytest.raises(ImportError, match="Identity"):
        from airflow_provider_regal.events import Identity  # noqa: F401
