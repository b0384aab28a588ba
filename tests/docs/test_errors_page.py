"""The page about errors has a section for each class, and messages of tasks link to theirs."""

from __future__ import annotations

import re

import pytest

from airflow_provider_regal import errors
from airflow_provider_regal._compat import AirflowFailException
from airflow_provider_regal.operators.rows import RegalRowsOperator
from tests.docs.blocks import PROJECT
from tests.operators.ways import context

PAGE = (PROJECT / "docs" / "errors.md").read_text()
KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.RegalError)]
CLASSES = {kind.__name__: kind for kind in KINDS}
PUBLIC = {name for name in CLASSES if not name.startswith("_")}
TABLE = dict(re.findall(r"^\| \[`(\w+)`\]\(#\w+\) \| [^|]* \| ([^|]*) \|[^|]*\|$", PAGE, re.MULTILINE))


def test_every_error_has_a_section_and_every_section_an_error():
    assert set(re.findall(r"^## (\w+)$", PAGE, re.MULTILINE)) == PUBLIC


def test_the_table_names_every_error_and_links_to_its_section():
    assert set(TABLE) == PUBLIC - {"RegalError"}
    assert re.findall(r"\[`(\w+)`\]\(#(\w+)\)", PAGE) == [(name, name.lower()) for name in TABLE]


@pytest.mark.parametrize("name", sorted(PUBLIC - {"RegalError"}))
def test_a_task_fails_as_the_table_says_and_names_the_section(name):
    from airflow_provider_regal.operators._failing import failing_for_good

    kind = CLASSES[name]
    error = kind("track", ()) if kind is errors.InvalidEventError else kind("why")
    with pytest.raises(Exception) as raised, failing_for_good():
        raise error
    fails_for_good = isinstance(raised.value, AirflowFailException)
    assert ("without retry" in TABLE[name]) is (fails_for_good and kind is not errors.CheckRegalError)
    if fails_for_good:
        assert str(raised.value).endswith(f"Documentation: docs/errors.md#{name.lower()}")


def test_the_error_line_of_a_task_ends_with_its_section(regal, caplog):
    with pytest.raises(AirflowFailException):
        RegalRowsOperator(task_id="t", rows=[{"phone": "12"}], call="identify").execute(context())
    line = next(one.getMessage() for one in caplog.records if one.name.endswith("_failing"))
    assert line.splitlines()[-1] == "Documentation: docs/errors.md#toomanyfailedrowserror"
