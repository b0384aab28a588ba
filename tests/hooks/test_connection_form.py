"""The connection form: the same fields on Airflow 2.11 and 3.x."""

from __future__ import annotations

import json

import pytest
from airflow import __version__ as airflow_version

from airflow_provider_regal import connection_form, defaults
from airflow_provider_regal.client.target import target_of
from airflow_provider_regal.get_provider_info import get_provider_info
from airflow_provider_regal.hooks.regal import RegalHook

ON_2 = airflow_version.startswith("2.")
FIELDS = ["rate_limit", "timeout", "event_source", "account", "dry_run"]


def connection_type():
    (entry,) = get_provider_info()["connection-types"]
    return entry


def test_the_metadata_has_a_field_for_everything_the_extra_can_hold():
    assert list(connection_type()["conn-fields"]) == FIELDS
    assert list(connection_form.CONN_FIELDS) == FIELDS


def test_the_defaults_shown_are_the_defaults_applied():
    shown = {name: field["schema"]["default"] for name, field in connection_type()["conn-fields"].items()}
    applied = target_of("c", host=None, port=None, password="k", extra={})
    assert shown == {
        "rate_limit": applied.rate_limit,
        "timeout": applied.timeout_s,
        "event_source": applied.event_source,
        "account": "",
        "dry_run": applied.dry_run,
    }
    assert applied == target_of("c", host=None, port=None, password="k", extra=shown)
    assert connection_form.PLACEHOLDERS["host"] == defaults.HOST == applied.origin


def test_an_emptied_field_means_its_default():
    emptied = dict.fromkeys(FIELDS)
    assert target_of("c", host=None, port=None, password="k", extra=emptied) == target_of(
        "c", host=None, port=None, password="k", extra={}
    )
    for field in connection_type()["conn-fields"].values():
        assert "null" in field["schema"]["type"]


def test_label_and_description_are_there_for_every_field():
    for field in connection_type()["conn-fields"].values():
        assert field["label"]
        assert field["description"].endswith(".")


def test_both_airflows_hide_and_name_the_same_standard_fields():
    metadata, classmethod_ = connection_type()["ui-field-behaviour"], RegalHook.get_ui_field_behaviour()
    assert {key.replace("-", "_"): value for key, value in metadata.items()} == classmethod_
    assert classmethod_["relabeling"]["password"] == "API key"


def test_the_hook_is_the_one_the_metadata_names():
    entry = connection_type()
    assert entry["hook-class-name"] == f"{RegalHook.__module__}.{RegalHook.__name__}"
    assert (entry["connection-type"], entry["hook-name"]) == (RegalHook.conn_type, RegalHook.hook_name)
    assert (RegalHook.conn_name_attr, RegalHook.default_conn_name) == ("regal_conn_id", "regal_default")


@pytest.mark.filterwarnings("ignore")  # Airflow 3 prefers another name, which 2.11 lacks
def test_airflow_knows_the_connection_type():
    from airflow.providers_manager import ProvidersManager

    hook = ProvidersManager().hooks["regal"]
    assert hook is not None
    assert (hook.hook_name, hook.connection_id_attribute_name) == ("Regal", "regal_conn_id")


@pytest.mark.skipif(not ON_2, reason="Airflow 3 draws the form from the metadata, without wtforms")
class TestOn2:
    def form(self, **typed):
        from werkzeug.datastructures import MultiDict
        from wtforms import Form

        form_class = type("ConnectionForm", (Form,), RegalHook.get_connection_form_widgets())
        return form_class(MultiDict(typed))

    def test_the_widgets_are_the_fields_of_the_metadata(self):
        fields = connection_type()["conn-fields"]
        form = type(self.form())()  # as it is shown at first
        assert list(RegalHook.get_connection_form_widgets()) == FIELDS
        for name in FIELDS:
            assert str(form[name].label.text) == fields[name]["label"]
            assert form[name].description == fields[name]["description"]
            assert form[name].data == fields[name]["schema"]["default"]

    def test_airflow_takes_the_widgets_and_the_behaviour(self):
        from airflow.providers_manager import ProvidersManager

        manager = ProvidersManager()
        shown = [key for key in manager.connection_form_widgets if key.startswith("extra__regal__")]
        assert shown == [f"extra__regal__{name}" for name in FIELDS]
        behaviour = manager.field_behaviours["regal"]
        assert behaviour["relabeling"]["password"] == "API key"
        assert set(behaviour["hidden_fields"]) >= {"login", "schema", "port", "extra"}

    def test_what_is_typed_can_be_kept_as_json_and_read_back(self):
        form = self.form(rate_limit="50", timeout="2.5", event_source="crm", dry_run="y")
        assert form.validate()
        extra = json.loads(json.dumps(form.data))
        target = target_of("c", host=None, port=None, password="k", extra=extra)
        assert (target.rate_limit, target.timeout_s, target.event_source, target.dry_run) == (50, 2.5, "crm", True)

    def test_emptied_fields_are_accepted(self):
        form = self.form(rate_limit="", timeout="", event_source="")
        assert form.validate()
        target = target_of("c", host=None, port=None, password="k", extra=json.loads(json.dumps(form.data)))
        assert (target.rate_limit, target.timeout_s, target.dry_run) == (100, 30, False)

    @pytest.mark.parametrize(
        "typed",
        [{"rate_limit": "0"}, {"rate_limit": "fast"}, {"timeout": "-1"}, {"timeout": "0.0"}, {"timeout": "5 s"}],
    )
    def test_what_cannot_be_right_is_refused_in_the_form(self, typed):
        assert not self.form(**typed).validate()


@pytest.mark.skipif(ON_2, reason="Airflow 2 asks the hook for widgets")
def test_airflow_3_reads_the_form_without_importing_the_hook():
    from airflow.providers_manager import ProvidersManager

    manager = ProvidersManager()
    shown = [key for key in manager.connection_form_widgets if key.startswith("extra__regal__")]
    assert shown == [f"extra__regal__{name}" for name in FIELDS]
    behaviour = manager.field_behaviours["regal"]
    assert behaviour["relabeling"]["password"] == "API key"


@pytest.mark.skipif(ON_2, reason="Airflow 2 has wtforms")
def test_without_the_libraries_that_draw_forms_there_are_no_fields_and_no_error():
    assert RegalHook.get_connection_form_widgets() == {}
