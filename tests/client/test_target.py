"""A connection is validated strictly, and every mistake has one clear message that never shows the key."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal import defaults
from airflow_provider_regal.client.target import check_extra, is_loopback, target_of
from airflow_provider_regal.errors import FixConnectionError

KEY = "k3y-0f-R3gal"


def target(host=None, *, port=None, password=KEY, **extra):
    return target_of("regal_of_test", host=host, port=port, password=password, extra=extra)


def complaint(*args, **kwargs) -> str:
    with pytest.raises(FixConnectionError) as raised:
        target(*args, **kwargs)
    assert raised.value.__cause__ is None
    assert raised.value.__suppress_context__ or raised.value.__context__ is None
    message = str(raised.value)
    assert message.startswith("Connection 'regal_of_test': ")
    assert "\n" not in message
    return message


def test_an_api_key_is_enough():
    read = target()
    assert read.events_url == "https://events.regalvoice.com/events"
    assert (read.api_key, read.rate_limit, read.timeout_s) == (KEY, defaults.RATE_LIMIT, defaults.TIMEOUT_S)
    assert (read.event_source, read.dry_run) == ("airflow", False)


def test_the_key_is_in_no_representation():
    assert KEY not in repr(target())
    assert KEY not in str(target())


@pytest.mark.parametrize(
    ("key", "says"),
    [
        (None, "API key is missing"),
        ("", "API key is missing"),
        ("Bearer s3cr3t-k3y", "'Bearer' or 'Basic'"),
        ("bearer s3cr3t-k3y", "'Bearer' or 'Basic'"),
        ("Basic s3cr3t-k3y", "'Bearer' or 'Basic'"),
        (" s3cr3t-k3y", "space or line break"),
        ("s3cr3t-k3y\n", "space or line break"),
        ("s3cr3t k3y", "space or line break"),
        ("s3cr3t\r\nX-Evil: k3y", "space or line break"),
        ("s3cr3t\N{NO-BREAK SPACE}k3y", "space or line break"),
        ("s3cr3t-kéy", "a character that no key has"),
        ("s3cr3t\x00k3y", "a character that no key has"),
        ("s3cr3t\N{ZERO WIDTH SPACE}k3y", "a character that no key has"),
    ],
)
def test_a_key_that_cannot_be_one_is_refused_and_not_shown(key, says):
    message = complaint(password=key)
    assert says in message
    assert "key" in message
    assert not re.search("s3cr3t|k3y", message)


@pytest.mark.parametrize(
    ("host", "port", "origin"),
    [
        (None, None, "https://events.regalvoice.com"),
        ("", None, "https://events.regalvoice.com"),
        ("  ", None, "https://events.regalvoice.com"),
        ("events.regalvoice.com", None, "https://events.regalvoice.com"),
        ("https://events.regalvoice.com/", None, "https://events.regalvoice.com"),
        ("https://events.regalvoice.com/events", None, "https://events.regalvoice.com"),
        ("HTTPS://Events.RegalVoice.com/events/", None, "https://events.regalvoice.com"),
        (" https://events.regalvoice.com ", None, "https://events.regalvoice.com"),
        ("proxy.internal", 8443, "https://proxy.internal:8443"),
        ("proxy.internal:9443", 8443, "https://proxy.internal:9443"),
        ("https://[2001:db8::1]:8443", None, "https://[2001:db8::1]:8443"),
        ("http://127.0.0.1:8010", None, "http://127.0.0.1:8010"),
        ("http://127.0.0.1", 8010, "http://127.0.0.1:8010"),
        ("http://127.0.0.2:8010", None, "http://127.0.0.2:8010"),
        ("http://localhost:8010", None, "http://localhost:8010"),
        ("http://LOCALHOST:8010/events", None, "http://localhost:8010"),
        ("http://[::1]:8010", None, "http://[::1]:8010"),
        ("http://[::1]", 8010, "http://[::1]:8010"),
        ("localhost:8010", None, "https://localhost:8010"),
    ],
)
def test_a_host_may_be_written_as_people_do(host, port, origin):
    assert target(host, port=port).origin == origin


@pytest.mark.parametrize(
    "host",
    [
        "http://events.regalvoice.com",
        "http://127.0.0.1.evil.example",
        "http://localhost.evil.example",
        "http://evil.example/127.0.0.1",
        "http://0.0.0.0",
        "http://127.1",
        "http://2130706433",
        "http://10.0.0.1",
        "http://[2001:db8::1]",
        "http://[::]",
    ],
)
def test_plain_http_is_for_this_machine_only(host):
    assert re.search("plain http would send the API key in clear|a path other than", complaint(host))


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("https://events.regalvoice.com/v1", "a path other than /events"),
        ("https://events.regalvoice.com/events/more", "a path other than /events"),
        ("https://events.regalvoice.com?x=1", "a user, a query or a fragment"),
        ("https://events.regalvoice.com#x", "a user, a query or a fragment"),
        ("https://user@events.regalvoice.com", "a user, a query or a fragment"),
        ("https://:hunter2@events.regalvoice.com", "a user, a query or a fragment"),
        ("http://127.0.0.1@evil.example", "a user, a query or a fragment"),
        ("http://127.0.0.1\\.evil.example", "not a host name"),
        ("ftp://events.regalvoice.com", "not a host name or an http(s) URL"),
        ("https//events.regalvoice.com", "a path other than"),
        ("mailto:someone", "not a URL"),
        ("https://", "not a host name"),
        ("https://events regalvoice.com", "a space or line break"),
        ("https://events.regal\nvoice.com", "a space or line break"),
        ("https://events.regal\tvoice.com", "a space or line break"),
        ("https://events_regal.com", "not a host name"),
        ("https://-events.com", "not a host name"),
        ("https://events..com", "not a host name"),
        ("https://" + "a" * 64 + ".com", "not a host name"),
        ("https://<host>", "not a host name"),
        ("https://events.com%2f", "not a host name"),
        ("https://évents.com", "not a host name"),
        ("https://{{ host }}", "a space or line break"),
        ("https://[::1", "not a URL"),
        ("https://[fe80::1%25eth0]", "not a"),
        ("::1", "not a URL"),
        ("https://events.com:99999", "not a URL"),
        ("https://events.com:port", "not a URL"),
    ],
)
def test_a_host_that_cannot_be_one_is_refused(host, says):
    message = complaint(host)
    assert "the host" in message
    assert says in message
    assert "hunter2" not in message


@pytest.mark.parametrize("port", [-1, 65_536, 10**9])
def test_an_impossible_port_is_refused(port):
    assert "the port must be from 1 to 65535" in complaint("events.regalvoice.com", port=port)


@pytest.mark.parametrize(("given", "limit"), [(50, 50), ("50", 50), (" 50 ", 50), (50.0, 50), ("", 100), (None, 100)])
def test_rate_limit_may_be_a_number_or_its_text(given, limit):
    read = target(rate_limit=given).rate_limit
    assert (read, type(read)) == (limit, int)


@pytest.mark.parametrize("given", [0, -5, "fast", "12 per s", True, [50], {"n": 1}, "nan", "inf", 1e30, 10**400])
def test_a_rate_limit_of_the_wrong_kind_is_refused(given):
    assert "rate_limit must be a number above 0" in complaint(rate_limit=given)


def test_a_rate_limit_is_whole():
    assert "rate_limit must be a whole number" in complaint(rate_limit=0.5)


@pytest.mark.parametrize(("given", "timeout_s"), [(5, 5), ("2.5", 2.5), (0.1, 0.1), ("", 30), (None, 30)])
def test_timeout_may_be_a_number_or_its_text(given, timeout_s):
    assert target(timeout=given).timeout_s == timeout_s


@pytest.mark.parametrize("given", [0, -1, "never", False, [1], "inf", "nan", 1e20, 10**400])
def test_a_timeout_of_the_wrong_kind_is_refused(given):
    assert "timeout must be a number above 0" in complaint(timeout=given)


@pytest.mark.parametrize(
    ("given", "dry_run"),
    [(True, True), (False, False), ("true", True), ("False", False), (" TRUE ", True), ("", False), (None, False)],
)
def test_dry_run_is_true_or_false(given, dry_run):
    assert target(dry_run=given).dry_run is dry_run


@pytest.mark.parametrize("given", ["yes", "on", 1, 0, "ja", [True]])
def test_any_other_dry_run_is_refused_rather_than_sent(given):
    assert "dry_run must be true or false" in complaint(dry_run=given)


@pytest.mark.parametrize(("given", "source"), [("crm", "crm"), (" crm ", "crm"), ("", "airflow"), ("  ", "airflow")])
def test_event_source_is_text(given, source):
    assert target(event_source=given).event_source == source
    assert "event_source must be text" in complaint(event_source={"a": 1})


@given(host=st.text(), port=st.none() | st.integers(), key=st.none() | st.text())
def test_no_connection_is_too_odd_for_a_clear_error(host, port, key):
    try:
        read = target(host, port=port, password=key)
    except FixConnectionError as error:
        assert not key or len(key) < 12 or key not in str(error)
    else:
        assert read.origin.startswith("https://") or is_loopback(read.origin.split("/")[2].split(":")[0])


def test_an_extra_that_nothing_reads_is_refused_with_what_may_be_there():
    said = complaint(dry_runn=True, rate_limit=5)
    assert "the extra holds 'dry_runn', which nothing reads" in said
    assert "dry_run" in said.partition("It may hold")[2]


@pytest.mark.parametrize("extra", ['{"dry_run": true,}', "[1]", '"x"', "dry_run=true"])
def test_an_extra_that_is_no_json_object_is_refused(extra):
    with pytest.raises(FixConnectionError, match="the extra is not a JSON object"):
        check_extra("c", extra)


@pytest.mark.parametrize("extra", [None, "", "{}", '{"rate_limit": 5}'])
def test_an_extra_that_is_a_json_object_or_empty_is_fine(extra):
    check_extra("c", extra)
