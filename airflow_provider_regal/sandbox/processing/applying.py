"""Apply a body to one profile. Nothing is ever removed: what is not mentioned stays."""

from __future__ import annotations

from airflow_provider_regal.sandbox.processing.consent import Recorded
from airflow_provider_regal.sandbox.processing.contacts import PHONE_CHANNELS, Contact, new_point
from airflow_provider_regal.sandbox.processing.directory import Directory
from airflow_provider_regal.sandbox.processing.findings import Finding
from airflow_provider_regal.sandbox.processing.reading import Mention, Reading


def apply(reading: Reading, contact: Contact, directory: Directory, *, event: int, now: float) -> list[Finding]:
    """Apply a body to its profile.

    :param event: number of the request.
    :param now: when it was received.
    :return: effects that its sender may not have wanted.
    """
    found = []
    if reading.user_id is not None:
        found += _take_user_id(reading.user_id, contact, directory)
    contact.traits.update(reading.attributes)
    primary_before = contact.primary_point("phone")
    for kind, mentions in reading.mentions.items():
        known = set(contact.points[kind])
        for mention in mentions.values():
            found += _take_point(kind, mention, contact, directory, event=event, now=now)
        promoted = _new_primary(contact.primary[kind], list(mentions.values()), known)
        if promoted is not None:
            contact.primary[kind] = promoted
    primary_after = contact.primary_point("phone")
    if primary_before is not None and primary_after is not None and primary_after is not primary_before:
        for channel in PHONE_CHANNELS:
            if primary_before.channels[channel].subscribed and primary_after.channels[channel].subscribed is None:
                text = f"primary phone switched to {primary_after.value} without its own {channel} opt-in"
                found.append(Finding("primary_without_opt_in", text))
    contact.activity.append(event)
    directory.touch(contact, now)
    return found


def _take_user_id(user_id: str, contact: Contact, directory: Directory) -> list[Finding]:
    found = []
    holder = directory.owner("userId", user_id)
    if holder is not None and holder is not contact:
        found.append(_moved(f"user id {user_id}", holder, contact))
        if holder.user_id == user_id:
            holder.user_id = None
    before = contact.user_id
    if before is not None and before != user_id:
        found.append(Finding("user_id_replaced", f"user id {before} replaced by {user_id}"))
        contact.former_user_ids = [known for known in contact.former_user_ids if known != user_id] + [before]
    contact.user_id = user_id
    directory.claim("userId", user_id, contact)
    return found


def _take_point(
    kind: str, mention: Mention, contact: Contact, directory: Directory, *, event: int, now: float
) -> list[Finding]:
    found = []
    points = contact.points[kind]
    if mention.value not in points:
        holder = directory.owner(kind, mention.value)
        if holder is not None and holder is not contact:
            # A number or address belongs to only one profile; its consent is the person's, so it moves with it.
            found.append(_moved(f"{kind} {mention.value}", holder, contact))
            points[mention.value] = holder.points[kind].pop(mention.value)
            if holder.primary[kind] == mention.value:
                holder.primary[kind] = min(holder.points[kind], default=None)
        else:
            points[mention.value] = new_point(kind, mention.value, now)
        directory.claim(kind, mention.value, contact)
    point = points[mention.value]
    point.label = mention.label or point.label
    for channel, consent in mention.consents:
        if point.channels[channel].record(Recorded(consent, now, event)):
            text = f"{channel} opt-in of {mention.value} of {consent.timestamp} came after a newer one"
            found.append(Finding("older_opt_in", text))
    return found


def _new_primary(primary: str | None, mentions: list[Mention], known: set[str]) -> str | None:
    """Return the new primary: the legacy one always; else the flagged one; else, if there is none yet, the first."""
    for wanted in (
        [mention.value for mention in mentions if mention.legacy],
        [mention.value for mention in mentions if mention.promote],
        [mention.value for mention in mentions if primary is None and mention.value not in known],
    ):
        if wanted:
            return min(wanted)
    return None


def _moved(what: str, giver: Contact, taker: Contact) -> Finding:
    return Finding("identifier_moved", f"{what} taken over from contact {giver.id} by contact {taker.id}")
