"""Send one event, for the tests of the sender."""

from __future__ import annotations

import pytest

from airflow_provider_regal.client.one import Sender
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.client.target import target_of
from airflow_provider_regal.errors import RegalError
from airflow_provider_regal.events import Payload
from tests.client.fake_clock import FakeClock

TRACK = Payload("track", {"userId": "anne-1", "name": "Lesson Booked", "properties": {"price": 45.0}})
KEY = "sandbox-key"


def sender(origin, *, timeout=5.0, patience_s=60.0, clock=None, pacer=None, key=KEY, **options) -> Sender:
    target = target_of("regal_of_test", host=origin, port=None, password=key, extra={"timeout": timeout})
    clock = clock or FakeClock()
    return Sender(target, pacer=pacer or Pacer(1_000), patience_s=patience_s, clock=clock.clock, **options)


def once(origin, guarantee="at_most_once", **options) -> RegalError:
    """Send once, expecting a failure."""
    with pytest.raises(RegalError) as raised:
        sender(origin, patience_s=0, **options).send(TRACK, guarantee)
    return raised.value
