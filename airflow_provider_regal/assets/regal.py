"""Assets of Regal: ``regal://account/contacts`` and ``regal://account/events/NAME``.

Airflow imports this when a DAG file names such an asset, so nothing heavy is imported here.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import SplitResult, quote, unquote, urlsplit

if TYPE_CHECKING:
    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.delivery.report import DeliveryReport
    from airflow_provider_regal.delivery.settings import DeliverySettings

SCHEME: Final = "regal"
_CONTACTS: Final = "contacts"
_EVENTS: Final = "events"
_COUNTED: Final = ("read", "acknowledged", "rejected", "unknown", "skipped")
#: Regal's event names for these calls.
_NAMES: Final = {"page": "pageview", "screen": "screen"}
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Data:
    """Data of an account: its contacts, its events of one name, or all its events.

    :param account: its name in the ledger: the connection's ``account``, or its id.
    :param event: name of the events; None for the contacts, or all events.
    """

    account: str
    is_contacts: bool
    event: str | None = None

    @property
    def name(self) -> str:
        """The path within the account."""
        if self.is_contacts:
            return _CONTACTS
        return _EVENTS if self.event is None else f"{_EVENTS}/{quote(self.event, safe='')}"

    @property
    def namespace(self) -> str:
        """The account as a URI."""
        return f"{SCHEME}://{quote(self.account, safe='')}"

    @property
    def uri(self) -> str:
        """The URI of the asset."""
        return f"{self.namespace}/{self.name}"


def parse(uri: str | SplitResult) -> Data:
    """Read the URI of an asset.

    :raises ValueError: it is not one of Regal's.
    """
    parts = urlsplit(uri) if isinstance(uri, str) else uri
    kind, _, event = parts.path.removeprefix("/").partition("/")
    right = (kind == _CONTACTS and not event) or (kind == _EVENTS and event and "/" not in event)
    if parts.scheme != SCHEME or not parts.netloc or parts.query or parts.fragment or not right:
        raise ValueError(
            "The URI of a Regal asset is regal://ACCOUNT/contacts or regal://ACCOUNT/events/NAME, where ACCOUNT is the "
            "connection's account (by default its id), and a space in NAME is %20"
        )
    return Data(unquote(parts.netloc), kind == _CONTACTS, unquote(event) or None)


def sanitize_uri(uri: SplitResult) -> SplitResult:
    """Normalize a URI, for Airflow.

    :raises ValueError: it is not one of Regal's.
    """
    return urlsplit(parse(uri).uri)


def to_openlineage(asset: Any, lineage_context: Any = None) -> Any:
    """Convert an asset to an OpenLineage dataset, for Airflow."""
    from airflow_provider_regal._compat import openlineage_dataset

    data = parse(asset.uri)
    return openlineage_dataset(data.namespace, data.name)


def changed_by(settings: DeliverySettings, account: str, *, is_segment: bool) -> list[Data]:
    """Return everything that a delivery may change, as far as its options show.

    :param is_segment: its rows are Segment messages, each of which names its own call.
    """
    contacts, events = Data(account, is_contacts=True), Data(account, is_contacts=False)
    if is_segment:
        return [contacts, events]
    sends = sent_by(settings, account) or events
    as_event = None if settings.sync is None else settings.sync.as_event
    return [sends] if as_event is None else [contacts, Data(account, is_contacts=False, event=as_event)]


def sent_by(settings: DeliverySettings, account: str) -> Data | None:
    """Return what a delivery sends, as far as its options show; None if that depends on its rows."""
    call, event = settings.mapping.call, settings.mapping.event
    if call == "identify" or settings.sync is not None:
        return Data(account, is_contacts=True)
    name = _NAMES.get(call, event)
    return None if name is None else Data(account, is_contacts=False, event=name)


def add_counts(context: Context, report: DeliveryReport, account: str, sends: Data | None) -> None:
    """Add a delivery's counts to the asset events of those of the task's outlets that are Regal assets.

    :param sends: what the delivery sends, if its options show it.
    """
    task: Any = context.get("task")
    for outlet in getattr(task, "outlets", None) or ():
        uri = getattr(outlet, "uri", None)
        if not isinstance(uri, str) or urlsplit(uri).scheme != SCHEME:
            continue
        try:
            data = parse(uri)
        except ValueError as error:  # Airflow has already called sanitize_uri, unless the asset is not ours
            _log.warning("The outlet %s gets no counts: %s", uri, error)
            continue
        if data.account != account or sends not in (None, data):
            other = Data(account, data.is_contacts, data.event) if sends is None else sends
            _log.warning("This task does not send %s, but %s: that asset event has no counts", data.uri, other.uri)
            continue
        try:
            event: Any = context["outlet_events"][outlet]
            event.extra = _sum(event.extra, report)
        except Exception as error:  # noqa: BLE001 - whatever Airflow raises; counts are only shown
            _log.debug("The asset event has no counts (%s)", type(error).__name__)


def _sum(before: Mapping[str, Any], report: DeliveryReport) -> dict[str, Any]:
    """Add up the deliveries of a task."""
    counts = {name: before.get(name, 0) + getattr(report, name) for name in _COUNTED}
    return {**before, "deliveries": [*before.get("deliveries", ()), report.delivery], **counts}
