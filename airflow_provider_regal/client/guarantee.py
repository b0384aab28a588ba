"""Whether an event that may have arrived may be sent again."""

from __future__ import annotations

from typing import Final, Literal, get_args

Guarantee = Literal["at_most_once", "at_least_once"]
GUARANTEES: Final[tuple[Guarantee, ...]] = get_args(Guarantee)
