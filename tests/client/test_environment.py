"""The certificates and the proxy that an environment names; the clients' use of them is tested elsewhere."""

from __future__ import annotations

import os
import ssl

import pytest

from airflow_provider_regal.client.environment import CA_VARIABLES, Bundle, Proxy, network_for, trusting
from airflow_provider_regal.errors import FixConnectionError
from tests.client.certificates import Authority

REGAL = "https://events.regal.test"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, None),
        ({"REQUESTS_CA_BUNDLE": "/a"}, Bundle("REQUESTS_CA_BUNDLE", "/a")),
        ({"CURL_CA_BUNDLE": "/b"}, Bundle("CURL_CA_BUNDLE", "/b")),
        ({"SSL_CERT_FILE": "/c"}, Bundle("SSL_CERT_FILE", "/c")),
        ({"SSL_CERT_DIR": "/d"}, Bundle("SSL_CERT_DIR", "/d")),
        ({"SSL_CERT_DIR": "/d", "SSL_CERT_FILE": "/c"}, Bundle("SSL_CERT_FILE", "/c")),
        ({"SSL_CERT_FILE": "/c", "CURL_CA_BUNDLE": "/b"}, Bundle("CURL_CA_BUNDLE", "/b")),
        ({"CURL_CA_BUNDLE": "/b", "REQUESTS_CA_BUNDLE": "/a"}, Bundle("REQUESTS_CA_BUNDLE", "/a")),
        ({"REQUESTS_CA_BUNDLE": "", "SSL_CERT_FILE": "/c"}, Bundle("SSL_CERT_FILE", "/c")),
        (dict.fromkeys(CA_VARIABLES, ""), None),
    ],
)
def test_the_first_variable_that_is_set_names_the_certificates(environ, expected):
    assert network_for(REGAL, environ).bundle == expected
    assert network_for("https://localhost:8443", environ).bundle == expected, "this machine's TLS is no exception"


def test_plain_http_asks_for_no_certificates():
    network = network_for("http://127.0.0.1:8010", {"REQUESTS_CA_BUNDLE": "/nowhere"})
    assert network.bundle is None
    assert network.ssl_context() is None


@pytest.mark.parametrize(
    ("environ", "variable", "url"),
    [
        ({"HTTPS_PROXY": "http://proxy.test:3128"}, "HTTPS_PROXY", "http://proxy.test:3128"),
        ({"https_proxy": "http://proxy.test:3128"}, "https_proxy", "http://proxy.test:3128"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": "http://b:2"}, "https_proxy", "http://b:2"),
        ({"HTTPS_PROXY": "http://a:1", "https_proxy": ""}, None, None),
        ({"HTTPS_PROXY": "", "ALL_PROXY": "http://all:1"}, "ALL_PROXY", "http://all:1"),
        ({"HTTPS_PROXY": "http://a:1", "ALL_PROXY": "http://all:1"}, "HTTPS_PROXY", "http://a:1"),
        ({"all_proxy": "http://all:1"}, "all_proxy", "http://all:1"),
        ({"HTTP_PROXY": "http://a:1"}, None, None),
        ({"HTTPS_PROXY": "proxy.corp:3128"}, "HTTPS_PROXY", "http://proxy.corp:3128"),
        ({"HTTPS_PROXY": "//proxy.corp:3128"}, "HTTPS_PROXY", "http://proxy.corp:3128"),
        ({"HTTPS_PROXY": "proxy.corp"}, "HTTPS_PROXY", "http://proxy.corp:80"),
        ({"HTTPS_PROXY": "10.1.2.3:3128"}, "HTTPS_PROXY", "http://10.1.2.3:3128"),
        ({"HTTPS_PROXY": "[2001:db8::1]:3128"}, "HTTPS_PROXY", "http://[2001:db8::1]:3128"),
        ({"HTTPS_PROXY": "squid_proxy:3128"}, "HTTPS_PROXY", "http://squid_proxy:3128"),
        ({"HTTPS_PROXY": " HTTP://Proxy.Corp:3128/ "}, "HTTPS_PROXY", "http://proxy.corp:3128"),
        ({"HTTPS_PROXY": "https://proxy.corp"}, "HTTPS_PROXY", "https://proxy.corp:443"),
        ({"HTTPS_PROXY": "  "}, None, None),
    ],
)
def test_the_proxy_is_read_as_the_standard_library_reads_it(environ, variable, url):
    proxy = network_for(REGAL, environ).proxy
    assert (proxy and proxy.variable) == variable
    assert (proxy and proxy.url) == url


@pytest.mark.parametrize(
    "origin", ["http://127.0.0.1:8010", "https://localhost:8443", "https://[::1]", "https://127.9.9.9"]
)
def test_this_machine_is_never_reached_through_a_proxy(origin):
    every = {"HTTP_PROXY": "http://a:1", "HTTPS_PROXY": "socks5://a:1", "ALL_PROXY": "http://a:1"}
    assert network_for(origin, every).proxy is None


@pytest.mark.parametrize(
    ("origin", "no_proxy", "direct"),
    [
        (REGAL, "*", True),
        (REGAL, "other.test, *", True),
        (REGAL, "events.regal.test", True),
        (REGAL, "EVENTS.Regal.Test", True),
        (REGAL + ".", "events.regal.test", True),
        (REGAL, "regal.test", True),
        (REGAL, ".regal.test", True),
        (REGAL, "*.regal.test", True),
        (REGAL, "test", True),
        (REGAL, "gal.test", False),
        (REGAL, "more.events.regal.test", False),
        (REGAL, "other.test,regal.test", True),
        (REGAL, " other.test , regal.test ", True),
        (REGAL, "other.test regal.test", True),
        (REGAL, "regal.test:443", True),
        (REGAL, "regal.test:8443", False),
        (REGAL + ":8443", "regal.test:8443", True),
        (REGAL + ":8443", "regal.test:443", False),
        (REGAL, "regal.test:8443,regal.test:443", True),
        (REGAL, "regal.test:any", False),
        (REGAL, ", ,.,:", False),
        (REGAL, "", False),
        (REGAL, "10.0.0.0/8", False),
        ("https://10.1.2.3", "10.1.2.3", True),
        ("https://10.1.2.3", "10.0.0.0/8", True),
        ("https://10.1.2.3", "10.1.2.3:443", True),
        ("https://10.1.2.3", "10.1.2.3:80", False),
        ("https://10.1.2.3", "192.168.0.0/16,2.3", False),
        ("https://[2001:db8::7]", "2001:db8::7", True),
        ("https://[2001:db8::7]", "[2001:db8::7]:443", True),
        ("https://[2001:db8::7]", "[2001:db8::7]:80", False),
        ("https://[2001:db8::7]", "2001:db8::/32", True),
    ],
)
@pytest.mark.parametrize("variable", ["NO_PROXY", "no_proxy"])
def test_no_proxy_names_hosts_to_reach_directly(variable, origin, no_proxy, direct):
    proxy = network_for(origin, {"HTTPS_PROXY": "http://proxy.test:3128", variable: no_proxy}).proxy
    assert (proxy is None) is direct


def test_an_unusable_proxy_does_not_matter_where_none_is_used():
    assert network_for(REGAL, {"HTTPS_PROXY": "socks5://a:1", "NO_PROXY": "*"}).proxy is None


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("socks5://user:hunter2@proxy.test:1080", "SOCKS proxies are not supported"),
        ("socks5h://user:hunter2@proxy.test:1080", "SOCKS proxies are not supported"),
        ("gopher://user:hunter2@proxy.test:70", "only http and https proxies"),
        ("http://user:hunter2@", "no host"),
        ("http://user:hunter2@a..b:80", "no host"),
        ("http://user:hunter2@proxy.test:port", "not a URL"),
        ("http://user:hunter2@proxy.test:99999", "not a URL"),
        ("http://user:hunter2@proxy.test:0", "not a URL"),
        ("http://user:hunter2@proxy.test/path", "not a URL"),
        ("http://user:hunter2#@proxy.test:80", "not a URL"),
        ("http://user:hunter2/@proxy.test:80", "not a URL"),
        ("http://[", "not a URL"),
        ("http://pro xy.test", "no host"),
        ("http://proxy\n.test", "no host"),
    ],
)
def test_an_unusable_proxy_is_named_by_its_variable_and_never_shown(value, words):
    with pytest.raises(FixConnectionError) as raised:
        network_for(REGAL, {"https_proxy": value})
    assert words in str(raised.value)
    assert str(raised.value).startswith("Correct or unset https_proxy on this worker")
    assert "hunter2" not in str(raised.value)
    assert raised.value.__cause__ is None


@pytest.mark.parametrize(
    ("credentials", "sent"),
    [
        ("", None),
        ("user:pass@", "Basic dXNlcjpwYXNz"),
        ("user@", "Basic dXNlcjo="),
        ("user:p%40ss%3A%2F@", "Basic dXNlcjpwQHNzOi8="),
        ("user:p@ss@", "Basic dXNlcjpwQHNz"),
        ("user:z%C3%BCrich@", "Basic dXNlcjp6w7xyaWNo"),
        ("user:zürich@", "Basic dXNlcjp6w7xyaWNo"),
    ],
)
def test_credentials_leave_the_url_and_are_not_shown(credentials, sent):
    proxy = network_for(REGAL, {"HTTPS_PROXY": f"http://{credentials}proxy.test:3128"}).proxy
    assert proxy == Proxy("HTTPS_PROXY", "http://proxy.test:3128", sent)
    assert proxy.headers == ({} if sent is None else {"Proxy-Authorization": sent})
    assert "Basic" not in repr(proxy)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca") / "ours")


@pytest.mark.parametrize("variable", CA_VARIABLES)
def test_a_bundle_is_a_file_or_a_folder(authority, variable):
    assert trusting(Bundle(variable, str(authority.folder()))).verify_mode is ssl.CERT_REQUIRED
    if variable != "SSL_CERT_DIR":
        context = trusting(Bundle(variable, str(authority.file)))
        assert context.cert_store_stats()["x509"] == 1, "and nothing else is trusted"
        assert context.check_hostname


def test_a_list_of_folders_may_hold_some_that_do_not_exist(authority, tmp_path):
    trusting(Bundle("SSL_CERT_DIR", os.pathsep.join([str(tmp_path / "none"), str(authority.folder())])))


@pytest.mark.parametrize("variable", CA_VARIABLES)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: None, "does not exist"),
        (lambda path: path.write_text(""), "holds no certificate"),
        (lambda path: path.write_text("not a certificate"), "holds no certificate"),
        (lambda path: path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "damaged"),
        (lambda path: path.mkdir(), "openssl rehash"),
        (lambda path: path.mkdir() or (path / "ca.pem").write_text("whatever"), "openssl rehash"),
        (lambda path: path.symlink_to(path), "cannot be read (OSError)"),
    ],
    ids=["missing", "empty", "text", "damaged", "empty folder", "folder without hashes", "loop"],
)
def test_a_bundle_without_certificates_is_named_by_its_variable(variable, make, words, tmp_path):
    path = tmp_path / "bundle"
    make(path)
    with pytest.raises(FixConnectionError) as raised:
        trusting(Bundle(variable, str(path)))
    assert str(raised.value).startswith(f"Correct or unset {variable} on this worker")
    assert str(path) in str(raised.value)
    assert words in str(raised.value)


def test_a_list_of_revoked_certificates_is_no_bundle(authority):
    with pytest.raises(FixConnectionError, match="holds no certificate"):
        trusting(Bundle("REQUESTS_CA_BUNDLE", str(authority.revocations())))


def test_the_default_is_the_systems_store(authority, tmp_path):
    missing = str(tmp_path / "none")
    assert trusting(None, system_file=str(authority.file), system_folder=missing).cert_store_stats()["x509"] == 1
    assert trusting(None, system_file=missing, system_folder=str(authority.folder())).cert_store_stats()["x509"] == 0


@pytest.mark.parametrize("content", [None, "", "not a certificate"])
def test_where_the_system_has_no_certificates_the_default_is_certifis(content, tmp_path):
    file, folder = tmp_path / "cert.pem", tmp_path / "certs"
    folder.mkdir()
    if content is not None:
        file.write_text(content)
    context = trusting(None, system_file=str(file), system_folder=str(folder))
    assert context.cert_store_stats()["x509"] > 50
