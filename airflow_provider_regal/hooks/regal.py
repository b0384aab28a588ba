"""The Regal hook: authentication, HTTP, single events and many rows.

::

    identify/track/page/screen ─▶ event ─▶ payload (consent judged) ─▶ ledger ─▶ client.one ─▶ receipt | a typed error
    deliver ─▶ rows ─▶ delivery (ledger, engine) ─▶ report | a typed error
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from threading import Lock
from typing import TYPE_CHECKING, Any

from airflow_provider_regal import connection_form, events
from airflow_provider_regal._compat import BaseHook, conf
from airflow_provider_regal.client.guarantee import GUARANTEES, Guarantee
from airflow_provider_regal.client.pace import Pacer
from airflow_provider_regal.delivery.settings import DeliverySettings
from airflow_provider_regal.errors import FixConnectionError, InvalidEventError
from airflow_provider_regal.events.data_contract import DataContract
from airflow_provider_regal.events.options import ConsentPolicy, Reading

if TYPE_CHECKING:
    import requests

    from airflow_provider_regal._compat import Context
    from airflow_provider_regal.client.receipt import Receipt
    from airflow_provider_regal.client.target import Target
    from airflow_provider_regal.delivery.report import DeliveryReport
    from airflow_provider_regal.events import Event, Identify, Page, Payload, Screen, Track
    from airflow_provider_regal.hooks._single import SingleEvents


# One pacer per process, so that a 429 pauses all of a task that creates a hook per row.
_one_pacer_of = lru_cache(maxsize=64)(lambda origin, api_key, rate_limit: Pacer(rate_limit))
_pacer_lock = Lock()


def _pacer_of(target: Target) -> Pacer:
    with _pacer_lock:  # two threads that miss the cache at the same time would get one each
        return _one_pacer_of(target.origin, target.api_key, target.rate_limit)


class RegalHook(BaseHook):
    """Send contacts, events and opt-ins to Regal.

    .. code-block:: python

        hook = RegalHook()
        hook.identify(traits={"phone": "+19175554444", "firstName": "Anne"})
        hook.track("Loan Application Approved", user_id="anne-1", properties={"amount": 30000})

    :param regal_conn_id: a connection of type ``regal``.
    :param outage_patience_s: seconds for which one event is retried while Regal is unavailable.
    :param consent: which evidence opt-ins need before they are sent.
    :param reading: how nulls and times without a zone are read.
    :param ledger_conn_id: the ledger's database; None for that of ``[regal] ledger_conn_id``.
    :param contract: reject what violates this contract; see
        :class:`~airflow_provider_regal.transfers.sql_to_regal.SqlToRegalOperator`.
    """

    conn_name_attr = "regal_conn_id"
    default_conn_name = "regal_default"
    conn_type = "regal"
    hook_name = "Regal"

    def __init__(
        self,
        regal_conn_id: str = default_conn_name,
        *,
        outage_patience_s: float = 60.0,
        consent: ConsentPolicy | None = None,
        reading: Reading | None = None,
        ledger_conn_id: str | None = None,
        contract: Mapping[str, Any] | str | os.PathLike[str] | None = None,
    ) -> None:
        super().__init__()
        if contract is not None:
            DataContract(contract)  # report an invalid contract immediately
        self.contract = contract
        self.ledger_conn_id = ledger_conn_id
        self.regal_conn_id = regal_conn_id
        self.outage_patience_s = outage_patience_s
        self.consent = consent or ConsentPolicy()
        self.reading = reading or Reading()
        #: The task instance that the events belong to, if it is not the running one, as in a callback.
        self.context: Context | None = None

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Fields of the connection form on Airflow 2.11."""
        return connection_form.widgets_of_2_11()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Labels of the connection form on Airflow 2.11."""
        return {
            "hidden_fields": connection_form.HIDDEN_FIELDS,
            "relabeling": connection_form.RELABELING,
            "placeholders": connection_form.PLACEHOLDERS,
        }

    @cached_property
    def target(self) -> Target:
        """Where and how to send events, read from the connection on first use.

        :raises FixConnectionError: the connection is invalid; the message names the field.
        """
        from airflow_provider_regal.client.target import check_extra, target_of

        conn = self.get_connection(self.regal_conn_id)
        check_extra(self.regal_conn_id, conn.extra)
        return target_of(
            self.regal_conn_id,
            host=conn.host,
            port=conn.port,
            password=conn.password,
            extra=conn.extra_dejson,
        )

    def get_conn(self) -> requests.Session:
        """Return this hook's ``requests.Session``, which sends the key."""
        return self._session

    @cached_property
    def _session(self) -> requests.Session:
        from airflow_provider_regal.client.session import keyed_session

        return keyed_session(self.target)

    def identify(
        self, event: Identify | None = None, *, guarantee: Guarantee = "at_least_once", **written: Any
    ) -> Receipt:
        """Create a contact or update its attributes and consent.

        :param event: an :class:`~airflow_provider_regal.events.Identify`; or pass its fields by name.
        :param guarantee: whether an event that may have arrived is sent again; a repeat does not change the contact.
        :param written: the fields of ``Identify``, in our names, Regal's format or Segment's.
        :raises InvalidEventError: the event has faults; it was not sent.
        :raises FixConnectionError: the connection or its key is wrong.
        :raises RefusedEventError: Regal refused the event for good.
        :raises RetryLaterError: not applied; Regal was unavailable for ``outage_patience_s``.
        :raises CheckRegalError: it can't be known whether Regal received it.
        """
        return self.send(self._one(events.Identify, event, written), guarantee=guarantee)

    def track(
        self,
        event: Track | str | None = None,
        *,
        guarantee: Guarantee = "at_most_once",
        suppress_named_events: bool = False,
        **written: Any,
    ) -> Receipt:
        """Record that a person did something. It may start a journey, so by default it is never sent twice.

        :param event: a :class:`~airflow_provider_regal.events.Track`; or the event's name, with its fields by name.
        :param guarantee: ``at_least_once`` resends what may have arrived, and may reach a person twice.
        :param suppress_named_events: skip the event if the person opted out of all channels on record.
        :param written: the fields of ``Track``.
        :raises RegalError: see :meth:`identify`.
        """
        if isinstance(event, str):
            event, written = None, {**written, "event": event}
        track = self._one(events.Track, event, written)
        return self.send(track, guarantee=guarantee, suppress_named_events=suppress_named_events)

    def page(
        self,
        event: Page | None = None,
        *,
        guarantee: Guarantee = "at_most_once",
        suppress_named_events: bool = False,
        **written: Any,
    ) -> Receipt:
        """Record that a person saw a web page (Regal's event ``pageview``).

        :param event: a :class:`~airflow_provider_regal.events.Page`; or pass its fields by name.
        :param guarantee: see :meth:`track`.
        :param suppress_named_events: see :meth:`track`.
        :param written: the fields of ``Page``.
        :raises RegalError: see :meth:`identify`.
        """
        page = self._one(events.Page, event, written)
        return self.send(page, guarantee=guarantee, suppress_named_events=suppress_named_events)

    def screen(
        self,
        event: Screen | None = None,
        *,
        guarantee: Guarantee = "at_most_once",
        suppress_named_events: bool = False,
        **written: Any,
    ) -> Receipt:
        """Record that a person saw a screen of your app (Regal's event ``screen``).

        :param event: a :class:`~airflow_provider_regal.events.Screen`; or pass its fields by name.
        :param guarantee: see :meth:`track`.
        :param suppress_named_events: see :meth:`track`.
        :param written: the fields of ``Screen``.
        :raises RegalError: see :meth:`identify`.
        """
        screen = self._one(events.Screen, event, written)
        return self.send(screen, guarantee=guarantee, suppress_named_events=suppress_named_events)

    def _one(self, kind: type[Event], event: Event | None, written: dict[str, Any]) -> Event:
        if event is None:
            return self.read(kind, written, self.reading)
        if written:
            raise TypeError(f"give an event or its fields, not both (got {', '.join(sorted(written))} as well)")
        if type(event) is not kind:  # each call has its own guarantee, so another type is not accepted
            raise TypeError(f"{kind.call} takes a {kind.__name__} or its fields, not a {type(event).__name__}")
        return event

    def read(self, kind: type[Event], written: Mapping[str, Any], reading: Reading) -> Event:
        """Read a written event; if it is otherwise invalid, send its opt-outs before raising.

        :raises InvalidEventError: with every fault of the event.
        """
        try:
            return kind.read(written, reading)
        except InvalidEventError:
            self._send_opt_outs(kind.call, written, reading)
            raise

    def _send_opt_outs(self, call: str, written: Mapping[str, Any], reading: Reading) -> None:
        from airflow_provider_regal.events.rows.opt_outs import opt_outs_of

        if (opt_outs := opt_outs_of(written, reading)) is not None:
            with suppress(InvalidEventError):  # for example without a phone; the event's own faults are raised instead
                self._send(opt_outs, guarantee="at_least_once")
                self.log.warning("This %s event is invalid; its opt-outs are still sent", call)

    def send(self, event: Event, *, guarantee: Guarantee, suppress_named_events: bool = False) -> Receipt:
        """Send one event of any kind.

        :param event: what to send.
        :param guarantee: whether an event that may have arrived is sent again.
        :param suppress_named_events: skip a named event if the person opted out of all channels on record.
        :raises RegalError: see :meth:`identify`.
        """
        contract = self._contract
        if contract is not None:
            contract.check_describes(event.call)
        with self._sending_opt_outs_of(event):
            return self._send(
                event, guarantee=guarantee, suppress_named_events=suppress_named_events, contract=contract
            )

    def check(self, event: Event, payload: Payload, contract: DataContract) -> None:
        """Check what would be sent against a contract; send its opt-outs before raising.

        :raises InvalidEventError: with all violations.
        """
        with self._sending_opt_outs_of(event):
            _check(payload, contract)

    @contextmanager
    def _sending_opt_outs_of(self, event: Event) -> Iterator[None]:
        try:
            yield
        except InvalidEventError:
            self._send_opt_outs(event.call, event.model_dump(), self.reading)
            raise

    def _send(
        self,
        event: Event,
        *,
        guarantee: Guarantee,
        suppress_named_events: bool = False,
        contract: DataContract | None = None,
    ) -> Receipt:
        from airflow_provider_regal.client.receipt import Receipt

        if guarantee not in GUARANTEES:
            raise ValueError(f"guarantee must be one of {', '.join(GUARANTEES)}")
        if not isinstance(suppress_named_events, bool):
            raise ValueError("suppress_named_events must be True or False")
        payload = events.to_payload(
            event, now=datetime.now(UTC), policy=self.consent, event_source=self.target.event_source
        )
        if contract is not None:
            _check(payload, contract)
        for withheld in payload.withheld:
            self.log.warning("Opt-in withheld - %s", withheld)
        for note in payload.notes:
            self.log.warning("Note: %s", note)
        if self.dry_run:
            size = len(payload.encoded)
            self.log.info("Dry run: this %s event is valid (%d bytes) and was not sent", payload.call, size)
            return Receipt.of(payload, http_status=None, seconds=0.0, tries=0)
        receipt = self._singles.send(event, payload, guarantee, suppress_named_events=suppress_named_events)
        for note in self._singles.take_notes():
            if note not in payload.notes:
                self.log.warning("Note: %s", note)
        if receipt.http_status is None:
            self.log.info(
                "This %s event was skipped: it was sent before, a newer decision is on record, or the person is "
                "suppressed",
                receipt.call,
            )
        else:
            self.log.info(
                "Regal acknowledged this %s event: HTTP %s after %.3f s, try %d",
                receipt.call, receipt.http_status, receipt.seconds, receipt.tries,
            )  # fmt: skip
        return receipt

    @cached_property
    def _contract(self) -> DataContract | None:
        from airflow_provider_regal.hooks._delivering import read_file

        if self.contract is None:
            return None
        contract = DataContract(self.contract)
        contract.load(read_file)
        return contract

    @cached_property
    def _singles(self) -> SingleEvents:
        from airflow_provider_regal.hooks._delivering import current_context
        from airflow_provider_regal.hooks._single import SingleEvents

        return SingleEvents(
            self.target,
            session=self._session,
            pacer=_pacer_of(self.target),
            context=self.context or current_context(),
            ledger_conn_id=self.ledger_conn_id,
            patience_s=self.outage_patience_s,
        )

    def deliver(
        self,
        rows: Iterable[Mapping[str, Any] | Event],
        *,
        call: str | None = None,
        event: str | None = None,
        name: str | None = None,
        ledger_conn_id: str | None = None,
        **options: Any,
    ) -> DeliveryReport:
        """Deliver many rows, each with an outcome; a retry of the task resumes where the last try stopped.

        Outside a task, every call is a separate delivery.

        .. code-block:: python

            report = RegalHook().deliver(rows, call="track", event="Lesson Booked")

        :param rows: dictionaries (pass ``call``), or events. Read completely before the first is sent.
        :param call: what the dictionaries are: ``identify``, ``track``, ``page`` or ``screen``.
        :param event: the name of the track events, if no column ``event`` holds it.
        :param name: of this delivery; required if a task has more than one.
        :param ledger_conn_id: this and all other options: see
            :class:`~airflow_provider_regal.transfers.sql_to_regal.SqlToRegalOperator`.
        :raises TooManyFailedRowsError: more rows were rejected or are unknown than allowed.
        :raises ResumeError: an earlier try may have sent rows, and it can't be resumed.
        :raises FixConnectionError: the connection or its key is wrong.
        :raises RetryLaterError: an outage; a later try resumes.
        """
        from airflow_provider_regal.hooks._delivering import TaskDelivery, current_context, only_events

        rows = [rows] if isinstance(rows, Mapping) else rows  # one dictionary is one row
        if call is None:
            rows, call = only_events(rows), "track"
        context = current_context()
        options.setdefault("contract", self.contract)
        return TaskDelivery(
            self,
            context=context,
            settings=DeliverySettings.of(call=call, event=event, **options),
            rows=lambda held: rows,
            source=("rows", self.regal_conn_id),
            name=name,
            ledger_conn_id=ledger_conn_id or self.ledger_conn_id,
        ).run()

    def state_before(self, ti: Any, *, name: str | None = None) -> str | None:
        """Return how the last delivery of a task in another run ended, to alert on a change.

        :param ti: a task instance, such as ``context["ti"]`` of a callback.
        :param name: of the delivery, if it has one.
        :returns: ``finished``, ``failed`` (beyond a threshold, or stopped by a guard), ``stopped`` (rows are left) or
            ``planned``; None if no other run has delivered.
        """
        from airflow_provider_regal.hooks._delivering import place_of
        from airflow_provider_regal.hooks._ledger import open_account
        from airflow_provider_regal.ledger.deliveries import Deliveries

        account = open_account(self.target, self.ledger_conn_id, source="")
        with closing(account.database):
            return Deliveries(account).state_before(place_of(ti, name))

    @property
    def dry_run(self) -> bool:
        """Whether the connection or Airflow's configuration prevents sending."""
        return self.target.dry_run or conf.getboolean("regal", "dry_run", fallback=False)

    def test_connection(self) -> tuple[bool, str]:
        """Check the connection's fields, and that its host answers. Never sends an event.

        :returns: whether no fault was found, and a sentence on what was and was not checked.
        """
        from airflow_provider_regal.client.probe import probe

        try:
            return probe(self.target.origin)
        except FixConnectionError as error:
            return False, str(error)


def _check(payload: Payload, contract: DataContract) -> None:
    if faults := contract.faults_of(payload.body):
        raise InvalidEventError(payload.call, faults)
