"""The pages: Audience, Activity, one contact. Rendered here, without scripts and external resources."""

from __future__ import annotations

from http import HTTPStatus
from pathlib import Path
from typing import Any

import jinja2
from aiohttp import hdrs, web

from airflow_provider_regal.sandbox.keys import ACCOUNT, Handler
from airflow_provider_regal.sandbox.pages import activity as view_activity
from airflow_provider_regal.sandbox.pages import audience as view_audience
from airflow_provider_regal.sandbox.pages import contact as view_contact
from airflow_provider_regal.sandbox.pages.words import thousands

_TEMPLATES = Path(__file__).parent / "templates"
_JINJA = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)
_JINJA.filters["thousands"] = thousands
_HEADERS = {
    # The pages show what was sent; even if it was not escaped, it could not load or run anything.
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
_WAYS_IN = [
    "POST /events",
    "GET /",
    "GET /activity",
    "GET /sandbox/contacts",
    "GET /sandbox/events",
    "GET /sandbox/stats",
    "POST /sandbox/reset",
    "GET or PUT /sandbox/faults",
    "PUT /sandbox/api-key",
]


async def audience(request: web.Request) -> web.Response:
    """Show all contacts, most recently changed first, with their consents."""
    account = request.app[ACCOUNT]
    search = request.query.get("search", "").strip()
    page = _number(request, "page", 1)
    return _render("audience.html.j2", view_audience.audience(account, search=search, page=page))


async def activity(request: web.Request) -> web.Response:
    """Show what arrived, newest first, and what was wrong."""
    account = request.app[ACCOUNT]
    before = _number(request, "before", 0)
    kind = request.query.get("finding", "")
    paused = "paused" in request.query or before > 0
    return _render("activity.html.j2", view_activity.activity(account, before=before, kind=kind, paused=paused))


async def contact(request: web.Request) -> web.Response:
    """Show everything about one contact."""
    account = request.app[ACCOUNT]
    found = account.directory.get(int(request.match_info["id"]))
    if found is None:
        raise web.HTTPNotFound
    return _render("contact.html.j2", view_contact.contact(account, found))


async def stylesheet(request: web.Request) -> web.Response:
    """Serve the one stylesheet."""
    text = (_TEMPLATES / "sandbox.css").read_text(encoding="utf-8")
    return web.Response(text=text, content_type="text/css", headers={"Cache-Control": "no-cache"})


async def icon(request: web.Request) -> web.Response:
    """Serve the icon of the browser tab."""
    return web.Response(text=(_TEMPLATES / "icon.svg").read_text(encoding="utf-8"), content_type="image/svg+xml")


@web.middleware
async def helpful_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """For a path that does not exist, list what exists: as a page to a browser, else as JSON."""
    try:
        return await handler(request)
    except (web.HTTPNotFound, web.HTTPMethodNotAllowed) as error:
        headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else {}
        if "text/html" in request.headers.get(hdrs.ACCEPT, "") and not request.path.startswith("/sandbox/"):
            title = HTTPStatus(error.status).phrase
            return _render(
                "missing.html.j2", {"active": "", "title": title, "path": request.path}, error.status, headers
            )
        problem = f"{request.method} {request.path}: {error.reason}"
        return web.json_response({"message": problem, "there_is": _WAYS_IN}, status=error.status, headers=headers)


def _render(
    template: str, values: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> web.Response:
    html = _JINJA.get_template(template).render(values)
    # JSON can contain halves of characters that UTF-8 can't encode.
    body = html.encode("utf-8", "replace")
    merged = {**_HEADERS, **(headers or {})}
    return web.Response(status=status, body=body, content_type="text/html", charset="utf-8", headers=merged)


def _number(request: web.Request, key: str, default: int) -> int:
    text = request.query.get(key, "")
    return int(text) if text.isdecimal() and len(text) < 12 else default


ROUTES = [
    web.get("/", audience),
    web.get("/activity", activity),
    web.get(r"/contacts/{id:\d{1,12}}", contact),
    web.get("/style.css", stylesheet),
    web.get("/icon.svg", icon),
]
