"""Which rows are known to be unchanged, whatever other hashes exist, and however often."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.delivery.sync.known_rows import KNOWN_BY, KnownRows

# Few prefixes and suffixes, so that keys often share them and sort side by side.
hashes = st.tuples(st.sampled_from("0f7"), st.sampled_from("0f"), st.sampled_from("01ef")).map(
    lambda told: told[0] + told[1] * (KNOWN_BY - 2) + told[2]
)


@given(known=st.lists(hashes, max_size=40), in_row=st.dictionaries(hashes, st.integers(2, 4)), asked=st.lists(hashes))
def test_a_row_is_known_if_the_ledger_has_all_its_consents_and_no_more(known, in_row, asked):
    """:param in_row: how many consents a row has, where not one."""
    rows = KnownRows(f"{one}{in_row.get(one, 1):x}" for one in known)
    there = Counter(known)
    expected = [there[one] if there[one] == in_row.get(one, 1) else 0 for one in asked]
    assert rows.see([f"{one}{'c' * (32 - KNOWN_BY)}" for one in asked]) == expected
    seen = {one for one, count in zip(asked, expected, strict=True) if count}
    assert rows.seen == sum(there[one] for one in seen)
    assert sorted(rows.unseen()) == sorted(one for one in known if one not in seen)


def test_it_takes_nine_bytes_a_hash():
    few, many = (KnownRows(f"{number:015x}1" for number in range(count)) for count in (0, 1_000))
    assert sum(sizes(many)) - sum(sizes(few)) == 9 * 1_000


def sizes(rows):
    return len(rows._values) * rows._values.itemsize, len(rows._seen)
