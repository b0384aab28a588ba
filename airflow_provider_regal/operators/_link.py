"""The link on every operator, to the page of its delivery in Airflow's UI."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from airflow_provider_regal._compat import HAS_PAGES, BaseOperatorLink, conf

if TYPE_CHECKING:
    from airflow_provider_regal._compat import BaseOperator

_PAGE = "/regal/task"


class RegalDeliveryLink(BaseOperatorLink):
    """Links to what a task instance delivered.

    The worker writes the link when a try ends: with the configured ``[api] base_url``, or, if that is not set, without
    a host, which the UI adds.
    """

    name = "Regal delivery"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the URL of the page.

        :param ti_key: the task instance.
        """
        map_index = getattr(ti_key, "map_index", -1)
        asked = {
            "dag_id": ti_key.dag_id,
            "run_id": ti_key.run_id,
            "task_id": ti_key.task_id,
            "map_index": -1 if map_index is None else map_index,
        }
        base_url = conf.get("api", "base_url", fallback="") or ""
        return f"{base_url.rstrip('/')}{_PAGE}?{urlencode(asked)}"


#: For every operator. Before Airflow 3.1 there is no page to link to.
LINKS: tuple[RegalDeliveryLink, ...] = (RegalDeliveryLink(),) if HAS_PAGES else ()
