"""How written events are read, and which opt-ins are sent: what users may choose."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, timedelta, tzinfo
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pydantic import ValidationInfo


@dataclass(frozen=True, slots=True)
class Reading:
    """How values are read; the context of every validation.

    :param timezone: the zone of times that name none.
    :param send_nulls: send null for None, NaN and NaT instead of leaving them out.
    """

    timezone: tzinfo = UTC
    send_nulls: bool = False

    @classmethod
    def of(cls, info: ValidationInfo) -> Reading:
        """Return the reading a validation runs under."""
        return info.context if isinstance(info.context, Reading) else USUAL


USUAL: Final = Reading()


@dataclass(frozen=True, slots=True)
class ConsentPolicy:
    """Which evidence an opt-in needs before it is sent.

    :param require_ip: withhold opt-ins without the person's IP address. False where consent was given on paper or
        by phone. (Regal: "required if you are opting in users server side".)
    :param max_consent_age: withhold opt-ins given longer ago than this; None for no limit.
    """

    require_ip: bool = True
    max_consent_age: timedelta | None = None
