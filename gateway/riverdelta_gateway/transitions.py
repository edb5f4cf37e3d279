"""
The states of one subscription of one socket, and everything that moves it from one to another.

Rule 1: nothing changes a subscription's state but `TRANSITIONS`. What is not in it cannot happen: a
`KeyError` is a bug.

========  ======================================================================================
STARTING  a catch-up reads what the client lacks: a snapshot, or the log behind its position; the
          feed's events pass by, the catch-up will find them in the log
LIVE      the feed's events go out as they come
LAGGING   the socket takes nothing: events queue, neighbouring deltas of a chunk merge
DUE       too much waited: the queue was dropped, and a snapshot is due when the socket drains
CLOSED    nothing goes out any more
========  ======================================================================================
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """Where a subscription stands; see the module."""

    STARTING = "starting"
    LIVE = "live"
    LAGGING = "lagging"
    DUE = "due"
    CLOSED = "closed"


class Input(Enum):
    """What happens to a subscription."""

    CAUGHT_UP = "caught up"
    """Its catch-up has reached what the feed has sent."""
    QUEUED = "queued"
    """An event of the feed could not go out at once."""
    EMPTIED = "emptied"
    """Nothing of it is queued any more."""
    GAP = "gap"
    """The feed's next event does not follow: read what is between."""
    OVERFLOW = "overflow"
    """More waits for the socket than may; what was queued of it is gone."""
    DRAINED = "drained"
    """The socket takes bytes again, and nothing is queued."""
    CLOSE = "close"
    """Unsubscribed, replaced by another one of the same chat, or the socket is gone."""


TRANSITIONS: Final[dict[tuple[State, Input], State]] = {
    (State.STARTING, Input.CAUGHT_UP): State.LIVE,
    (State.STARTING, Input.QUEUED): State.STARTING,
    (State.STARTING, Input.EMPTIED): State.STARTING,
    (State.STARTING, Input.OVERFLOW): State.DUE,
    (State.STARTING, Input.CLOSE): State.CLOSED,
    (State.LIVE, Input.QUEUED): State.LAGGING,
    (State.LIVE, Input.GAP): State.STARTING,
    (State.LIVE, Input.CLOSE): State.CLOSED,
    (State.LAGGING, Input.QUEUED): State.LAGGING,
    (State.LAGGING, Input.EMPTIED): State.LIVE,
    (State.LAGGING, Input.GAP): State.STARTING,
    (State.LAGGING, Input.OVERFLOW): State.DUE,
    (State.LAGGING, Input.CLOSE): State.CLOSED,
    (State.DUE, Input.DRAINED): State.STARTING,
    (State.DUE, Input.CLOSE): State.CLOSED,
}
