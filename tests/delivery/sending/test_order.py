"""Rows of one person never overtake each other."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_regal.delivery.sending.order import Order

people = st.lists(st.lists(st.sampled_from("abcdef"), max_size=4), max_size=40)


@settings(max_examples=200, deadline=None)
@given(rows=people, choices=st.randoms(use_true_random=False))
def test_it_says_what_a_search_through_all_earlier_rows_says(rows, choices):
    order = Order()
    waiting, may_go, settled = [], [], []
    left = list(enumerate(rows))

    def free(position):
        return not any(
            set(rows[position]) & set(rows[earlier]) for earlier in (*waiting, *may_go) if earlier < position
        )

    while left or may_go:
        if left and (not may_go or choices.random() < 0.6):
            position, identifiers = left.pop(0)
            assert order.admit(position, identifiers) == free(position)
            (may_go if free(position) else waiting).append(position)
        else:
            position = may_go.pop(choices.randrange(len(may_go)))
            settled.append(position)
            freed = order.settle(position)
            assert sorted(freed) == [position for position in waiting if free(position)]
            for follower in freed:
                waiting.remove(follower)
            may_go += freed
        for one in may_go:
            assert not any(set(rows[one]) & set(rows[other]) for other in may_go if other != one), "two at once"
        assert len(order) == len(waiting) + len(may_go)

    assert sorted(settled) == list(range(len(rows))), "every row goes in the end"
    for identifier in "abcdef":
        theirs = [position for position in settled if identifier in rows[position]]
        assert theirs == sorted(theirs)


def test_it_keeps_nothing_of_what_has_gone():
    order = Order()
    for position in range(1_000):
        assert order.admit(position, [f"user:{position}", "+12125550100"][: 1 + (position == 0)])
        order.settle(position)
    assert len(order) == 0
    assert order.admit(1_000, ["+12125550100"])
