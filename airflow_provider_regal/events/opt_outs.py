"""Opt-outs of an event that is wrong elsewhere: they are taken out of it, since nothing may hold an opt-out back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_regal.errors import InvalidEventError
from airflow_provider_regal.events import names
from airflow_provider_regal.events.models import Identify
from airflow_provider_regal.events.options import Reading
from airflow_provider_regal.events.python_values import read_truth
from airflow_provider_regal.events.reading import draft_of


def opt_outs_of(written: Mapping[str, Any], reading: Reading | None = None) -> Identify | None:
    """Make an event of the opt-outs that can be read of a written one, each with its phone or email; None without any.

    The user id stays out of it: it may be what is wrong, and phone or email say whose the opt-out is.
    """
    draft = draft_of(written, names.EVENT_ALIASES, promotes=False)
    found: dict[str, list[dict[str, Any]]] = {}
    for member in (names.PHONES, names.EMAILS):
        for point in draft.fields.get(member, ()):
            opt_outs = [one for one in _opt_outs(point) if _is_readable(member, point, [one], reading)]
            if opt_outs:
                found.setdefault(member, []).append(_bare(point, opt_outs))
    try:
        return Identify.read(found, reading) if found else None
    except InvalidEventError:  # such as the same phone twice
        return None


def _opt_outs(point: Mapping[str, Any]) -> Iterator[Any]:
    for opt_in in point.get("opt_ins", ()):
        subscribed = opt_in.get("subscribed") if isinstance(opt_in, Mapping) else getattr(opt_in, "subscribed", None)
        try:
            if not read_truth(subscribed):
                yield opt_in
        except ValueError:
            continue


def _is_readable(member: str, point: Mapping[str, Any], opt_outs: list[Any], reading: Reading | None) -> bool:
    try:
        Identify.read({member: [_bare(point, opt_outs)]}, reading)
    except InvalidEventError:
        return False
    return True


def _bare(point: Mapping[str, Any], opt_outs: list[Any]) -> dict[str, Any]:
    return {**{key: point[key] for key in ("number", "address") if key in point}, "opt_ins": opt_outs}
