"""What was wrong, in plain words: the kinds of findings, and how they are counted.

A *contract* finding means that the request breaks the contract: a well-behaved client never causes one. A *behavior*
finding means that Regal dropped or ignored part of a request that it accepted, such as an invalid number.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Group = Literal["contract", "behaviour"]
_KEEP_NUMBERS = 1000

# kind: the name of one such finding, and the introduction of several
_CONTRACT = {
    "no_key": ("request without an API key", "requests without an API key"),
    "bearer_key": ("key sent with a prefix such as Bearer", "keys sent with a prefix such as Bearer"),
    "wrong_key": ("request with a wrong API key", "requests with a wrong API key"),
    "too_large": ("body above the size limit", "bodies above the size limit"),
    "not_an_object": ("body that is not a JSON object", "bodies that are not a JSON object"),
    "not_sent_as_json": ("request not sent as application/json", "requests not sent as application/json"),
    "unknown_top_level_key": ("top-level key not in the contract", "top-level keys not in the contract"),
    "unknown_key": ("key not in the contract", "keys not in the contract"),
    "list_for_map": ("phones or emails sent as an array", "phones or emails sent as arrays"),
    "legacy_form": ("legacy field: phone, email or optIn", "legacy fields: phone, email or optIn"),
    "number_not_e164": ("phone key not in E.164 form", "phone keys not in E.164 form"),
    "address_malformed": ("email key that is not an address", "email keys that are not addresses"),
    "no_subscribed": ("opt-in without subscribed", "opt-ins without subscribed"),
    "subscribed_not_boolean": ("subscribed that is not a boolean", "subscribed that are not booleans"),
    "wrong_type": ("value of the wrong type", "values of the wrong type"),
    "empty_text": ("empty value", "empty values"),
    "bad_timestamp": ("timestamp in no documented form", "timestamps in no documented form"),
    "no_identifier": ("body without an identifier", "bodies without an identifier"),
    "properties_without_name": (
        "properties without an event name",
        "bodies with properties but no event name",
    ),
    "other_breach": ("other breach of the contract", "other breaches of the contract"),
}
_BEHAVIOUR = {
    "number_dropped": (
        "number dropped: not a valid phone number",
        "numbers dropped: not valid phone numbers",
    ),
    "email_dropped": ("email dropped: not an address", "emails dropped: not addresses"),
    "opt_in_on_invalid_number": (
        "opt-in lost with its invalid number",
        "opt-ins lost with their invalid numbers",
    ),
    "opt_in_without_timestamp": ("opt-in without timestamp", "opt-ins without timestamp"),
    "opt_in_without_ip": ("opt-in without ip", "opt-ins without ip"),
    "opt_in_ignored": ("opt-in ignored", "opt-ins ignored"),
    "older_opt_in": ("older opt-in over a newer one", "older opt-ins over newer ones"),
    "primary_without_opt_in": (
        "primary phone switched to one without its own opt-in",
        "primary phones switched to ones without their own opt-in",
    ),
    "user_id_replaced": ("user id replaced by another", "user ids replaced by others"),
    "identifier_moved": (
        "identifier taken over from another profile",
        "identifiers taken over from other profiles",
    ),
    "type_changed": ("value whose type changed", "values whose type changed"),
    "too_many_property_names": (
        "property name beyond the 8,000 kept",
        "property names beyond the 8,000 kept",
    ),
    "duplicate": ("event received again", "events received again"),
    "hidden_profile": ("event kept on a hidden profile", "events kept on hidden profiles"),
    "nothing_stored": ("event that identifies no one", "events that identify no one"),
}
_WORDS: dict[Group, dict[str, tuple[str, str]]] = {"contract": _CONTRACT, "behaviour": _BEHAVIOUR}


@dataclass(frozen=True)
class Finding:
    """One thing that was wrong with one request.

    :param kind: one of the kinds above.
    :param text: a description, with the value or place concerned.
    """

    kind: str
    text: str

    @property
    def group(self) -> Group:
        """``contract`` or ``behaviour``."""
        return "contract" if self.kind in _CONTRACT else "behaviour"

    def to_json(self) -> dict[str, str]:
        """As the side API shows it."""
        return {"group": self.group, "kind": self.kind, "text": self.text}


class Tally:
    """Findings counted by kind. Counts are exact; only the newest request numbers are kept."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._numbers: dict[str, deque[int]] = {}

    def add(self, number: int, findings: Iterable[Finding]) -> None:
        """Count the findings of request ``number``."""
        for finding in findings:
            self._counts[finding.kind] = self._counts.get(finding.kind, 0) + 1
            numbers = self._numbers.setdefault(finding.kind, deque(maxlen=_KEEP_NUMBERS))
            if not numbers or numbers[-1] != number:
                numbers.append(number)

    def to_json(self, group: Group) -> dict[str, Any]:
        """Return the kinds of one group, most frequent first, each with its count, words and request numbers."""
        kinds = [kind for kind in _WORDS[group] if kind in self._counts]
        return {
            kind: {
                "count": self._counts[kind],
                "text": counted(self._counts[kind], *_WORDS[group][kind]),
                "events": list(self._numbers[kind]),
            }
            for kind in sorted(kinds, key=lambda kind: -self._counts[kind])
        }


def counted(count: int, one: str, many: str) -> str:
    """Format a count: ``1 opt-in``, ``3 opt-ins``, ``12,000 opt-ins``."""
    return f"{count:,} {one if count == 1 else many}"
