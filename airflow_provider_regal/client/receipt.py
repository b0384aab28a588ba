"""The result of sending one event, without personal data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from airflow_provider_regal.events import Payload


@dataclass(frozen=True, slots=True)
class Receipt:
    """Regal's acknowledgement of one event: accepted, which does not prove that it was applied.

    :param call: ``identify``, ``track``, ``page`` or ``screen``.
    :param status: ``acknowledged``, or ``dry_run`` if nothing was sent.
    :param http_status: what Regal answered; None in a dry run.
    :param seconds: from the first attempt to the answer, waits included.
    :param tries: HTTP requests made.
    :param opt_ins_withheld: why each opt-in that was not sent was withheld.
    :param notes: what Regal will do that the sender may not expect.
    """

    call: str
    status: str
    http_status: int | None
    seconds: float
    tries: int
    opt_ins_withheld: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, payload: Payload, *, http_status: int | None, seconds: float, tries: int) -> Receipt:
        """Make the receipt of a payload."""
        return cls(
            call=payload.call,
            status="dry_run" if http_status is None else "acknowledged",
            http_status=http_status,
            seconds=round(seconds, 3),
            tries=tries,
            opt_ins_withheld=tuple(map(str, payload.withheld)),
            notes=payload.notes,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the receipt for XCom: counts and times, no personal data, under 2 KB."""
        return {
            "call": self.call,
            "status": self.status,
            "http_status": self.http_status,
            "seconds": self.seconds,
            "tries": self.tries,
            "opt_ins_withheld": len(self.opt_ins_withheld),
        }
