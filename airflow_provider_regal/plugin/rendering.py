"""Render templates to responses: every value is escaped, nothing is loaded from outside, and there is no script."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any, Final

import jinja2
from fastapi import Request
from fastapi.responses import HTMLResponse
from markupsafe import Markup

from airflow_provider_regal.ledger import formats
from airflow_provider_regal.ledger.admin import words
from airflow_provider_regal.plugin import charts

_TEMPLATES: Final = Path(__file__).parent / "templates"
_CSS: Final = (_TEMPLATES / "regal.css").read_text(encoding="utf-8")
_HASH: Final = base64.b64encode(hashlib.sha256(_CSS.encode()).digest()).decode()
HEADERS: Final = {
    # Even if a value was not escaped, it could not load or run anything.
    "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_JINJA: Final = jinja2.Environment(
    loader=jinja2.FileSystemLoader(_TEMPLATES),
    autoescape=True,
    auto_reload=False,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=jinja2.StrictUndefined,
)


def thousands(number: float | None) -> str:
    """Format a number with separators: ``12,345``."""
    return "" if number is None else f"{number:,.0f}"


def clock(at: str | None) -> str:
    """Format a time of the ledger for people: ``2026-11-29 08:00``."""
    return f"{at[:10]} {at[11:16]}" if at else ""


def moment(at: str | None) -> str:
    """Format a time of the ledger to the second: ``2026-11-29 08:00:03``."""
    return f"{at[:10]} {at[11:19]}" if at else ""


def wrong(message: str) -> str:
    """Return what is wrong with a row, without the advice, which the page shows once."""
    return words.without_advice(message)[0]


def twice(one: str) -> tuple[str, str]:
    """Return a value and its label for a list of choices, if both are the same."""
    return one, one


_JINJA.filters |= {
    "thousands": thousands,
    "clock": clock,
    "moment": moment,
    "wrong": wrong,
    "duration": formats.duration,
    "twice": twice,
}
_JINJA.globals |= {"plural": formats.plural, "charts": charts, "css": Markup(_CSS)}  # noqa: S704 - a file of ours


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Render a page.

    :param template: its name, without ``.html.j2``.
    """
    root = request.scope.get("root_path", "").rstrip("/")
    # In a frame of Airflow's UI, external links would open Airflow within Airflow.
    framed = request.headers.get("sec-fetch-dest") == "iframe"
    html = _JINJA.get_template(f"{template}.html.j2").render(
        root=root, airflow=root.removesuffix("/regal"), framed=framed, **values
    )
    return HTMLResponse(html.encode("utf-8", "replace"), status_code=status, headers=HEADERS)
