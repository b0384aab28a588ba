"""Turn a contact's changes into rows of a delivery: an identify with opt-ins, or an event that represents one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from airflow_provider_regal.delivery.sync.store import Wanted
from airflow_provider_regal.events.names import EMAIL_CHANNELS
from airflow_provider_regal.ledger.text import LONGEST_NAME, fit
from airflow_provider_regal.sources.marks import (
    CLAIMS_MARK,
    EVENT_MARK,
    ONLY_CONSENT_MARK,
    ORIGIN_MARK,
    PHASE_MARK,
    REJECT_MARK,
    ROW_MARK,
    WEIGHT_MARK,
    Marked,
)

_NO_PHONE: Final = (
    "is missing, and no phone of this contact is on record: Regal would subscribe no one. "
    "Send the phone with the row, or identify the contact first, with the same ledger"
)
_PLACES_NAMED: Final = 3
_NO_LONGER_THERE: Final = (
    "is not known: the contact opted in without one and is no longer in the source, so it cannot be opted out here. "
    "Opt it out in Regal"
)


def as_contact(wanted: Sequence[Wanted], phase: int) -> Marked:
    """Return one identify with all decisions."""
    phones: dict[str, list[dict[str, Any]]] = {}
    emails: dict[str, list[dict[str, Any]]] = {}
    for one in wanted:
        points = emails if one.channel in EMAIL_CHANNELS else phones
        points.setdefault(one.identifier, []).append(_opt_in(one))
    return Marked(
        {
            EVENT_MARK: "identify",
            PHASE_MARK: phase,
            ONLY_CONSENT_MARK: True,
            WEIGHT_MARK: len(wanted),
            CLAIMS_MARK: [_claim(one) for one in wanted],
            ORIGIN_MARK: _places(wanted),
            "user_id": wanted[0].user_id,
            "phones": [{"number": number, "opt_ins": opt_ins} for number, opt_ins in phones.items()],
            "emails": [{"address": address, "opt_ins": opt_ins} for address, opt_ins in emails.items()],
        }
    )


def as_track(wanted: Wanted, event: str, *, phones: Sequence[str], phase: int) -> Marked:
    """Return the event that Regal's team has set up as an opt-in; without a phone it would subscribe no one.

    :param phones: those Regal has for the contact, as the ledger stores them: an opt-out of any of them applies.
    """
    user = wanted.identifier.startswith("user:")
    if user and not phones:
        return Marked({REJECT_MARK: [["phone", _NO_PHONE]], ROW_MARK: wanted._asdict(), ORIGIN_MARK: wanted.place})
    evidence = {"ip": wanted.ip, "text": wanted.text, "source": wanted.source}
    return Marked(
        {
            EVENT_MARK: "track",
            PHASE_MARK: phase,
            ONLY_CONSENT_MARK: True,
            ORIGIN_MARK: wanted.place,
            CLAIMS_MARK: [
                _claim(wanted),
                *([phone, *_claim(wanted)[1:4], None, True] for phone in phones if user),
            ],
            "event": event,
            "user_id": wanted.user_id,
            "phones": [] if user else [{"number": wanted.identifier}],
            "timestamp": wanted.at,
            "properties": {"channel": wanted.channel, **{k: v for k, v in evidence.items() if v is not None}},
        }
    )


def as_opt_out(identifier: str, channel: str, at: str, phase: int) -> Marked:
    """Opt out a person who is no longer in the source; the opt-out counts as given when that was detected."""
    if identifier.startswith("user:"):
        return Marked({REJECT_MARK: [["phone", _NO_LONGER_THERE]], ROW_MARK: {"who": identifier, "channel": channel}})
    row = as_contact([Wanted(identifier, channel, 0, at, 1, None, None, None, None, None)], phase)
    return Marked({**row, CLAIMS_MARK: [[identifier, channel, False, at, None, False, True]]})


def _opt_in(wanted: Wanted) -> dict[str, Any]:
    told = {
        "channel": wanted.channel,
        "subscribed": bool(wanted.subscribed),
        "timestamp": None if wanted.timeless else wanted.at,
        "ip": wanted.ip,
        "text": wanted.text,
        "source": wanted.source,
    }
    return {name: value for name, value in told.items() if value is not None}


def _places(wanted: Sequence[Wanted]) -> str | None:
    """Return the places of the rows in the source, or of the first few."""
    places = [*dict.fromkeys(one.place for one in wanted if one.place)]
    told = ", ".join(places[:_PLACES_NAMED]) + ", ..." * (len(places) > _PLACES_NAMED)
    return fit(told, LONGEST_NAME) or None


def _claim(wanted: Wanted) -> list[Any]:
    return [wanted.identifier, wanted.channel, bool(wanted.subscribed), wanted.at, wanted.row_hash]
