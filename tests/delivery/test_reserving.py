"""How many rows are reserved ahead."""

from __future__ import annotations

from airflow_provider_regal.delivery.reserving import LOCALLY, Reserving


def test_a_local_folder_reserves_few_and_no_more_than_can_be_under_way():
    reserving = Reserving(1_000, None)
    assert reserving.rows(500, probing=False) == LOCALLY
    assert reserving.rows(7, probing=False) == 7
    assert reserving.most == LOCALLY
    assert not reserving.in_bulk


def test_object_storage_reserves_two_intervals_at_most():
    assert Reserving(100, 2.0).most == 200
    assert Reserving(10, 2.0).most == LOCALLY
    assert Reserving(100_000, 2.0).most == 1_000


def test_an_outage_is_probed_with_one_row():
    assert Reserving(100, 2.0).rows(500, probing=True) == 1


def test_nothing_is_reserved_while_half_of_it_is_left():
    reserving = Reserving(300, 2.0)
    assert reserving.missing(128, 65, now=0.0) == 0
    assert reserving.missing(128, 64, now=0.0) == 64


def used_up_every(seconds, reserving, times=10):
    ahead = 0
    for number in range(times):
        ahead = reserving.rows(500, probing=False)
        reserving.missing(ahead, 0, now=number * seconds)
        reserving.missing(ahead, ahead, now=number * seconds)
    return ahead


def test_rows_that_go_fast_are_reserved_by_the_two_intervals():
    assert used_up_every(0.2, Reserving(300, 2.0)) == 600


def test_rows_that_go_slowly_are_reserved_in_small_numbers_so_that_few_become_unknown():
    assert used_up_every(5.0, Reserving(300, 2.0)) == LOCALLY


def test_what_lasts_for_one_to_two_intervals_stays():
    assert used_up_every(1.5, Reserving(300, 2.0)) == 128


def test_waiting_for_rows_to_reserve_is_no_sign_of_slowness():
    reserving = Reserving(300, 2.0)
    for now in (0.0, 10.0, 20.0):  # asked again and again, and none were there
        reserving.missing(128, 0, now=now)
    assert reserving.rows(500, probing=False) == 128
