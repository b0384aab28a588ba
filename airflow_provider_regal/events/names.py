"""The names of event fields at Regal and Segment, as sent or accepted, and our names for them.

The code of the other modules takes the camelCase names from here.

Sources: REST contract of Regal's Custom Events API (maps ``phones``/``emails``), Regal's Segment destination
(``phone``, ``email``, ``optIn[]``) and the Segment spec (``userId``, ``messageId``, ``postalCode``).
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final, Literal

CALLS: Final = ("identify", "track", "page", "screen")
OPTIONAL_CALLS: Final = frozenset({"page", "screen"})  # in a Segment archive

Channel = Literal["sms", "voice", "email"]

PHONE_CHANNELS: Final[tuple[Channel, ...]] = ("sms", "voice")
EMAIL_CHANNELS: Final[tuple[Channel, ...]] = ("email",)

CHANNELS_OF: Final = MappingProxyType({"phones": PHONE_CHANNELS, "emails": EMAIL_CHANNELS})

# Wire name of a channel's opt-in in a phone or an email.
OPT_IN_KEYS: Final = MappingProxyType[Channel, str]({"sms": "smsOptIn", "voice": "voiceOptIn", "email": "emailOptIn"})

USER_ID: Final = "userId"
ANONYMOUS_ID: Final = "anonymousId"  # Segment's; Regal has no such field
TRAITS: Final = "traits"
NAME: Final = "name"
PROPERTIES: Final = "properties"
ORIGINAL_TIMESTAMP: Final = "originalTimestamp"
EVENT_SOURCE: Final = "eventSource"
MESSAGE_ID: Final = "messageId"  # Segment's; Regal has no such field

PHONES: Final = "phones"
EMAILS: Final = "emails"
LABEL: Final = "label"
FIRST_NAME: Final = "firstName"
LAST_NAME: Final = "lastName"
IS_PRIMARY: Final = "isPrimary"
SUB_BRAND: Final = "subBrand"
ADDRESS: Final = "address"
ZIPCODE: Final = "zipcode"
SEGMENT_OPT_IN: Final = "optIn"  # a list of opt-ins; Regal's API has OPT_IN_KEYS instead

# The same opt-ins next to the phone or email, spelled as in Regal or as columns.
LOOSE_OPT_INS: Final = MappingProxyType[str, Channel](
    {key: channel for channel, one in OPT_IN_KEYS.items() for key in (one, f"{channel}_opt_in")}
)

# Traits whose type Regal's API defines.
TEXT_TRAITS: Final = (FIRST_NAME, LAST_NAME, SUB_BRAND)
TEXT_ADDRESS: Final = ("street", "city", "state", ZIPCODE, "country")

# Accepted spellings in an event -> the name of our field.
EVENT_ALIASES: Final = MappingProxyType(
    {
        USER_ID: "user_id",
        ORIGINAL_TIMESTAMP: "timestamp",
        EVENT_SOURCE: "event_source",
        MESSAGE_ID: "message_id",
        SEGMENT_OPT_IN: "opt_in",
        SUB_BRAND: "sub_brand",
    }
)
OPT_IN_ALIASES: Final = MappingProxyType({"subscribedAt": "timestamp"})  # Segment's key before May 2021
CONTACT_ALIASES: Final = MappingProxyType({IS_PRIMARY: "is_primary"})
ADDRESS_ALIASES: Final = MappingProxyType({"postalCode": ZIPCODE})

# The event names Regal's Segment destination uses for page and screen calls.
PAGE_NAME: Final = "pageview"
SCREEN_NAME: Final = "screen"
