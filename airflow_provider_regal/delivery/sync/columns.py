"""The columns of a consent table, in long and wide form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from airflow_provider_regal.events.options import WIDE_FORM, Target, targets_in

PERSON: Final = ("user_id", "phone", "email")
DETAILS: Final = ("timestamp", "ip", "text", "source")
LONG_FORM: Final = (*PERSON, "channel", "subscribed", *DETAILS)


def check_columns(columns: Mapping[str, Target]) -> None:
    """Check that a mapping only names columns of a consent table.

    :raises ValueError: it names something else.
    """
    for column, target in targets_in(columns):
        if target not in LONG_FORM and target not in WIDE_FORM:
            raise ValueError(
                f"mapping[{column!r}] must be one of {', '.join(LONG_FORM)}, a name such as sms_opt_in_at, a list of "
                "such names, or None"
            )
