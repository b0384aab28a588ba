"""What a session adds to a request, and what it leaves out."""

from __future__ import annotations

import pytest
import requests

from airflow_provider_regal.client.environment import CA_VARIABLES
from airflow_provider_regal.client.session import keyed_session, plain_session
from airflow_provider_regal.client.target import target_of
from tests.client.raw_server import RawServer, answering, http, self_signed

HOSTS = ["https://events.regalvoice.com", "http://127.0.0.1:8010", "https://localhost:8010"]


@pytest.fixture(autouse=True)
def netrc(monkeypatch, tmp_path):
    file = tmp_path / "netrc"
    file.write_text("default login someone password hunter2\n")
    monkeypatch.setenv("NETRC", str(file))


def prepared(session, origin):
    return session.prepare_request(requests.Request("GET", origin)).headers


@pytest.mark.parametrize("origin", HOSTS)
def test_the_key_is_sent_raw_and_a_netrc_file_does_not_replace_it(origin):
    target = target_of("c", host=origin, port=None, password="k3y", extra={})
    assert prepared(keyed_session(target), origin)["Authorization"] == "k3y"


@pytest.mark.parametrize("origin", HOSTS)
def test_a_session_without_a_key_sends_no_other_secret_either(origin):
    assert "Authorization" not in prepared(plain_session(origin), origin)


def test_the_proxy_serves_regals_host_alone(monkeypatch):
    for name in ("NO_PROXY", "no_proxy", "https_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HTTPS_PROXY", "http://user:hunter2@proxy.test:3128")
    session = plain_session("https://events.regalvoice.com")
    assert session.proxies == {"https://events.regalvoice.com": "http://proxy.test:3128"}
    assert session.merge_environment_settings("https://other.test", {}, None, None, None)["proxies"] == session.proxies


@pytest.mark.parametrize("origin", HOSTS)
def test_certificates_are_verified(origin):
    assert plain_session(origin).verify is True


def test_a_bundle_that_is_set_on_a_session_is_trusted_only_while_it_is_set(tmp_path):
    context, bundle = self_signed(tmp_path)
    with RawServer(answering(http(), http()), tls=context) as server:
        origin = f"https://localhost:{server.port}"
        session = plain_session(origin)
        session.verify = str(bundle)
        assert session.get(origin, timeout=5).status_code == 200
        session.verify = True
        with pytest.raises(requests.exceptions.SSLError):
            session.get(origin, timeout=5)


def test_what_requests_would_trust_is_not_trusted_as_well(tmp_path, monkeypatch):
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    context, bundle = self_signed(tmp_path)
    monkeypatch.setattr("requests.adapters.DEFAULT_CA_BUNDLE_PATH", str(bundle))
    with RawServer(answering(http()), tls=context) as server:
        origin = f"https://localhost:{server.port}"
        with pytest.raises(requests.exceptions.SSLError):
            plain_session(origin).get(origin, timeout=5)
