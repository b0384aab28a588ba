"""Check, single events and deliveries reach Regal, or fail, in the same way in every environment.

The target is a TLS server with a certificate of the test's own authority, under a name that only the test's proxy
knows.
"""

from __future__ import annotations

import itertools
import logging
import time

import pytest

from airflow_provider_regal.client.environment import CA_VARIABLES, NO_HTTP, NO_PROXY_CONNECTION, NO_TLS
from airflow_provider_regal.client.exchange import Answer
from airflow_provider_regal.client.many import ManySender
from airflow_provider_regal.client.probe import ask
from airflow_provider_regal.client.target import target_of
from airflow_provider_regal.errors import FixConnectionError, RetryLaterError
from tests.client import loops
from tests.client.certificates import Authority
from tests.client.proxy import tunneling
from tests.client.raw_server import RawServer, answering, http, unused_port
from tests.client.sending import KEY, TRACK, sender

HOST = "events.regal.test"
REGAL = f"https://{HOST}"
UNKNOWN_HOST = "the host name could not be resolved"
USER = "someone:hunter2"


def check(origin):
    probed = ask(origin)
    return "answered" if probed.answered else probed.said


def single_event(origin, timeout=5):
    try:
        sender(origin, patience_s=0, timeout=timeout).send(TRACK, "at_most_once")
    except (FixConnectionError, RetryLaterError) as error:
        return str(error)
    return "answered"


def delivery(origin, loop="asyncio", timeout=5):
    target = target_of("regal_of_test", host=origin, port=None, password=KEY, extra={"timeout": timeout})

    async def run():
        async with ManySender(target, max_connections=4) as many:
            return await many.attempt(TRACK.encoded)

    loops.use(loop)
    try:
        made = loops.run(run())
    except FixConnectionError as error:
        return str(error)
    finally:
        loops.use("asyncio")
    if isinstance(made, Answer):
        return "answered"
    assert made.before_body, "nothing was sent, so the row may go again"
    return made.reason


WAYS = {"check": check, "single event": single_event} | {
    f"delivery on {name}": lambda origin, name=name: delivery(origin, name) for name in loops.FACTORIES
}


def agree(origin, expected):
    """Reach an origin in every way; all ways must end as expected."""
    ended = {name: way(origin) for name, way in WAYS.items()}
    assert all(expected in end for end in ended.values()), ended
    assert not any("hunter2" in end or KEY in end for end in ended.values())


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca") / "ours")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca") / "other", "another authority")


@pytest.fixture(autouse=True)
def _clean(monkeypatch, tmp_path):
    """An environment that names nothing but a .netrc file with a password for every host."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    netrc = tmp_path / "netrc"
    netrc.write_text("default login someone password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))


@pytest.fixture
def regal(authority):
    with RawServer(answering(http()), tls=authority.server("localhost", HOST)) as server:
        yield server
    for request in server.requests:
        if request.head.startswith("POST "):
            assert request.headers["authorization"] == KEY
        assert "proxy-authorization" not in request.headers


@pytest.fixture
def proxy(regal):
    with RawServer(tunneling({f"{HOST}:443": regal.port})) as server:
        yield server
    _got_no_key(server)


def _got_no_key(proxy):
    assert KEY.encode() not in b"".join(talk.received for talk in proxy.talks)
    assert all("\r\nauthorization:" not in request.head.lower() for request in proxy.requests)


@pytest.mark.parametrize("variable", CA_VARIABLES)
@pytest.mark.parametrize(("who", "expected"), [("authority", "answered"), ("stranger", NO_TLS)])
@pytest.mark.parametrize("kind", ["file", "folder"])
@pytest.mark.parametrize("through", ["direct", "proxy"])
def test_the_certificates_that_a_variable_names_are_trusted_and_no_others(
    variable, who, expected, kind, through, authority, stranger, regal, proxy, monkeypatch
):
    issuer = {"authority": authority, "stranger": stranger}[who]
    monkeypatch.setenv(variable, str(issuer.file if kind == "file" else issuer.folder()))
    monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
    agree(REGAL if through == "proxy" else f"https://localhost:{regal.port}", expected)
    assert bool(proxy.talks) is (through == "proxy")
    assert len(regal.requests) == (len(WAYS) if expected == "answered" else 0)


def test_the_first_variable_wins_for_all(authority, stranger, regal, monkeypatch):
    local = f"https://localhost:{regal.port}"
    for first, second in itertools.pairwise(CA_VARIABLES):
        for name in CA_VARIABLES:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv(first, str(authority.file))
        monkeypatch.setenv(second, str(stranger.folder()))
        agree(local, "answered")
        monkeypatch.setenv(first, str(stranger.file))
        monkeypatch.setenv(second, str(authority.folder()))
        agree(local, NO_TLS)


def test_without_a_variable_none_trusts_an_authority_of_ones_own(regal):
    agree(f"https://localhost:{regal.port}", NO_TLS)
    assert regal.requests == []


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_a_bundle_that_does_not_exist_is_named_by_all(variable, regal, monkeypatch, tmp_path):
    monkeypatch.setenv(variable, str(tmp_path / "nowhere.pem"))
    agree(f"https://localhost:{regal.port}", f"Correct or unset {variable} on this worker")
    assert regal.talks == []


def test_a_certificate_for_another_host_is_refused_by_all(authority, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with RawServer(answering(http()), tls=authority.server("other.test")) as server:
        agree(f"https://localhost:{server.port}", NO_TLS)
        assert server.requests == []


@pytest.mark.parametrize(
    ("settings", "proxied"),
    [
        ({"HTTPS_PROXY": "http://{}"}, True),
        ({"https_proxy": "http://{}"}, True),
        ({"HTTPS_PROXY": "{}"}, True),
        ({"ALL_PROXY": "{}"}, True),
        ({"all_proxy": "http://{}"}, True),
        ({"HTTPS_PROXY": "http://127.0.0.1:1", "https_proxy": "http://{}"}, True),
        ({"ALL_PROXY": "http://127.0.0.1:1", "HTTPS_PROXY": "http://{}"}, True),
        ({"HTTPS_PROXY": "http://{}", "NO_PROXY": "other.test,regal.test:8443"}, True),
        ({"HTTPS_PROXY": "http://{}", "NO_PROXY": "*"}, False),
        ({"HTTPS_PROXY": "http://{}", "NO_PROXY": "regal.test"}, False),
        ({"HTTPS_PROXY": "http://{}", "no_proxy": ".regal.test"}, False),
        ({"HTTPS_PROXY": "http://{}", "NO_PROXY": "regal.test:443"}, False),
        ({"HTTPS_PROXY": "http://{}", "https_proxy": ""}, False),
        ({"HTTP_PROXY": "http://{}", "http_proxy": "http://{}"}, False),
    ],
)
def test_all_use_the_same_proxy_or_none(settings, proxied, authority, regal, proxy, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    for name, value in settings.items():
        monkeypatch.setenv(name, value.format(f"127.0.0.1:{proxy.port}"))
    # Only the proxy can resolve the host.
    agree(REGAL, "answered" if proxied else UNKNOWN_HOST)
    assert len(regal.requests) == len(proxy.requests) == (len(WAYS) if proxied else 0)
    assert all(request.head.startswith(f"CONNECT {HOST}:443 ") for request in proxy.requests)


@pytest.mark.parametrize("port", [8443, 443])
def test_the_port_of_the_target_reaches_the_proxy(port, authority, regal, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with RawServer(tunneling({f"{HOST}:{port}": regal.port})) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        agree(f"{REGAL}:{port}", "answered")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (USER, "answered"),
        ("someone:wrong", NO_PROXY_CONNECTION),
        (None, NO_PROXY_CONNECTION),
    ],
)
@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_the_credentials_of_a_proxy_work_for_all_and_are_logged_by_none(
    given, expected, tls, authority, regal, monkeypatch, caplog
):
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    context = authority.server("localhost") if tls else None
    with RawServer(tunneling({f"{HOST}:443": regal.port}, credentials=USER), tls=context) as proxy:
        scheme = "https" if tls else "http"
        monkeypatch.setenv("HTTPS_PROXY", f"{scheme}://{given + '@' if given else ''}localhost:{proxy.port}")
        agree(REGAL, expected)
        assert len(proxy.requests) == len(WAYS)
        _got_no_key(proxy)
    for secret in ("hunter2", "someone", "c29tZW9uZTpodW50ZXIy", KEY):
        assert secret not in caplog.text


def test_characters_that_a_url_must_encode_are_decoded_the_same_by_all(authority, regal, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    with RawServer(tunneling({f"{HOST}:443": regal.port}, credentials="some@one:p:ä/#")) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://some%40one:p%3A%C3%A4%2F%23@127.0.0.1:{proxy.port}")
        agree(REGAL, "answered")


@pytest.mark.parametrize(("who", "expected"), [("authority", "answered"), ("stranger", NO_TLS)])
def test_a_proxy_that_speaks_tls_is_proved_by_the_same_certificates(
    who, expected, authority, stranger, regal, monkeypatch
):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    context = {"authority": authority, "stranger": stranger}[who].server("localhost")
    with RawServer(tunneling({f"{HOST}:443": regal.port}), tls=context) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"https://localhost:{proxy.port}")
        agree(REGAL, expected)
        _got_no_key(proxy)


@pytest.mark.parametrize(
    "value", ["socks5://127.0.0.1:{}", "socks5h://u:hunter2@127.0.0.1:{}", "gopher://127.0.0.1:{}", "http://a..b:{}"]
)
def test_a_proxy_of_another_kind_is_named_by_all_before_anything_is_sent(value, proxy, monkeypatch):
    monkeypatch.setenv("ALL_PROXY", value.format(proxy.port))
    agree(REGAL, "Correct or unset ALL_PROXY on this worker")
    assert proxy.talks == []


@pytest.mark.parametrize("host", ["127.0.0.1", "proxy.invalid"])
def test_a_proxy_that_is_not_there_is_told_from_regal_by_all(host, monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", f"http://{host}:{unused_port()}")
    agree(REGAL, NO_PROXY_CONNECTION)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (answering(http("403 Forbidden", b"no")), NO_PROXY_CONNECTION),
        (answering(b"this is no HTTP\r\n\r\n"), NO_HTTP),
        (lambda talk: talk.read_head(), "the connection was lost"),
    ],
    ids=["refuses", "no HTTP", "hangs up"],
)
def test_a_proxy_that_opens_no_tunnel_gets_nothing_from_any(script, expected, monkeypatch):
    with RawServer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        agree(REGAL, expected)
        _got_no_key(proxy)


@pytest.mark.parametrize(
    "script",
    [
        lambda talk: talk.read_head() and talk.wait_until_the_client_goes(),
        lambda talk: talk.read_head() and talk.say(b"HTTP/1.1 200 OK\r\n") and talk.drip(b"X: y\r\n"),
    ],
    ids=["silence", "dripping headers"],
)
def test_a_proxy_that_never_opens_the_tunnel_is_left_in_time_before_anything_is_sent(script, monkeypatch):
    with RawServer(script) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.origin)
        started = time.monotonic()
        assert "within the timeout" in single_event(REGAL, timeout=0.3)
        assert "within the timeout" in delivery(REGAL, timeout=0.3)
        assert time.monotonic() - started < 4
        _got_no_key(proxy)


def test_this_machine_is_reached_directly_by_all(authority, regal, proxy, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, proxy.origin)
    agree(f"https://localhost:{regal.port}", "answered")
    assert proxy.talks == []


def test_check_says_which_proxy_it_used(authority, regal, proxy, monkeypatch):
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(authority.file))
    monkeypatch.setenv("https_proxy", proxy.origin)
    assert " (HTTP 200) through the proxy of https_proxy: " in ask(REGAL).said
