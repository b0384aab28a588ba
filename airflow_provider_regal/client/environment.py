"""Choose the certificates and the proxy of a connection, once for both ``requests`` and aiohttp.

By default the two libraries read different variables and trust different certificates, so ``check`` could succeed while
every delivery fails. This module reads the environment once and configures both; neither reads it again.

=======================================  ==============================================================
certificates: the first that is set      ``REQUESTS_CA_BUNDLE``, ``CURL_CA_BUNDLE``, ``SSL_CERT_FILE``,
                                         ``SSL_CERT_DIR``; else the system's store, else certifi's
proxy                                    none for this machine or a host in ``NO_PROXY``;
                                         else ``HTTPS_PROXY``, else ``ALL_PROXY``
=======================================  ==============================================================
"""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, unquote_to_bytes, urlsplit

from airflow_provider_regal.client.target import is_loopback
from airflow_provider_regal.errors import FixConnectionError

# ``requests`` and curl come first: users who set several of these usually mean them for Python.
CA_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR")

# Both clients use the same message: the libraries' own messages are hard to understand.
NO_TLS: Final = "the TLS connection failed (certificate or protocol)"
NO_PROXY_CONNECTION: Final = "the proxy of the environment refused or could not be reached"
NO_HTTP: Final = "what answered does not speak HTTP properly"

_PORTS: Final = {"https": 443, "http": 80}
# Host names have no underscores, but service names in Docker and Kubernetes do.
_PROXY_HOST: Final = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*\.?")
# In a folder, OpenSSL finds a certificate only by the hash of its subject.
_HASHED_NAME: Final = re.compile(r"[0-9a-f]{8}\.[0-9]+")
_NO_PROXY_ENTRY: Final = re.compile(r"(?:\[(?P<ip6>[^\]]+)\]|(?P<name>[^:]*))(?::(?P<port>[0-9]+))?")


@dataclass(frozen=True, slots=True)
class Bundle:
    """The certificates that a variable names: a file or, for ``SSL_CERT_DIR``, one or more folders."""

    variable: str
    path: str


@dataclass(frozen=True, slots=True)
class Proxy:
    """An http or https proxy.

    :param variable: the variable that names it, for messages.
    :param url: scheme, host and port, without credentials: the libraries log the URL and include it in errors.
    :param authorization: the value of ``Proxy-Authorization``, if the variable contains a user.
    """

    variable: str
    url: str
    authorization: str | None = field(default=None, repr=False)

    @property
    def headers(self) -> dict[str, str]:
        """The headers that only the proxy receives."""
        return {} if self.authorization is None else {"Proxy-Authorization": self.authorization}


@dataclass(frozen=True, slots=True)
class Network:
    """How to reach a target.

    :param tls: whether the target speaks TLS; plain http needs no certificates.
    :param bundle: the only certificates to trust; None for the default.
    :param proxy: None for a direct connection.
    """

    tls: bool
    bundle: Bundle | None
    proxy: Proxy | None

    def ssl_context(self) -> ssl.SSLContext | None:
        """Load the certificates; return None if the target does not use TLS.

        :raises FixConnectionError: a variable names a bundle that can't be used.
        """
        return trusting(self.bundle) if self.tls else None


def network_for(origin: str, environ: Mapping[str, str] = os.environ) -> Network:
    """Return how to reach an origin such as ``https://events.regalvoice.com``. Reads no file.

    :raises FixConnectionError: a variable names a proxy that can't be used.
    """
    parts = urlsplit(origin)
    tls = parts.scheme == "https"
    return Network(tls=tls, bundle=_bundle(environ) if tls else None, proxy=_proxy(parts, environ))


def trusting(
    bundle: Bundle | None, *, system_file: str | None = None, system_folder: str | None = None
) -> ssl.SSLContext:
    """Make a TLS context that trusts only a bundle, or the default certificates.

    The default is the system's store, where companies install their own certificates. If it is empty, as in slim
    images, the default is certifi's.

    :param system_file: replaces OpenSSL's own file; ``system_folder`` replaces its folder.
    :raises FixConnectionError: the bundle can't be used.
    """
    if bundle is not None:
        context = _from_bundle(bundle)
    else:
        # Not load_default_certs(): OpenSSL would use SSL_CERT_FILE even if it is empty.
        system = ssl.get_default_verify_paths()
        context = _from_system(system_file or system.openssl_cafile, system_folder or system.openssl_capath)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _bundle(environ: Mapping[str, str]) -> Bundle | None:
    for variable in CA_VARIABLES:
        if path := environ.get(variable):
            return Bundle(variable, path)
    return None


def _from_bundle(bundle: Bundle) -> ssl.SSLContext:
    paths = bundle.path.split(os.pathsep) if bundle.variable == "SSL_CERT_DIR" else [bundle.path]
    folders = [path for path in paths if Path(path).is_dir()]
    try:
        if not folders:
            context = ssl.create_default_context(cafile=bundle.path)
            if context.cert_store_stats()["x509"]:
                return context
            why = "holds no certificate"  # for example, only revocation lists
        elif _has_certificates(folders):
            return ssl.create_default_context(capath=os.pathsep.join(folders))
        else:
            why = "is a folder in which OpenSSL finds no certificate (run 'openssl rehash' on it)"
    except ssl.SSLError:
        why = "holds no certificate in PEM format, or a damaged one"
    except FileNotFoundError:
        why = "does not exist"
    except OSError as error:
        why = f"cannot be read ({type(error).__name__})"
    raise FixConnectionError(
        f"Correct or unset {bundle.variable} on this worker: it names the CA certificates {bundle.path}, which {why}."
    )


def _has_certificates(folders: Iterable[str]) -> bool:
    return any(_HASHED_NAME.fullmatch(file.name) for folder in folders for file in Path(folder).iterdir())


def _from_system(file: str, folder: str) -> ssl.SSLContext:
    try:
        capath = folder if Path(folder).is_dir() and _has_certificates([folder]) else None
        cafile = file if Path(file).is_file() else None
        if cafile or capath:
            return ssl.create_default_context(cafile=cafile, capath=capath)
    except OSError:  # SSLError is a subclass: the store is damaged or not readable
        pass
    from requests.utils import DEFAULT_CA_BUNDLE_PATH

    return ssl.create_default_context(cafile=DEFAULT_CA_BUNDLE_PATH)


def _proxy(target: SplitResult, environ: Mapping[str, str]) -> Proxy | None:
    host = (target.hostname or "").rstrip(".")
    if is_loopback(host):
        return None
    variables = _proxy_variables(environ)
    _, no_proxy = variables.get("no", ("", ""))
    if _is_exempt(host, target.port or _PORTS[target.scheme], no_proxy):
        return None
    named = variables.get(target.scheme) or variables.get("all")
    return _proxy_at(*named) if named else None


def _proxy_variables(environ: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """Find the ``*_proxy`` variables as ``urllib.request.getproxies`` does: lower case wins, even if it is empty.

    The macOS settings are not read: reading them crashes forked processes, such as Airflow's tasks.

    :returns: name and value, by the part of the name before ``_proxy``.
    """
    found = {}
    for name, value in environ.items():
        if value.strip() and name.lower().endswith("_proxy"):
            found[name.lower()[:-6]] = (name, value.strip())
    for name, value in environ.items():
        if name.endswith("_proxy"):
            kind = name.lower()[:-6]
            if value.strip():
                found[kind] = (name, value.strip())
            else:
                found.pop(kind, None)
    return found


def _is_exempt(host: str, port: int, no_proxy: str) -> bool:
    """Return whether ``NO_PROXY`` lists a host: a domain with its subdomains, an address or a network.

    Any of them may have a port.
    """
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        address = None
    for entry in re.split(r"[,\s]+", no_proxy.lower()):
        if entry == "*":
            return True
        found = _NO_PROXY_ENTRY.fullmatch(entry)
        if found and found["port"] and int(found["port"]) != port:
            continue
        name = (found["ip6"] or found["name"]) if found else entry
        if address is not None:
            try:
                if address in ipaddress.ip_network(name, strict=False):
                    return True
            except ValueError:
                pass
        elif (name := name.removeprefix("*").strip(".")) and (host == name or host.endswith(f".{name}")):
            return True
    return False


def _proxy_at(variable: str, value: str) -> Proxy:
    """Parse a proxy's URL; without a scheme it means http, as for curl.

    :raises FixConnectionError: the URL is malformed. The message omits it because it may contain a password.
    """

    def wrong(what: str) -> FixConnectionError:
        return FixConnectionError(
            f"Correct or unset {variable} on this worker: {what}. Write it as http://user:password@proxy.example:3128, "
            "special characters in user and password percent-encoded."
        )

    url = value if "://" in value else "http://" + value.removeprefix("//")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError:
        raise wrong("it is not a URL of a proxy") from None
    if parts.scheme.startswith("socks"):
        raise wrong("SOCKS proxies are not supported, only http and https")
    if parts.scheme not in _PORTS:
        raise wrong("only http and https proxies are supported")
    # urlsplit silently drops line breaks inside a URL.
    if any(character.isspace() for character in url) or not (_PROXY_HOST.fullmatch(host) or _is_ip6(host)):
        raise wrong("it names no host that a proxy can have")
    if port == 0 or parts.path not in ("", "/") or parts.query or parts.fragment:
        raise wrong("it is not a URL of a proxy")
    origin = f"{parts.scheme}://[{host}]" if ":" in host else f"{parts.scheme}://{host}"
    return Proxy(variable, f"{origin}:{port or _PORTS[parts.scheme]}", _basic(parts))


def _basic(parts: SplitResult) -> str | None:
    # Encoded here because ``requests`` and aiohttp encode unusual characters differently.
    if parts.username is None:
        return None
    credentials = unquote_to_bytes(parts.username) + b":" + unquote_to_bytes(parts.password or "")
    return f"Basic {b64encode(credentials).decode('ascii')}"


def _is_ip6(host: str) -> bool:
    try:
        return not ipaddress.IPv6Address(host).scope_id
    except ValueError:
        return False
