"""``settle``: rows are marked as found at Regal, and what could not be marked is named."""

from __future__ import annotations

import pytest

from tests.cli.conftest import track_rows
from tests.ledger_file import outcomes

BREAK = {"on": {"from": 1}, "do": {"status": 500}}


@pytest.fixture
def unknown(deliver):
    """Deliver three rows that Regal may have."""
    return deliver(track_rows(100, 101, 102), [BREAK]).delivery


def test_marked_rows_are_in_no_redelivery_and_need_no_look(run, unknown, regal):
    before = len(regal.events(stored=True))
    assert run("settle", unknown, "--rows", "1,3") == (
        0, f"Delivery {unknown}: 2 rows are marked as found at Regal.\n", ""
    )  # fmt: skip
    table = run("outcomes", unknown)[1]
    assert [line.rstrip().endswith("found at Regal") for line in table.splitlines()[1:]] == [True, False, True]
    code, out, _ = run("redeliver", unknown, "--status", "unknown")
    assert code == 0
    assert "read                     1\n" in out
    assert len(regal.events(stored=True)) == before + 1


def test_rows_that_can_not_be_marked_are_named_and_the_others_are_marked(run, unknown, ledger_path):
    run("settle", unknown, "--rows", "2")
    code, out, err = run("settle", unknown, "--rows", "1-2,9")
    assert (code, out) == (1, f"Delivery {unknown}: 1 row is marked as found at Regal.\n")
    assert err == (
        f"error: 2 rows of delivery {unknown} left as before, since not unknown, marked already, or taken by a "
        f"redelivery: 2, 9. List them with: airflow regal outcomes {unknown} --status unknown\n"
    )
    assert [row["found_at"] is not None for row in outcomes(ledger_path, unknown)] == [True, True, False]


def test_all_and_undo(run, unknown, ledger_path):
    assert run("settle", unknown, "--all")[:2] == (0, f"Delivery {unknown}: 3 rows are marked as found at Regal.\n")
    assert run("settle", unknown, "--all") == (
        1,
        f"Delivery {unknown}: 0 rows are marked as found at Regal.\n",
        f"error: Delivery {unknown} has no such row.\n",
    )
    assert run("settle", unknown, "--all", "--undo")[:2] == (
        0, f"Delivery {unknown}: 3 rows are no longer marked as found at Regal.\n"
    )  # fmt: skip
    assert {row["found_at"] for row in outcomes(ledger_path, unknown)} == {None}


def test_a_person_s_timeline_tells_it(run, unknown):
    run("settle", unknown, "--rows", "1")
    assert "; found at Regal on 20" in run("find", "u100")[1]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ((7,), "name the rows with --rows, or take --all"),
        ((7, "--rows", "1", "--all"), "name the rows with --rows, or take --all"),
        ((7, "--rows", "0"), "'0' is not a list of row numbers, such as 3,7-9"),
        ((7, "--rows", "9-3"), "is not a list of row numbers"),
        ((7, "--rows", "1,"), "is not a list of row numbers"),
        ((7, "--rows", "1-200000"), "names more than 100,000 rows"),
    ],
)
def test_what_is_meant_has_to_be_said(run, unknown, capsys, given, told):
    with pytest.raises(SystemExit) as stopped:
        run("settle", *given)
    assert stopped.value.code == 2
    assert told in capsys.readouterr().err


def test_a_delivery_that_is_not_there_is_an_error(run, unknown):
    assert run("settle", 7, "--all") == (
        1, "", "error: There is no delivery 7. List deliveries with: airflow regal deliveries\n"
    )  # fmt: skip
