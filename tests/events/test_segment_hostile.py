"""Whatever an archive contains, a message becomes an event, is skipped, or has faults; nothing else happens."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import to_payload
from airflow_provider_regal.events.models import EVENTS
from airflow_provider_regal.events.rows.segment import Invalid, Message, Skipped, read_message
from tests.events.hostile import (
    NAME,
    SECRETS,
    emails,
    many,
    members,
    mostly,
    opt_in_lists,
    phones,
    times,
    traits,
    truths,
)
from tests.events.saying import NOW

WRITE_KEY = "wk-hidden-5150"

switches = mostly(
    members(All=truths, Regal=truths, Segment=truths).map(
        lambda given: {"Regal.io" if key == "Segment" else key: value for key, value in given.items()}
    )
)
contexts = mostly(
    members(
        ip=mostly("198.51.100.7", "::1", ""),
        library=mostly(members(name=mostly("analytics.js", "analytics-python", "analytics-ios"))),
        traits=mostly(members(phone=phones, email=emails, optIn=opt_in_lists, firstName=mostly(NAME))),
        device=mostly({}, {"type": "ios"}),
    )
)
messages = members(
    type=mostly("identify", "track", "page", "screen", "alias", "group"),
    messageId=mostly("m-1", "", 5),
    anonymousId=mostly("a-1", ""),
    userId=mostly("cust-0042", "", 42),
    event=mostly("Order Completed"),
    name=mostly("Home"),
    traits=traits,
    properties=mostly(members(amount=mostly(1, "x"))),
    context=contexts,
    integrations=switches,
    channel=mostly("browser", "server"),
    timestamp=times,
    originalTimestamp=times,
    writeKey=mostly(WRITE_KEY),
)
includes = st.sets(st.sampled_from(["page", "screen"]))


def as_archived(value):
    """As it would be read from a line of JSON."""
    return json.loads(json.dumps(value, default=str, skipkeys=True))


def check(message, include):
    read = read_message(message, include)
    assert isinstance(read, Message | Skipped | Invalid)
    said = repr(read)
    if isinstance(read, Message):
        assert WRITE_KEY not in repr(read.written)
        try:
            to_payload(EVENTS[read.call].read(read.written), now=NOW)
        except InvalidEventError as error:
            said += str(error)
    assert not [secret for secret in SECRETS if len(secret) > 3 and secret in said]


@many
@given(message=messages, include=includes)
def test_a_message_of_hostile_values(message, include):
    check(message, include)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
known = st.sampled_from(
    ["type", "traits", "context", "integrations", "userId", "timestamp", "optIn", "phone", "ip", "library", "messageId"]
)
objects = st.dictionaries(known | st.text(max_size=5), json_values, max_size=8)


@many
@given(message=objects, kind=st.sampled_from(["identify", "track", "page", "screen", "alias", None]), include=includes)
def test_any_object_of_json(message, kind, include):
    message = as_archived(message)
    check({**message, **({} if kind is None else {"type": kind})}, include)
