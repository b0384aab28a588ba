"""Convert a validation error of the contract into a finding in plain words."""

from __future__ import annotations

from collections.abc import Sequence

from airflow_provider_regal.sandbox.processing.findings import Finding

_SHOULD_BE = {
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_CHANNELS = {"smsOptIn": "sms", "voiceOptIn": "voice", "emailOptIn": "email"}


def type_word(value: object) -> str:
    """Return the JSON type of a value in words: ``text``, ``a number``, ``a list`` and so on."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, (int, float)):
        return "a number"
    if isinstance(value, str):
        return "text"
    return "a list" if isinstance(value, list) else "an object"


def breach(loc: Sequence[int | str], kind: str, value: object) -> Finding:
    """Describe one deviation.

    :param loc: its path, as reported by pydantic.
    :param kind: pydantic's name for the error.
    :param value: the value there.
    """
    # pydantic marks an invalid key with "[key]".
    steps = [str(step) for step in loc if step != "[key]"]
    place, last = ".".join(steps), steps[-1]
    in_map = len(steps) == 3 and steps[0] == "traits"
    if kind == "extra_forbidden":
        if len(steps) == 1:
            return Finding("unknown_top_level_key", f"top-level key not in the contract: {last}")
        return Finding("unknown_key", f"key not in the contract: {place}")
    if kind == "legacy_form":
        return Finding("legacy_form", f"legacy form: {place} instead of the phones or emails map")
    if kind == "missing" and last == "subscribed":
        return Finding("no_subscribed", f"{_opt_in(steps)} without subscribed")
    if kind == "string_pattern_mismatch" and in_map and "[key]" in loc:
        if steps[1] == "phones":
            return Finding("number_not_e164", f"phone key not in E.164 form: {last}")
        return Finding("address_malformed", f"email key is not an address: {last}")
    if kind == "string_pattern_mismatch":
        return Finding("bad_timestamp", f"{place} is in no documented form: {value}")
    if kind == "string_too_short":
        return Finding("empty_text", f"{place} is empty")
    if kind == "bool_type" and last == "subscribed":
        return Finding("subscribed_not_boolean", f"{_opt_in(steps)}: subscribed is {type_word(value)}, not a boolean")
    if kind in _SHOULD_BE:
        if isinstance(value, list) and steps in (["traits", "phones"], ["traits", "emails"]):
            return Finding("list_for_map", f"{last} is an array, not a map")
        return Finding("wrong_type", f"{place} is {type_word(value)}, not {_SHOULD_BE[kind]}")
    return Finding("other_breach", f"{place}: {kind.replace('_', ' ')}")


def _opt_in(steps: list[str]) -> str:
    channel = next((_CHANNELS[step] for step in steps if step in _CHANNELS), "")
    return f"{channel} opt-in".strip()
