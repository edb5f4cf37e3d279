"""The table of a turn's states: every pair of a state and an action."""

import itertools

import pytest

from riverdelta_gateway.turns.states import ENDS, TRANSITIONS, Action, State, after

CHANGES = {
    ("waiting", "adopt"): "running",
    ("waiting", "stop"): "stopped",
    ("waiting", "expire"): "not_started",
    ("running", "release"): "waiting",
    ("running", "stop"): "stopped",
    ("running", "complete"): "completed",
    ("running", "fail"): "failed",
}


@pytest.mark.parametrize(("state", "action"), list(itertools.product(State, Action)))
def test_every_pair(state: State, action: Action) -> None:
    assert after(state, action) == CHANGES.get((state, action), state)


def test_ends_have_no_way_out_and_every_state_is_reached() -> None:
    assert {state for state, _ in TRANSITIONS} == set(State) - ENDS
    assert set(TRANSITIONS.values()) == set(State)


def test_whatever_happens_a_turn_ends_once() -> None:
    for actions in itertools.product(Action, repeat=4):
        states = [State.WAITING]
        for action in actions:
            states.append(after(states[-1], action))
        ends = [state for state in states if state in ENDS]
        assert len(set(ends)) <= 1
