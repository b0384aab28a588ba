"""Who has taken a dead letter to send it again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

NOBODY_KNOWS: Final = "somebody whose claim cannot be read"


@dataclass(frozen=True, slots=True)
class Claim:
    """Who took a dead letter.

    :param by: run folder of the redelivery.
    :param outcome: what became of it: ``acknowledged``, ``rejected``, ``unknown``, ``skipped``; None until it is known.
    :param ours: it is to be sent by whoever has just asked for it.
    :param token: of the occasion on which it was taken, where one redelivery can take a letter again.
    """

    by: str
    outcome: str | None = None
    ours: bool = False
    token: str = ""


MayTakeAgain = Callable[[Claim], bool]
"""Says of a claim of one's own whether the letter is to be sent again."""
