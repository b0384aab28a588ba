"""Scripted bad answers: which requests get one, and what it is. Validated with pydantic, so no typo is ignored."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, TypeAdapter, ValidationError, model_validator

_BODIES = ("empty", "json", "html", "list", "quoted")
_STRICT = ConfigDict(extra="forbid", strict=True, frozen=True, populate_by_name=False)


class FaultsError(ValueError):
    """The rules are invalid; the text names each rule and key at fault."""


class On(BaseModel):
    """Which requests: all given conditions must hold; none given means all requests."""

    model_config = _STRICT
    requests: list[PositiveInt] | None = None
    from_: PositiveInt | None = Field(default=None, alias="from")
    to: PositiveInt | None = None
    every: PositiveInt | None = None
    offset: Annotated[int, Field(ge=0)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    seed: int | None = None
    name: str | None = None
    times: PositiveInt | None = None

    @model_validator(mode="after")
    def _belongs_together(self) -> On:
        if self.offset is not None and self.every is None:
            raise ValueError("'offset' needs 'every'")
        if self.seed is not None and self.share is None:
            raise ValueError("'seed' needs 'share'")
        if self.from_ is not None and self.to is not None and self.to < self.from_:
            raise ValueError("'to' lies before 'from'")
        return self

    def matches(self, number: int, name: str | None) -> bool:
        """Return whether request ``number`` with the event ``name`` matches (``FaultPlan`` checks ``times``)."""
        return (
            (self.requests is None or number in self.requests)
            and (self.from_ is None or number >= self.from_)
            and (self.to is None or number <= self.to)
            and (self.every is None or number % self.every == (self.offset or 0) % self.every)
            and (self.share is None or _dice(self.seed or 0, number) < self.share)
            and (self.name is None or self.name == name)
        )


class Do(BaseModel):
    """What happens instead of a plain 200."""

    model_config = _STRICT
    status: Annotated[int, Field(ge=200, le=599)] | None = None
    body: str | None = None
    retry_after: Annotated[int, Field(ge=0)] | Annotated[str, Field(pattern=r"^http-date:[0-9]+$")] | None = None
    store: bool | None = None
    drop: bool = False
    reset: bool = False
    hang: bool = False
    slow_body: bool = False
    delay_ms: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _one_thing(self) -> Do:
        ways = [way for way in ("drop", "reset", "hang", "slow_body") if getattr(self, way)]
        if self.status is not None:
            ways.append("status")
        if len(ways) > 1:
            raise ValueError(f"{' and '.join(repr(way) for way in ways)} cannot happen together")
        if not ways and self.delay_ms is None:
            raise ValueError("says nothing to do: give status, drop, reset, hang, slow_body or delay_ms")
        if self.status is None and (self.body is not None or self.retry_after is not None):
            raise ValueError("'body' and 'retry_after' need 'status'")
        if self.reset and self.store:
            raise ValueError("'reset' happens before storing; use 'drop' for a stored event without an answer")
        if self.body is not None and self.body not in _BODIES and not self.body.startswith("text:"):
            raise ValueError(f"'body' must be one of {', '.join(_BODIES)} or start with 'text:'")
        return self


class Rule(BaseModel):
    """One rule: on these requests, do this."""

    model_config = _STRICT
    on: On = Field(default_factory=On)
    do: Do


_RULES = TypeAdapter(list[Rule])


def parse_rules(document: object) -> list[Rule]:
    """Validate a list of rules from JSON or Python.

    :raises FaultsError: one line per mistake, with rule number and key.
    """
    if not isinstance(document, list):
        raise FaultsError('the faults must be a list of rules, such as [{"on": {"every": 50}, "do": {"status": 500}}]')
    try:
        return _RULES.validate_python(document)
    except ValidationError as error:
        raise FaultsError(
            "\n".join(
                _sentence(problem["loc"], problem["type"], problem["msg"])
                for problem in error.errors(include_url=False)
            )
        ) from None


def _sentence(loc: Sequence[int | str], kind: str, message: str) -> str:
    # Union branches add the name of their type to the path ("constrained-str"); readers only need rule, part and key.
    rule, *path = loc
    where = f"rule {int(rule) + 1}"
    keys = [str(step) for step in path[:2]]
    if kind == "extra_forbidden":
        part = f" in '{keys[0]}'" if len(keys) > 1 else ""
        return f"{where}: unknown key '{keys[-1]}'{part}"
    if kind == "missing":
        return f"{where}: '{'.'.join(keys)}' is missing"
    text = message.removeprefix("Value error, ")
    return f"{where}, '{'.'.join(keys)}': {text}" if keys else f"{where}: {text}"


def _dice(seed: int, number: int) -> float:
    # A hash rather than random(): the same request gets the same result in every run and in any order.
    digest = hashlib.blake2b(f"{seed}:{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64


class FaultPlan:
    """The active rules, and how often each has fired.

    :param rules: the first match wins.
    """

    def __init__(self, rules: Sequence[Rule] = ()) -> None:
        self.rules = tuple(rules)
        self.fired = [0] * len(self.rules)

    def take(self, number: int, name: str | None) -> tuple[int, Do] | None:
        """Find the rule (numbered from 1) that request ``number`` matches, and count it as fired."""
        for index, rule in enumerate(self.rules):
            spent = rule.on.times is not None and self.fired[index] >= rule.on.times
            if not spent and rule.on.matches(number, name):
                self.fired[index] += 1
                return index + 1, rule.do
        return None

    def rearm(self) -> None:
        """Reset the counts."""
        self.fired = [0] * len(self.rules)

    def to_json(self) -> dict[str, Any]:
        """Return the rules as they were written, and how often each has fired."""
        return {
            "rules": [rule.model_dump(by_alias=True, exclude_unset=True) for rule in self.rules],
            "fired": list(self.fired),
        }


def describe(rule: Rule) -> str:
    """Format a rule in one line, for the page: ``every 50: status 500, stored``."""
    conditions = rule.on.model_dump(by_alias=True, exclude_unset=True)
    actions = rule.do.model_dump(exclude_unset=True)
    when = ", ".join(f"{key} {_plain(value)}" for key, value in conditions.items()) or "every request"
    return f"{when}: " + ", ".join(key if value is True else f"{key} {_plain(value)}" for key, value in actions.items())


def _plain(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
