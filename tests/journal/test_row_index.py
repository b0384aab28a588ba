"""What rows have to know of each other is on disk, for its owner only, and counts once it is complete."""

from __future__ import annotations

import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.journal.row_index import RowIndex, Told
from tests.events.hostile import many


@pytest.fixture
def path(tmp_path):
    return tmp_path / "index.db"


def test_it_counts_only_once_it_is_finished(path):
    index = RowIndex.new(path)
    index.add_key("k")
    index.close()
    assert RowIndex.of(path) is None
    index = RowIndex.new(path)
    index.add_key("k")
    index.finish()
    assert index.counted(["k"]) == {"k": (1, False)}
    index.close()
    again = RowIndex.of(path)
    assert again.counted(["k", "other"]) == {"k": (1, False)}
    again.close()


def test_a_new_one_forgets_the_one_before(path):
    for _ in range(2):
        index = RowIndex.new(path)
        index.add_key("k")
        index.finish()
        assert index.counted(["k"]) == {"k": (1, False)}
        index.close()


def test_it_is_for_its_owner_only(path):
    index = RowIndex.new(path)
    index.finish()
    index.close()
    assert [stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()] == [0o600]


def test_more_rows_than_are_written_at_once_are_all_there(path):
    index = RowIndex.new(path)
    for number in range(2_500):
        index.add_key(f"k{number % 1_250}")
        index.add_message(f"m{number % 1_250}", number)
        index.add_consent(f"+{number % 1_250}", "sms", f"t{number:04d}", subscribed=number % 2 == 0)
    index.finish()
    for some in (range(625), range(625, 1_250)):
        assert index.counted([f"k{number}" for number in some]) == {f"k{number}": (2, False) for number in some}
    assert [index.first_of(f"m{number}") for number in range(1_250)] == list(range(1_250))
    assert index.newest("+7", "sms") == Told("t1257", False)
    assert (index.newest("+7", "voice"), index.first_of("none")) == (None, None)
    index.close()


@many
@given(said=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("123"), st.booleans())))
def test_the_newest_word_holds_in_whatever_order_it_comes_and_of_equal_times_the_opt_out(said, tmp_path_factory):
    index = RowIndex.new(tmp_path_factory.mktemp("index") / "index.db")
    model = {}
    for identifier, channel, at, subscribed in said:
        index.add_consent(identifier, channel, at, subscribed=subscribed)
        key, rank = (identifier, channel), (at, not subscribed)
        model[key] = max(model.get(key, rank), rank)
    index.finish()
    for (identifier, channel), (at, opted_out) in model.items():
        assert index.newest(identifier, channel) == Told(at, not opted_out)
    index.close()
