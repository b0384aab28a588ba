"""States of rows: one byte each, and what they mean."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_regal.ledger.states import OUTCOMES, Outcome, RowState, RowStates, Skip

NOT_SETTLED = {RowState.OPEN, RowState.RESERVED, RowState.AMBIGUOUS}


def test_every_outcome_and_every_reason_to_skip_has_a_state_of_its_own():
    whats = [Outcome.ACKNOWLEDGED, Outcome.REJECTED, Outcome.UNKNOWN, *Skip]
    states = [RowState.of(what) for what in whats]
    assert len(set(states)) == len(whats)
    assert {*states} == {*RowState} - NOT_SETTLED
    assert [OUTCOMES[state] for state in states[:3]] == whats[:3]
    assert {OUTCOMES[state] for state in states[3:]} == {Outcome.SKIPPED}


def test_what_is_on_record_never_changes_its_meaning():
    """They are stored: a number must not come to mean something else."""
    assert [state.name for state in sorted(RowState)] == [
        "OPEN", "RESERVED", "ACKNOWLEDGED", "REJECTED", "UNKNOWN", "SKIPPED_UNCHANGED", "SKIPPED_DUPLICATE",
        "SKIPPED_OLDER", "SKIPPED_NOT_INCLUDED", "SKIPPED_DRY_RUN", "SKIPPED_REDELIVERED", "SKIPPED_RECORDED",
        "SKIPPED_SUPPRESSED", "AMBIGUOUS", "SKIPPED_NO_DECISION",
    ]  # fmt: skip
    assert [*map(int, sorted(RowState))] == list(range(15))


@given(
    start=st.lists(st.sampled_from(RowState), max_size=20),
    changes=st.lists(st.tuples(st.integers(0, 19), st.sampled_from(RowState)), max_size=20),
)
def test_states_are_counted_and_changes_noted(start, changes):
    states, model, changed = RowStates(bytes(start)), list(start), set()
    for position, state in changes:
        if position < len(start):
            if model[position] != state:
                changed.add(position)
            model[position] = state
            states[position] = state
    assert [states[position] for position in range(len(states))] == model
    assert states.changed == changed
    assert states.between(2, 5) == bytes(model[2:5])
    for state in RowState:
        assert states.count(state) == model.count(state)
        assert states.positions(state) == [position for position, one in enumerate(model) if one == state]
    assert [states.is_settled(position) for position in range(len(model))] == [
        state not in NOT_SETTLED for state in model
    ]
    arrived = (RowState.RESERVED, RowState.ACKNOWLEDGED, RowState.UNKNOWN)
    assert states.may_have_arrived == any(state in arrived for state in model)
