"""Which requests the sandbox accepts: with a name of its own, and from web pages only its own."""

from __future__ import annotations

import pytest

PATHS = [
    ("POST", "/events"), ("POST", "/sandbox/reset"), ("PUT", "/sandbox/faults"), ("GET", "/sandbox/contacts"),
    ("GET", "/sandbox/events"), ("GET", "/"), ("GET", "/activity"), ("GET", "/style.css"), ("GET", "/no-such-page"),
    ("OPTIONS", "/events"),
]  # fmt: skip
KEY = {"Authorization": "sandbox-key", "Content-Type": "application/json"}
FOLLOWED = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def host_of(regal):
    return regal.sandbox.url.removeprefix("http://")


@pytest.mark.parametrize(("method", "path"), PATHS)
@pytest.mark.parametrize(
    "foreign",
    [
        {"Host": "evil.example"},
        {"Host": "evil.example:8010"},
        {"Host": "127.0.0.1.evil.example"},
        {"Host": "localhost.evil.example"},
        {"Host": "localhost@evil.example"},
        {"Host": ""},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "no-cors"},
        {**FOLLOWED, "Sec-Fetch-Dest": "iframe"},
    ],
    ids=str,
)
def test_what_comes_from_elsewhere_is_refused_and_changes_nothing(regal, method, path, foreign):
    regal.post({"userId": "anne"})
    reply = regal.request(method, path, b"{}" if method != "GET" else None, {**KEY, **foreign})
    assert reply.status == 403
    assert "anne" not in reply.text
    assert (regal.sandbox.stats()["requests"], regal.sandbox.stats()["stored"]) == (1, 1)


@pytest.mark.parametrize("name", ["localhost", "LOCALHOST:1", "localhost.", "127.0.0.1:99", "[::1]:8010", "192.0.2.7"])
def test_names_and_addresses_of_its_own_are_not(regal, name):
    assert regal.request("POST", "/events", b'{"userId": "anne"}', {**KEY, "Host": name}).status == 200


def test_its_own_pages_and_links_to_them_are_not(regal):
    own = {"Origin": regal.sandbox.url, "Sec-Fetch-Site": "same-origin"}
    assert regal.request("POST", "/sandbox/reset", b"", own).status == 200
    assert regal.request("GET", "/activity", None, {"Sec-Fetch-Site": "none"}).status == 200
    assert regal.request("GET", "/", None, FOLLOWED).status == 200
    assert regal.request("POST", "/sandbox/reset", b"", FOLLOWED).status == 403


def test_a_refusal_says_what_came_what_is_allowed_and_what_to_do(regal, run_sandbox):
    assert regal.request("GET", "/", None, {"Host": "regal:8010"}).json == {
        "message": "The request is for the host 'regal:8010', and this sandbox answers to localhost and IP addresses. "
        "If it is meant, start the sandbox with --allow-host regal."
    }
    named = run_sandbox(allow_hosts=["regal", "regal.internal"])
    assert "answers to localhost, regal, regal.internal and IP" in named.request("GET", "/", None, {"Host": "x"}).text
    assert regal.request("GET", "/", None, {"Origin": "http://evil.example"}).json == {
        "message": "The request comes from a page of another site (Origin: 'http://evil.example'). Of web pages, only "
        "the sandbox's own may send requests to it; programs always may."
    }


def test_a_name_that_is_allowed_is_answered_to_and_its_pages_are_its_own(run_sandbox):
    regal = run_sandbox(allow_hosts=["regal"])
    own = {**KEY, "Host": "Regal:8010", "Origin": "http://regal:8010"}
    assert regal.request("POST", "/events", b'{"userId": "anne"}', own).status == 200
    assert regal.request("GET", "/", None, {"Host": "regal.evil.example"}).status == 403


@pytest.mark.parametrize("name", ["", "*", "http://regal", "regal:8010", "Regal", "a b", ".regal"])
def test_what_is_no_host_name_is_an_error(run_sandbox, name):
    with pytest.raises(ValueError, match="not a host name"):
        run_sandbox(allow_hosts=[name])
