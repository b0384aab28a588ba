"""The columns of a table of consents, in its long form and its wide one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from airflow_provider_regal.events.names import EMAIL_CHANNELS, PHONE_CHANNELS

_CHANNELS: Final = (*PHONE_CHANNELS, *EMAIL_CHANNELS)
PERSON: Final = ("user_id", "phone", "email")
EVIDENCE: Final = ("timestamp", "ip", "text", "source")
LONG_FORM: Final = (*PERSON, "channel", "subscribed", *EVIDENCE)
WIDE: Final = {"_at": "timestamp", "_ip": "ip", "_text": "text", "_source": "source", "": "subscribed"}
WIDE_FORM: Final = {
    f"{channel}_opt_in{suffix}": (channel, name) for channel in _CHANNELS for suffix, name in WIDE.items()
}


def check_columns(columns: Mapping[str, str | None]) -> None:
    """Check that a mapping names what a row of consents can hold.

    :raises ValueError: it names something else.
    """
    for column, target in columns.items():
        if target is not None and target not in LONG_FORM and target not in WIDE_FORM:
            raise ValueError(
                f"mapping[{column!r}] must be one of {', '.join(LONG_FORM)}, a name such as sms_opt_in_at, or None"
            )
