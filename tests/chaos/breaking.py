"""Ways to break the package on purpose, which storms must detect. Applied in the sender's process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def forget_what_was_acknowledged() -> None:
    """A try that resumes sends acknowledged rows again."""
    from airflow_provider_regal.ledger.deliveries import Deliveries
    from airflow_provider_regal.ledger.states import Outcome, RowState

    take = Deliveries.take

    def forgetful(self: Any, *given: Any, **options: Any) -> Any:
        held = take(self, *given, **options)
        for position in held.states.positions(RowState.ACKNOWLEDGED):
            held.states[position] = RowState.OPEN
            held.counts.add(Outcome.ACKNOWLEDGED, -1)
        return held

    Deliveries.take = forgetful  # type: ignore[method-assign]


def skip_the_reservation() -> None:
    """Rows are sent without a reservation."""
    from airflow_provider_regal.ledger.deliveries import Commit

    write = Commit.write

    def unreserved(self: Any, within: Any) -> Any:
        def granted_only(connection: Any) -> dict[int, int]:
            within(connection)
            return {}

        return write(self, granted_only)

    Commit.write = unreserved  # type: ignore[method-assign]


def ignore_retry_after() -> None:
    """Only the back-off decides when a request is retried."""
    from airflow_provider_regal.client import exchange

    exchange.LONGEST_RETRY_AFTER_S = 0.0  # type: ignore[misc]


def take_html_for_an_acknowledgement() -> None:
    """An HTML page counts as an acknowledgement, whatever its status."""
    from airflow_provider_regal.client.exchange import Answer, acknowledges
    from airflow_provider_regal.delivery.sending import engine

    def credulous(attempt: Any) -> bool:
        return acknowledges(attempt) or (isinstance(attempt, Answer) and attempt.excerpt.startswith(b"<"))

    engine.acknowledges = credulous  # type: ignore[attr-defined]


def send_twice_as_fast() -> None:
    """The pacer allows twice the limit."""
    from airflow_provider_regal.client.pace import Pacer

    set_limit = Pacer.set_limit

    def twice(self: Any, limit: int) -> None:
        set_limit(self, 2 * limit)

    Pacer.set_limit = twice  # type: ignore[method-assign]


def forget_the_order() -> None:
    """Rows of one person are sent at the same time."""
    from airflow_provider_regal.delivery.sending.order import Order

    admit = Order.admit
    Order.admit = lambda self, position, identifiers: admit(self, position, (str(position),))  # type: ignore[method-assign]


def log_the_answer() -> None:
    """An acknowledged row is logged."""
    from airflow_provider_regal.delivery.sending import recorder

    acknowledge = recorder.Recorder.acknowledge

    def talkative(self: Any, row: Any) -> None:
        recorder._log.info("Acknowledged %s", row.payload.body)
        acknowledge(self, row)

    recorder.Recorder.acknowledge = talkative  # type: ignore[method-assign]


BREAKS: dict[str, Callable[[], None]] = {
    "resume": forget_what_was_acknowledged,
    "reserve": skip_the_reservation,
    "retry_after": ignore_retry_after,
    "html": take_html_for_an_acknowledgement,
    "pace": send_twice_as_fast,
    "order": forget_the_order,
    "log": log_the_answer,
}
