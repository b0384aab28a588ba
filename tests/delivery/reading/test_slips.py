"""Slips in the names of columns, before anything is sent."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_regal.errors import FixSourceError

ROWS = [{"user_id": "u1"}, {"user_id": "u2", "phone": "+12125550100", "plan": "gold"}]


def test_a_name_that_one_row_has_is_no_slip(deliver, regal_sandbox):
    report = deliver(ROWS, call="identify", mapping={"plan": "traits.tariff"}, types={"plan": str})
    assert (report.acknowledged, report.rejected) == (2, 0)
    assert regal_sandbox.contact(user_id="u2")["traits"] == {"tariff": "gold"}


@pytest.mark.parametrize("option", [{"mapping": {"plann": None}}, {"types": {"plann": str}}])
def test_a_name_that_no_row_has_stops_the_delivery_before_it_sends(deliver, regal_sandbox, option):
    with pytest.raises(FixSourceError, match=r"names 'plann', and no row of the source has such a column"):
        deliver(ROWS, call="identify", **option)
    assert regal_sandbox.stats()["requests"] == 0


def test_a_slip_holds_no_opt_out_back(deliver, regal_sandbox):
    row = {"user_id": "u1", "phone": "+12125550100", "sms_opt_in": False, "plan": "gold"}
    with pytest.raises(FixSourceError, match=r"'plann'.* Only opt-outs were sent \(1\)"):
        deliver([row], call="identify", mapping={"plann": None})
    assert regal_sandbox.contact(phone="+12125550100")["phones"]["+12125550100"]["sms"]["status"] == "Unsubscribed"
    assert regal_sandbox.stats()["requests"] == 1


def test_where_only_the_first_rows_are_read_a_missing_name_is_a_warning(deliver, caplog):
    assert deliver(ROWS, call="identify", types={"plan": str}, limit=1).acknowledged == 1
    assert "types names 'plan', and no row" in caplog.text


def test_without_rows_there_is_no_slip(deliver):
    assert deliver([], call="identify", types={"plan": str}).status == "finished"


def test_a_column_that_is_nearly_a_reserved_name_is_warned_about_once(deliver, caplog):
    rows = [{"user_id": f"u{n}", "sms_optin": True} for n in range(3)]
    with caplog.at_level(logging.WARNING):
        deliver(rows, call="identify")
    (warning,) = [record.getMessage() for record in caplog.records if "looks like" in record.getMessage()]
    assert "The column sms_optin has no meaning of its own, but looks like sms_opt_in" in warning


def test_a_column_that_mapping_places_is_not_warned_about(deliver, caplog):
    deliver([{"user_id": "u", "sms_optin": True}], call="identify", mapping={"sms_optin": "traits.sms_optin"})
    assert "looks like" not in caplog.text


def test_a_sync_looks_for_slips_too(sync, regal_sandbox, caplog):
    row = {"tel": "+12125550100", "channel": "sms", "subscribed": False, "Source": "web"}
    with pytest.raises(FixSourceError, match="mapping names 'fone', and no row"):
        sync([row], sync={"columns": {"tel": "phone", "fone": "phone"}})
    assert "looks like source" in caplog.text
    assert regal_sandbox.stats()["requests"] == 1  # no mistake holds back an opt-out


def test_of_endless_near_misses_the_first_are_warned_about(deliver, caplog):
    rows = [{"user_id": "u1", **{f"emai{letter}": 1 for letter in "abcdefghijkmnopqrstuvwxyz"}}]
    assert deliver(rows, call="identify").acknowledged == 1
    assert caplog.text.count("has no meaning of its own, but looks like email") == 20
