"""The result of preparing a row: :class:`Ready` to send, or :class:`Rejected` because it is invalid.

*Rejected* is our decision, before sending; a *refusal* is Regal's answer 4xx. Both have the outcome ``rejected``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_regal.client.guarantee import Guarantee
from airflow_provider_regal.errors import Fault
from airflow_provider_regal.events import Consent, Payload
from airflow_provider_regal.ledger.rules import Claim
from airflow_provider_regal.ledger.states import Skip


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claim the ledger has to grant before a row is sent.

    :param consent: the consent in the payload; None if the claim covers the whole row.
    """

    claim: Claim
    consent: Consent | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """Regal's refusal (4xx) of a whole row, kept while the row's opt-outs are tried alone.

    :param payload: the refused payload.
    :param reason: a code to group by.
    :param message: what is wrong, without values.
    """

    payload: Payload
    reason: str
    message: str


@dataclass(slots=True)
class Ready:
    """A row that can be sent.

    :param position: the row's number in the snapshot, from 0.
    :param identifiers: rows that share one are sent in order.
    :param source_row: the row's number in the source, from 1.
    :param place: file and line, if the source is a file.
    :param weight: how many source rows it represents.
    :param has_time: whether the event has a time.
    :param user_id: the person's user id, if the event has one.
    :param message_id: for deduplication: an event is sent once per message id.
    :param phase: rows of a later phase wait for those of earlier ones.
    :param only_consent: without its consents there is nothing to send.
    :param instead_of: why only the row's opt-outs are sent: the row itself is rejected or skipped.
    :param refusal: Regal refused the row, and its opt-outs are tried alone; the row counts as rejected.
    :param waits: the row waits for approval, and only its opt-outs are sent now.
    :param letter_time: when it first failed, for a dead letter that is sent again.
    :param force: send it although Regal may already have it.
    :param row_hash: the hash of the row, if the ledger is to store it.
    :param payload_hash: the hash of the payload, if the ledger is to store it.
    :param key: the contact's key, if only changed contacts are sent.
    :param withheld_noted: how many of the withheld opt-ins were recorded.
    :param claims: what the ledger has to grant before it is sent.
    :param tries: requests made for it in this try of the task.
    :param first_at: when the first of them was made (ledger time).
    :param doubtful: whether one of them may have arrived.
    """

    position: int
    payload: Payload
    guarantee: Guarantee
    identifiers: tuple[str, ...]
    source_row: int = 0
    place: str | None = None
    weight: int = 1
    has_time: bool = True
    user_id: str | None = None
    message_id: str | None = None
    phase: int = 0
    only_consent: bool = False
    instead_of: Rejected | Skip | None = None
    refusal: Refusal | None = None
    waits: bool = False
    letter_time: str | None = None
    force: bool = False
    row_hash: str | None = None
    payload_hash: str | None = None
    key: str | None = None
    withheld_noted: int = 0
    claims: tuple[Claimed, ...] = ()
    claimed_at: float = float("-inf")
    tries: int = 0
    doubtful: bool = False
    first_at: str | None = None
    body: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.body = self.payload.encoded

    def send_instead(self, payload: Payload) -> None:
        """Replace the payload."""
        self.payload, self.body = payload, payload.encoded

    def send_only_opt_outs(self, instead_of: Skip) -> bool:
        """Send only its opt-outs, as an update of the contact.

        :param instead_of: why the row itself is not sent.
        :returns: whether there are any.
        """
        if (outs := self.payload.opt_outs) is None:
            return False
        self.send_instead(outs)
        self.instead_of, self.only_consent, self.message_id = instead_of, True, None
        return True

    @property
    def is_opt_outs_alone(self) -> bool:
        """Whether it has nothing but opt-outs that a source states."""
        if self.instead_of is not None:
            return True
        outs, inferred = self.payload.consents, any(one.claim.inferred for one in self.claims)
        return self.only_consent and bool(outs) and not inferred and not any(one.subscribed for one in outs)

    def leave_for_approval(self) -> bool:
        """Send only its opt-outs now, and the row itself once it is approved.

        :returns: whether there are any.
        """
        stated = tuple(
            one
            for one in self.claims
            if one.consent is not None and not one.claim.subscribed and not one.claim.inferred
        )
        if not stated or (outs := self.payload.opt_outs) is None:
            return False
        self.send_instead(outs)
        self.claims, self.waits, self.only_consent, self.guarantee = stated, True, True, "at_least_once"
        return True

    @property
    def opts_out(self) -> bool:
        """Whether it has an opt-out that the source states. Owed and inferred opt-outs don't fail a delivery."""
        inferred = {claimed.consent for claimed in self.claims if claimed.claim.inferred}
        return self.weight > 0 and any(not one.subscribed and one not in inferred for one in self.payload.consents)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row that we can never send: its event is invalid.

    For ``position``, ``source_row``, ``place``, ``weight``, ``letter_time`` and ``user_id``, see :class:`Ready`.

    :param row_hash: lets a later delivery recognize a row that was rejected before.
    :param identifiers: of the person, as far as they can be read.
    :param event: the name of the track event, if the delivery has one.
    :param loses_a_decision: it has an opt-out that can't be sent, or a decision that can't be read.
    :param form: the kind of row, as recorded in dead letters.
    :param decides: it has a decision on consent, readable or not.
    """

    position: int
    call: str
    faults: tuple[Fault, ...]
    row: Mapping[str, Any]
    row_hash: str
    form: str
    source_row: int = 0
    place: str | None = None
    weight: int = 1
    letter_time: str | None = None
    identifiers: tuple[str, ...] = ()
    user_id: str | None = None
    event: str | None = None
    loses_a_decision: bool = False
    decides: bool = False
