"""Assets of Regal: their URIs, and the counts that come with their events."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.assets.regal import Data, parse, to_openlineage
from airflow_provider_regal.hooks.regal import RegalHook
from airflow_provider_regal.operators.opt_in import RegalOptInSyncOperator
from airflow_provider_regal.operators.rows import RegalRowsOperator
from tests.operators.ways import context, set_current_context

try:
    from airflow.sdk import Asset
except ImportError:  # Airflow 2.11
    from airflow.datasets import Dataset as Asset

names = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=40)


@given(account=names, event=names)
def test_a_name_survives_its_uri(account, event):
    data = Data(account, is_contacts=False, event=event)
    assert parse(data.uri) == data
    assert data.uri.isascii()


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("regal://regal_default/contacts", "regal://regal_default/contacts"),
        ("regal://regal_default/contacts/", "regal://regal_default/contacts"),
        ("REGAL://Shop/events/Lesson Booked", "regal://Shop/events/Lesson%20Booked"),
    ],
)
def test_airflow_asks_us_how_a_uri_is_written(written, stored):
    assert Asset(written).uri == stored


@pytest.mark.parametrize(
    "uri",
    [
        "regal://regal_default",
        "regal:///contacts",
        "regal://regal_default/people",
        "regal://regal_default/events",
        "regal://regal_default/events/a/b",
        "regal://regal_default/contacts/17",
        "regal://regal_default/contacts?phone=1",
    ],
)
def test_a_uri_that_means_nothing_is_refused_when_the_dag_is_written(uri):
    said = "regal://ACCOUNT/contacts"
    only_warns = Asset.__name__ == "Dataset"  # Airflow 2.11
    with pytest.warns(UserWarning, match=said) if only_warns else pytest.raises(ValueError, match=said):
        Asset(uri)


def test_openlineage_names_it_alike():
    pytest.importorskip("openlineage.client")
    dataset = to_openlineage(Asset("regal://Shop/events/Lesson Booked"))
    assert (dataset.namespace, dataset.name) == ("regal://Shop", "events/Lesson%20Booked")


class OutletEvents(dict):
    """As Airflow's: makes an event for each asset it is asked for."""

    def __missing__(self, asset):
        self[asset] = SimpleNamespace(extra={})
        return self[asset]


def told(*uris, task=None):
    """A context of a task with these outlets, and how to read what it tells of them."""
    here = context()
    here["task"] = SimpleNamespace(retries=0, outlets=[Asset(uri) for uri in uris])
    here["outlet_events"] = OutletEvents()
    return here, lambda: {asset.uri: event.extra for asset, event in here["outlet_events"].items()}


def test_the_event_of_an_outlet_has_the_counts(regal):
    here, events = told("regal://regal_default/contacts", "s3://bucket/other")
    rows = [{"phone": "+12125550101"}, {"phone": "+12125550102"}, {"phone": "no"}]
    RegalRowsOperator(task_id="t", rows=rows, call="identify", max_rejected=1).execute(here)
    assert events() == {
        "regal://regal_default/contacts": {
            "deliveries": [1], "read": 3, "acknowledged": 2, "rejected": 1, "unknown": 0, "skipped": 0,
        }
    }  # fmt: skip


def test_the_deliveries_of_a_task_are_added_up(regal):
    here, events = told("regal://regal_default/events/Late")
    with set_current_context(here):
        RegalHook().deliver([{"user_id": "u"}], call="track", event="Late", name="first")
        RegalHook().deliver([{"user_id": "v"}] * 2, call="track", event="Late", name="second")
    (counts,) = events().values()
    assert (counts["deliveries"], counts["acknowledged"]) == ([1, 2], 3)


@pytest.mark.parametrize(
    ("options", "uri"),
    [
        ({"call": "page"}, "regal://regal_default/events/pageview"),
        ({"call": "screen"}, "regal://regal_default/events/screen"),
        ({"call": "track"}, "regal://regal_default/events/Late"),
    ],
)
def test_each_call_sends_what_regal_calls_it(regal, options, uri):
    here, events = told(uri)
    RegalRowsOperator(task_id="t", rows=[{"user_id": "u", "event": "Late"}], **options).execute(here)
    assert events()[uri]["acknowledged"] == 1


def test_a_sync_of_opt_ins_changes_contacts(regal):
    here, events = told("regal://regal_default/contacts")
    rows = [{"phone": "+12125550101", "channel": "sms", "subscribed": False}]
    RegalOptInSyncOperator(task_id="t", rows=rows, initial="send").execute(here)
    assert events()["regal://regal_default/contacts"]["acknowledged"] == 1


@pytest.mark.parametrize("uri", ["regal://another/events/Late", "regal://regal_default/events/Early"])
def test_an_outlet_the_task_does_not_send_is_warned_about(regal, caplog, uri):
    here, events = told(uri)
    caplog.set_level(logging.WARNING)
    RegalRowsOperator(task_id="t", rows=[{"user_id": "u"}], call="track", event="Late").execute(here)
    assert events() == {}
    assert "does not send" in caplog.text
    assert "regal://regal_default/events/Late" in caplog.text


def test_a_dry_run_counts_nothing(regal):
    here, events = told("regal://regal_default/contacts")
    RegalRowsOperator(task_id="t", rows=[{"user_id": "u"}], call="identify", dry_run=True).execute(here)
    assert events() == {}
