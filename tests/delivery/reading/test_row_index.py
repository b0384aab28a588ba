"""What rows have to know about each other: in a temporary file that disappears with the process."""

from __future__ import annotations

import threading
from contextlib import closing
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.delivery.reading.row_index import RowIndex, Told
from tests.events.hostile import many


def test_more_rows_than_are_written_at_once_are_all_there():
    with closing(RowIndex()) as index:
        for number in range(2_500):
            index.add_news(f"k{number % 1_250}")
            index.add_message(f"m{number % 1_250}", number)
            index.add_consent(f"+{number % 1_250}", "sms", f"t{number:04d}", subscribed=number % 2 == 0)
        index.finish()
        assert [index.first_of(f"m{number}") for number in range(1_250)] == list(range(1_250))
        assert all(index.has_news(f"k{number}") for number in range(1_250))
        assert index.newest("+7", "sms") == Told("t1257", False)
        assert (index.newest("+7", "voice"), index.first_of("none"), index.has_news("none")) == (None, None, False)


def test_it_lies_in_a_file_that_is_gone_with_the_process():
    def deleted():
        links = [Path(f"/proc/self/fd/{fd.name}") for fd in Path("/proc/self/fd").iterdir()]
        return sum(str(link.readlink()).endswith("(deleted)") for link in links if link.is_symlink())

    before = deleted()
    with closing(RowIndex()) as index:
        for number in range(50_000):
            index.add_message(f"message-{number:060d}", number)
        index.finish()
        assert deleted() > before, "what does not fit into memory is in a file without a name"
    assert deleted() == before


def test_it_is_read_by_another_thread_than_wrote_it():
    with closing(RowIndex()) as index:
        index.add_news("k")
        index.finish()
        found = []
        thread = threading.Thread(target=lambda: found.append(index.has_news("k")))
        thread.start()
        thread.join()
        assert found == [True]


@many
@given(said=st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xy"), st.sampled_from("123"), st.booleans())))
def test_the_newest_word_holds_in_whatever_order_it_comes_and_of_equal_times_the_opt_out(said):
    index = RowIndex()
    model = {}
    for identifier, channel, at, subscribed in said:
        index.add_consent(identifier, channel, at, subscribed=subscribed)
        key, rank = (identifier, channel), (at, not subscribed)
        model[key] = max(model.get(key, rank), rank)
    index.finish()
    for (identifier, channel), (at, opted_out) in model.items():
        assert index.newest(identifier, channel) == Told(at, not opted_out)
    index.close()
