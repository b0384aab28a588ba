"""The compatibility page is generated from actual runs, and `make check` reports any claim beyond them."""

from __future__ import annotations

from scripts import compatibility
from scripts.compatibility import faults, with_result, with_table

RAN = {"package": "0.1.0", "released": "2026-03-14", "works": True, "form_fields": 5, "command": True, "pages": False}
OLD = RAN | {"airflow": "2.11.2", "python": "3.12", "packages": "released"}
NEW = RAN | {"airflow": "3.10.0", "python": "3.11", "packages": "released", "pages": True}
BROKEN = {"airflow": "3.10.0", "python": "3.11", "packages": "newest", "works": False}
CLASSIFIERS = ["Programming Language :: Python :: 3", "Programming Language :: Python :: 3.11"]


def results(*runs):
    kept: list = []
    for run in runs:
        kept = with_result(kept, run)
    return kept


def test_a_line_of_the_table_has_what_ran_with_one_airflow():
    older_python = OLD | {"python": "3.11", "form_fields": 0}
    lines = list(compatibility.table(results(NEW, OLD, BROKEN, older_python)))[2:]
    assert lines == [
        "| 2.11.2 | 2026-03-14 | 3.11, 3.12 | [with the FAB provider](connection.md) | yes | no | not tried |",
        "| 3.10.0 | 2026-03-14 | 3.11 | yes | yes | yes | Airflow itself fails |",
    ]


def test_extras_that_do_not_fit_the_newest_packages_are_named():
    newest = OLD | {"packages": "newest", "unfit": []}
    for unfit, told in (([], "work"), (["s3"], "work, without the extra s3")):
        *_, line = compatibility.table(results(OLD, newest | {"unfit": unfit}))
        assert line.endswith(f"| {told} |")


def test_a_later_run_of_the_same_replaces_the_earlier_one():
    again = NEW | {"form_fields": 4}
    assert results(NEW, OLD, again) == [OLD, again]


def test_the_page_of_other_results_is_a_fault():
    page = with_table(compatibility.PAGE.read_text(), results(NEW))
    assert list(faults(results(NEW), page=page, classifiers=CLASSIFIERS)) == []
    (fault,) = faults(results(NEW, BROKEN), page=page, classifiers=CLASSIFIERS)
    assert "compatibility.md" in fault


def test_a_classifier_for_a_python_that_did_not_run_is_a_fault():
    page = with_table(compatibility.PAGE.read_text(), results(NEW))
    claims = [*CLASSIFIERS, "Programming Language :: Python :: 3.14"]
    (fault,) = faults(results(NEW), page=page, classifiers=claims)
    assert "3.14" in fault
    broken = results(NEW, BROKEN | {"python": "3.14"})
    page = with_table(page, broken)
    assert list(faults(broken, page=page, classifiers=claims)), "a run that failed proves nothing"
    assert list(faults(broken, page=page, classifiers=CLASSIFIERS)) == []
