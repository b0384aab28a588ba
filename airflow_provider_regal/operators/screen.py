"""Send one screen view."""

from __future__ import annotations

from typing import ClassVar

from airflow_provider_regal.operators.page import RegalPageOperator


class RegalScreenOperator(RegalPageOperator):
    """Record that a person saw a screen of your app; Regal receives the event ``screen``.

    .. code-block:: python

        RegalScreenOperator(task_id="home", user_id="anne-1", name="Home")

    Never sent twice by default (``at_most_once``).

    :param name: the screen's name; sent as a property (templated).
    :param category: the screen's category; sent as a property (templated).
    :param properties: details of the event (templated).
    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators._event.RegalEventOperator`, and of any
        task.
    """

    call: ClassVar[str] = "screen"
