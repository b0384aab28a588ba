"""Pages in Airflow's UI (3.1 and later): deliveries, one delivery, one person, health.

::

    entry point ─▶ RegalPlugin ─▶ Lazy ─▶ app.create_app, when the first page is asked for
                                           │ access: who asks, what may they see, is the form ours
                                           └ pages ─▶ ledger ─▶ words, charts ─▶ templates

Workers and the DAG processor load plugins as well, so nothing is imported before the first page is requested.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

from airflow_provider_regal._compat import HAS_PAGES, AirflowPlugin, conf

PREFIX = "/regal"


class Lazy:
    """The pages as an ASGI application that is created on the first request."""

    def __init__(self) -> None:
        self._app: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer a request."""
        if self._app is None:
            from airflow_provider_regal.plugin.app import create_app

            self._app = create_app()
        await self._app(scope, receive, send)


def _below_base_url(path: str) -> str:
    """Return a path as the browser has to request it, if Airflow is not at the root of its host."""
    return urlsplit(conf.get("api", "base_url", fallback="") or "").path.rstrip("/") + path


class RegalPlugin(AirflowPlugin):
    """The plugin that Airflow finds through the entry point; it has no pages before Airflow 3.1."""

    name = "regal"
    fastapi_apps: list[Any] = [{"app": Lazy(), "url_prefix": PREFIX, "name": "Regal"}] if HAS_PAGES else []
    external_views: list[Any] = (
        [
            {
                "name": "Regal",
                "destination": "nav",
                "category": "browse",
                "url_route": "regal",
                "href": _below_base_url(f"{PREFIX}/"),
            },
            {
                "name": "Regal",
                "destination": "task_instance",
                "url_route": "regal_delivery",
                "href": _below_base_url(
                    f"{PREFIX}/task?dag_id={{DAG_ID}}&run_id={{RUN_ID}}&task_id={{TASK_ID}}&map_index={{MAP_INDEX}}"
                ),
            },
        ]
        if HAS_PAGES
        else []
    )
