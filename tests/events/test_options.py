"""Invalid options are reported when they are written."""

from __future__ import annotations

import pytest

from airflow_provider_regal.events import Reading
from airflow_provider_regal.events.options import RowMapping, decision_values


def test_decisions_are_found_whatever_their_case_and_type():
    assert decision_values({"Yes ": True, 9: False, "n/a": None}) == {"yes": True, "9": False, "n/a": None}
    assert decision_values(None) is None


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"Yes": "true"}, r"values\['Yes'\] must be True, False"),
        ({"Yes": 1}, r"values\['Yes'\] must be True, False"),
        ({"no": True}, r"values\['no'\] is a no"),
        ({0: None}, r"values\[0\] is a no"),
        ({"STOP": True}, r"values\['STOP'\] is a no"),
        ({"Yes": True, "yes ": False}, "given twice"),
        (["Yes"], "must be a dictionary"),
    ],
)
def test_values_that_cannot_be_right_are_refused(values, complaint):
    with pytest.raises(ValueError, match=complaint):
        decision_values(values)


@pytest.mark.parametrize("option", ["on_invalid_phone", "on_invalid_email"])
def test_what_becomes_of_an_invalid_phone_is_one_of_two(option):
    with pytest.raises(ValueError, match=f"{option} must be 'reject' or 'drop'"):
        Reading(**{option: "ignore"})


def test_types_are_types_or_json():
    RowMapping("identify", types={"x": "json"})
    with pytest.raises(ValueError, match="without quotes"):
        RowMapping("identify", types={"x": "int"})
