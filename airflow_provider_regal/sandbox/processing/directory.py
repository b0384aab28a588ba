"""Find the profile of an event, by phone, email or user id in the configured order."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from airflow_provider_regal.sandbox.processing.contacts import Contact
from airflow_provider_regal.sandbox.processing.reading import Reading


class Directory:
    """All profiles, the most recently changed at the end.

    :param lookup_order: which identifier decides first.
    :param keep: how many profiles are kept; those unchanged for longest are dropped first.
    """

    def __init__(self, lookup_order: tuple[str, ...], keep: int) -> None:
        self._order = lookup_order
        self._keep = keep
        self._profiles: OrderedDict[int, Contact] = OrderedDict()
        self._owners: dict[str, dict[str, int]] = {"phone": {}, "email": {}, "userId": {}}
        self._last_id = 0
        self.forgotten_contacts = 0
        self.forgotten_hidden = 0

    def __len__(self) -> int:
        return len(self._profiles)

    def newest_first(self) -> Iterator[Contact]:
        """List profiles, most recently changed first."""
        return reversed(self._profiles.values())

    def get(self, contact_id: int) -> Contact | None:
        """Return the profile with that number, if it is still kept."""
        return self._profiles.get(contact_id)

    def owner(self, kind: str, value: str) -> Contact | None:
        """Return the profile of an identifier, even if it is a user id that was replaced since."""
        contact_id = self._owners[kind].get(value)
        return None if contact_id is None else self._profiles.get(contact_id)

    def find(self, reading: Reading) -> Contact | None:
        """Find the profile of a body: the first identifier with a profile decides."""
        for kind in self._order:
            for value in _candidates(kind, reading):
                contact = self.owner(kind, value)
                if contact is not None:
                    return contact
        return None

    def create(self, now: float) -> Contact:
        """Add a new, empty profile."""
        self._last_id += 1
        contact = Contact(id=self._last_id, created_at=now, changed_at=now)
        self._profiles[contact.id] = contact
        return contact

    def claim(self, kind: str, value: str, contact: Contact) -> None:
        """Assign an identifier to ``contact`` from now on."""
        self._owners[kind][value] = contact.id

    def touch(self, contact: Contact, now: float) -> None:
        """Record a change, and drop the oldest profiles if there are too many."""
        contact.changed_at = now
        self._profiles.move_to_end(contact.id)
        while len(self._profiles) > self._keep:
            self._forget(self._profiles.popitem(last=False)[1])

    def _forget(self, contact: Contact) -> None:
        if contact.visible:
            self.forgotten_contacts += 1
        else:
            self.forgotten_hidden += 1
        user_ids = [contact.user_id] if contact.user_id is not None else []
        known = {**contact.points, "userId": [*contact.former_user_ids, *user_ids]}
        for kind, values in known.items():
            for value in values:
                if self._owners[kind].get(value) == contact.id:
                    del self._owners[kind][value]


def _candidates(kind: str, reading: Reading) -> list[str]:
    if kind == "userId":
        return [] if reading.user_id is None else [reading.user_id]
    # The primary one of the body comes before its others.
    mentions = sorted(reading.mentions[kind].values(), key=lambda mention: (not mention.promote, mention.value))
    return [mention.value for mention in mentions]
