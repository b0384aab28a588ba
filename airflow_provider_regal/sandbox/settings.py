"""The options of a sandbox, in one place (standard library only: the command line reads it, too)."""

from __future__ import annotations

import re
from dataclasses import dataclass

DEFAULT_API_KEY = "sandbox-key"
DEFAULT_HOST = "127.0.0.1"
DEFAULT_PORT = 8010
DOCUMENTED_RATE_LIMIT = 300
IDENTIFIERS = ("phone", "email", "userId")
_HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class SandboxSettings:
    """How a sandbox behaves."""

    api_key: str = DEFAULT_API_KEY
    """The expected key, verbatim in ``Authorization``."""
    rate_limit: int | None = None
    """Maximum number of requests in any second; ``None`` means no limit."""
    retry_after: int | None = None
    """Seconds in ``Retry-After`` when over the limit; ``None`` omits the header."""
    latency_ms: float = 0
    """How long every answer takes."""
    wrong_key_status: int = 401
    """The answer to a wrong key: 401 with an empty body, or 403 with a JSON body."""
    lookup_order: tuple[str, ...] = IDENTIFIERS
    """The order in which identifiers are used to find a profile."""
    max_body_bytes: int = 1024 * 1024
    """A larger body gets 413."""
    keep_events: int = 20_000
    """Requests kept in detail; older ones are only counted."""
    keep_body_bytes: int = 200_000_000
    """Bytes of bodies kept in all; older ones are only counted."""
    keep_contacts: int = 50_000
    """Profiles kept in detail; those unchanged for longest are only counted."""

    max_pending: int = 20_000
    """Maximum number of events accepted and not yet processed; more are answered 503 with ``Retry-After``."""
    max_pending_bytes: int = 100_000_000
    """Maximum bytes of their bodies; more are answered 503 with ``Retry-After``."""
    max_connections: int = 2_000
    """Maximum number of open connections; more are answered 503 with ``Retry-After``."""
    request_timeout_s: float = 10
    """How long the head of a first request may take, and how long a body."""
    allow_hosts: tuple[str, ...] = ()
    """Additional host names of the sandbox, besides ``localhost`` and IP addresses."""

    def __post_init__(self) -> None:
        """Validate the options.

        :raises ValueError: an option is invalid.
        """
        if not self.api_key or self.api_key != self.api_key.strip() or not self.api_key.isprintable():
            raise ValueError("the API key must be printable text without blanks around it")
        if self.rate_limit is not None and self.rate_limit < 1:
            raise ValueError("the rate limit must be 1 or more requests per second, or none")
        if self.retry_after is not None and self.retry_after < 0:
            raise ValueError("Retry-After must be 0 or more seconds")
        if self.latency_ms < 0:
            raise ValueError("the latency must be 0 or more milliseconds")
        if self.wrong_key_status not in (401, 403):
            raise ValueError("a wrong key is answered with 401 or 403")
        if sorted(self.lookup_order) != sorted(IDENTIFIERS):
            raise ValueError(f"the lookup order must name each of {', '.join(IDENTIFIERS)} once")
        for name in self.__dataclass_fields__:
            if name.startswith(("max_", "keep_")) and getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more")
        if not self.request_timeout_s > 0:
            raise ValueError("request_timeout_s must be above 0 seconds")
        for host in self.allow_hosts:
            if not _HOST_NAME.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name; write it in lower case, without http:// and port")
