"""
The states of a turn, and what changes them. Pure.

A turn waits from the moment it is accepted until a turns process adopts it. What a table does not have
changes nothing: the first end counts. The scripts ``accept_turn.lua``, ``adopt.lua``, ``release_turn.lua``,
``expire_turn.lua`` and ``stop.lua`` are held to this table by their tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """How a turn stands. The last four are ends."""

    WAITING = "waiting"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    STOPPED = "stopped"
    NOT_STARTED = "not_started"


class Action(StrEnum):
    """
    What is done to a turn.

    Attributes:
        ADOPT: A turns process begins to write it.
        RELEASE: That process ends before it has stored anything of the reply.
        EXPIRE: No process adopted it in time.
        STOP: A reader stops it.
        COMPLETE: Its process ends it.
        FAIL: Its process, or a worker for one that died, fails it.
    """

    ADOPT = "adopt"
    RELEASE = "release"
    EXPIRE = "expire"
    STOP = "stop"
    COMPLETE = "complete"
    FAIL = "fail"


TRANSITIONS: Final[Mapping[tuple[State, Action], State]] = {
    (State.WAITING, Action.ADOPT): State.RUNNING,
    (State.WAITING, Action.STOP): State.STOPPED,
    (State.WAITING, Action.EXPIRE): State.NOT_STARTED,
    (State.RUNNING, Action.RELEASE): State.WAITING,
    (State.RUNNING, Action.STOP): State.STOPPED,
    (State.RUNNING, Action.COMPLETE): State.COMPLETED,
    (State.RUNNING, Action.FAIL): State.FAILED,
}
"""State and action -> the next state."""

ENDS: Final = frozenset({State.COMPLETED, State.FAILED, State.STOPPED, State.NOT_STARTED})


def after(state: State, action: Action) -> State:
    """Return the state after *action*; the same one where the table has no other."""
    return TRANSITIONS.get((state, action), state)
