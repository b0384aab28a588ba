"""Regal's address and how to send to it: the validated parts of a connection."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from airflow_provider_regal import defaults
from airflow_provider_regal.errors import FixConnectionError

EVENTS_PATH: Final = "/events"
EXTRAS: Final = frozenset({"rate_limit", "timeout", "event_source", "dry_run", "account"})
# Higher values are mistakes, or even too large to wait for.
_HIGHEST_RATE: Final = 10_000
_LONGEST_TIMEOUT_S: Final = 3_600
_LABEL: Final = r"(?!-)[a-z0-9-]{1,63}(?<!-)"
_HOST_NAME: Final = re.compile(rf"{_LABEL}(\.{_LABEL})*\.?")


@dataclass(frozen=True, slots=True)
class Target:
    """Where and how to send events.

    :param conn_id: the connection it was read from, for messages.
    :param origin: scheme and host, such as ``https://events.regalvoice.com``.
    :param api_key: sent verbatim in ``Authorization``; never shown.
    :param rate_limit: maximum requests per second of the account.
    :param timeout_s: maximum seconds to wait for Regal, per request.
    :param event_source: the source of events that name none.
    :param dry_run: check everything, send nothing.
    :param account: the account's name in the ledger; by default the connection's id.
    """

    conn_id: str
    origin: str
    api_key: str = field(repr=False)
    rate_limit: int = defaults.RATE_LIMIT
    timeout_s: float = defaults.TIMEOUT_S
    event_source: str = defaults.EVENT_SOURCE
    dry_run: bool = False
    account: str = ""

    @property
    def events_url(self) -> str:
        """The URL that events are posted to."""
        return self.origin + EVENTS_PATH


def target_of(
    conn_id: str, *, host: str | None, port: int | None, password: str | None, extra: Mapping[str, Any]
) -> Target:
    """Read and validate the parts of a connection.

    :raises FixConnectionError: a part is invalid; the message names the connection and the field.
    """
    if odd := sorted(extra.keys() - EXTRAS):
        named = ", ".join(map(repr, odd))
        raise _wrong(conn_id, f"the extra holds {named}, which nothing reads. It may hold {', '.join(sorted(EXTRAS))}.")
    origin = _origin(conn_id, host, port)
    return Target(
        conn_id=conn_id,
        origin=origin,
        api_key=_api_key(conn_id, password),
        rate_limit=_rate_limit(conn_id, extra.get("rate_limit")),
        timeout_s=_positive(conn_id, "timeout", extra.get("timeout"), defaults.TIMEOUT_S, _LONGEST_TIMEOUT_S),
        event_source=_text(conn_id, "event_source", extra.get("event_source"), defaults.EVENT_SOURCE),
        dry_run=_flag(conn_id, "dry_run", extra.get("dry_run")),
        account=_text(conn_id, "account", extra.get("account"), conn_id),
    )


def check_extra(conn_id: str, extra: str | None) -> None:
    """Check that a connection's extra is a JSON object: Airflow reads anything else as an empty one.

    :raises FixConnectionError: it is not.
    """
    try:
        usable = not extra or isinstance(json.loads(extra), dict)
    except ValueError:
        usable = False
    if not usable:
        raise _wrong(conn_id, 'the extra is not a JSON object, such as {"rate_limit": 100}, so it would not be read.')


def _wrong(conn_id: str, what: str) -> FixConnectionError:
    return FixConnectionError(f"Connection {conn_id!r}: {what}")


def _api_key(conn_id: str, key: str | None) -> str:
    if not key:
        raise _wrong(conn_id, "the API key is missing. Put it into the field 'API key' (password).")
    if key.lower().startswith(("bearer ", "basic ")):
        raise _wrong(conn_id, "the API key starts with 'Bearer' or 'Basic'. Regal takes the key alone; remove it.")
    if any(character.isspace() for character in key):
        raise _wrong(conn_id, "the API key contains a space or line break. Copy it again, without any.")
    if not (key.isascii() and key.isprintable()):
        raise _wrong(conn_id, "the API key contains a character that no key has. Copy it again.")
    return key


def _origin(conn_id: str, host: str | None, port: int | None) -> str:
    text = (host or "").strip() or defaults.HOST
    if "://" not in text:
        text = f"https://{text}"
    example = f"Write it as {defaults.HOST}"
    if any(character.isspace() for character in text):  # urlsplit would drop some silently
        raise _wrong(conn_id, f"the host contains a space or line break. {example}.")
    try:
        parts = urlsplit(text)
        in_url = parts.port
    except ValueError:
        raise _wrong(conn_id, f"the host is not a URL. {example}.") from None
    name = parts.hostname or ""
    if parts.scheme not in ("https", "http") or not (_HOST_NAME.fullmatch(name) or _is_ip6(name)):
        raise _wrong(conn_id, f"the host is not a host name or an http(s) URL. {example}.")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise _wrong(conn_id, f"the host contains a user, a query or a fragment. {example}.")
    if parts.path.rstrip("/") not in ("", EVENTS_PATH):
        raise _wrong(conn_id, f"the host contains a path other than {EVENTS_PATH}. {example}.")
    if parts.scheme == "http" and not is_loopback(name):
        raise _wrong(conn_id, "plain http would send the API key in clear. Use https; http is for 127.0.0.1 only.")
    number = in_url or port
    if number and not 0 < number < 65_536:
        raise _wrong(conn_id, "the port must be from 1 to 65535.")
    bracketed = f"[{name}]" if ":" in name else name
    return f"{parts.scheme}://{bracketed}" + (f":{number}" if number else "")


def is_loopback(name: str) -> bool:
    """Return whether a host name always means this machine."""
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost"


def _is_ip6(name: str) -> bool:
    try:
        return not ipaddress.IPv6Address(name).scope_id
    except ValueError:
        return False


def _positive(conn_id: str, name: str, given: Any, default: float, most: float) -> float:
    if given is None or given == "":
        return default
    try:
        number = float(given)
    except (TypeError, ValueError, OverflowError):
        number = 0.0
    if isinstance(given, bool) or not 0 < number <= most:
        raise _wrong(conn_id, f"{name} must be a number above 0 and at most {most:g}.")
    return number


def _rate_limit(conn_id: str, given: Any) -> int:
    number = _positive(conn_id, "rate_limit", given, defaults.RATE_LIMIT, _HIGHEST_RATE)
    if number % 1:
        raise _wrong(conn_id, "rate_limit must be a whole number.")
    return int(number)


def _text(conn_id: str, name: str, given: Any, default: str) -> str:
    if given is None:
        return default
    if not isinstance(given, str):
        raise _wrong(conn_id, f"{name} must be text.")
    return given.strip() or default


def _flag(conn_id: str, name: str, given: Any) -> bool:
    if given is None or given == "":
        return False
    text = str(given).strip().lower()
    if text not in ("true", "false"):
        raise _wrong(conn_id, f"{name} must be true or false.")
    return text == "true"
