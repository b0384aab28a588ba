"""Make Regal's messages safe to show: an error may echo the event or the key."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import unquote

from airflow_provider_regal.events.privacy import MASK, scrub

_LONGEST: Final = 200
_WORD: Final = re.compile(r"[^\W_]+")
_ESCAPED: Final = re.compile(r"\\u([0-9a-fA-F]{4})")
_MASKS: Final = re.compile(rf"{re.escape(MASK)}(?:[\s_]*{re.escape(MASK)})+")
# Shorter prefixes identify nothing, and masking them would hide half of any sentence.
_SHORTEST_START: Final = 4


def fit_to_show(said: str, *, sent: Any, api_key: str) -> str:
    """Mask everything we sent in a text.

    Compares word by word, to find values that are cut off or spelled differently, too.

    :param said: Regal's message.
    :param sent: the event; its field names may be shown, its values may not.
    :param api_key: the key it was sent with.
    :returns: one line of at most 200 characters.
    """
    plain = unquote(html.unescape(_ESCAPED.sub(lambda found: chr(int(found[1], 16)), said)))
    words = {word.casefold() for text in (*_values(sent), api_key) for word in _WORD.findall(text)}
    # Joining all words with a separator before each finds prefixes as fast as a lookup of whole words.
    starts = "\n" + "\n".join(words)

    def masked(found: re.Match[str]) -> str:
        word = found.group().casefold()
        ours = word in words or (len(word) >= _SHORTEST_START and f"\n{word}" in starts)
        return MASK if ours else found.group()

    return one_line(_MASKS.sub(MASK, _WORD.sub(masked, scrub(plain, [sent, api_key]))), _LONGEST)


def one_line(text: str, longest: int) -> str:
    """Reduce a text to one printable line of limited length, so that it can't forge another log line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def _values(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not str(key).isidentifier():  # a phone or an email; a field's name reveals nothing
                yield str(key)
            yield from _values(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _values(item)
    elif value is not None and not isinstance(value, bool):
        yield str(value)
