"""Send one page view."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from airflow_provider_regal.operators._event import RegalEventOperator


class RegalPageOperator(RegalEventOperator):
    """Record that a person saw a web page; Regal receives the event ``pageview``.

    .. code-block:: python

        RegalPageOperator(task_id="pricing", user_id="anne-1", name="Pricing", properties={"path": "/pricing"})

    Never sent twice by default (``at_most_once``).

    :param name: the page's name; sent as a property (templated).
    :param category: the page's category; sent as a property (templated).
    :param properties: such as ``url``, ``path``, ``referrer``, ``title`` (templated).
    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators._event.RegalEventOperator`, and of any
        task.
    """

    call: ClassVar[str] = "page"
    payload_fields = (*RegalEventOperator.payload_fields, "properties")
    open_fields = (*RegalEventOperator.open_fields, "name", "category")
    template_fields: Sequence[str] = ("regal_conn_id", "restart", "ledger_conn_id", *payload_fields, *open_fields)

    def __init__(
        self,
        *,
        name: str | None = None,
        category: str | None = None,
        properties: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.name = name
        self.category = category
        self.properties = properties
