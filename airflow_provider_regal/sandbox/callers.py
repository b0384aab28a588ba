"""Restrict callers: programs must use an address or name of the sandbox, and web pages must be the sandbox's own.

A developer's browser runs on the same machine. Any web site can make it send requests to this port, and a site whose
name is made to resolve to this machine (DNS rebinding) could read the answers. Programs send no ``Origin``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import ip_address
from typing import Final

from aiohttp import hdrs, web
from multidict import CIMultiDictProxy

from airflow_provider_regal.sandbox.keys import ACCOUNT, Handler

_HOST: Final = re.compile(r"(?:\[(?P<ip6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9._-]{1,253}))(?::\d{1,5})?")
_HERE: Final = ("localhost",)


@web.middleware
async def refuse_strangers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer 403, with the reason, to requests from another web site or with a host name that is not the sandbox's."""
    allowed = request.app[ACCOUNT].settings.allow_hosts
    if (reason := why_not(request.method, request.headers, allowed)) is None:
        return await handler(request)
    return web.json_response({"message": reason}, status=403, headers={"X-Content-Type-Options": "nosniff"})


def why_not(method: str, headers: CIMultiDictProxy[str], allowed: tuple[str, ...]) -> str | None:
    """Return why a request is refused; None if it is not.

    :param allowed: names of the sandbox in addition to ``localhost`` and IP addresses, which no other site's name can
        be.
    """
    hosts = headers.getall(hdrs.HOST, [])
    host = hosts[0] if len(hosts) == 1 else ",".join(hosts)
    if hosts and not _is_here(host, allowed):
        return _unknown_host(host, allowed)
    origin = headers.get(hdrs.ORIGIN)
    if origin is not None and origin.partition("://")[2].lower() != host.lower():
        return f"The request comes from a page of another site (Origin: {_shown(origin)}). {_PAGES}"
    site = headers.get("Sec-Fetch-Site", "none")
    if site not in ("same-origin", "none") and not _opens_a_page(method, headers):
        return f"The request comes from a page of another site (Sec-Fetch-Site: {_shown(site)}). {_PAGES}"
    return None


_PAGES: Final = "Of web pages, only the sandbox's own may send requests to it; programs always may."


def _opens_a_page(method: str, headers: CIMultiDictProxy[str]) -> bool:
    """Return whether the request follows a link: the page with the link can't read the answer."""
    fetch = (headers.get("Sec-Fetch-Mode"), headers.get("Sec-Fetch-Dest"))
    return method in (hdrs.METH_GET, hdrs.METH_HEAD) and fetch == ("navigate", "document")


@lru_cache(maxsize=64)
def _is_here(host: str, allowed: tuple[str, ...]) -> bool:
    found = _HOST.fullmatch(host)
    if found is None:
        return False
    name = (found["ip6"] or found["name"]).lower().removesuffix(".")
    if name in _HERE or name in allowed:
        return True
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


def _unknown_host(host: str, allowed: tuple[str, ...]) -> str:
    names = ", ".join((*_HERE, *allowed))
    found = _HOST.fullmatch(host)
    how = f"--allow-host {found['name']}" if found and found["name"] else "--allow-host and the name"
    return (
        f"The request is for the host {_shown(host)}, and this sandbox answers to {names} and IP addresses. "
        f"If it is meant, start the sandbox with {how}."
    )


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 100 else f"{text[:100]}...")
