"""Create or update one contact."""

from __future__ import annotations

from typing import Any, ClassVar

from airflow_provider_regal.operators._event import RegalEventOperator


class RegalIdentifyOperator(RegalEventOperator):
    """Create a contact in Regal, or update its attributes and consent.

    .. code-block:: python

        RegalIdentifyOperator(
            task_id="anne",
            traits={"phone": "+19175554444", "firstName": "Anne", "lastName": "Smith"},
        )

    A single phone or email becomes the contact's primary one. Repeating the event does not change the contact, so the
    default guarantee is ``at_least_once``.

    :param kwargs: every parameter of :class:`~airflow_provider_regal.operators._event.RegalEventOperator`, and of any
        task.
    """

    call: ClassVar[str] = "identify"

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
