"""
The states of one subscription of one socket, and the inputs that change them.

Rule 1: only `TRANSITIONS` changes a subscription's state. An input that it does not list for a state
cannot happen there: a `KeyError` is a bug.

========  ======================================================================================
STARTING  a catch-up reads what the client lacks: a snapshot, or the log behind its position; live
          events are skipped, because the catch-up finds them in the log
LIVE      live events are sent as they come
LAGGING   the socket takes nothing: events queue, neighbouring deltas of a chunk merge
DUE       the send queue grew too long and was dropped; a snapshot is due when the socket drains
CLOSED    nothing is sent
========  ======================================================================================
"""

from __future__ import annotations

from enum import Enum
from typing import Final


class State(Enum):
    """State of a subscription; see the module."""

    STARTING = "starting"
    LIVE = "live"
    LAGGING = "lagging"
    DUE = "due"
    CLOSED = "closed"


class Input(Enum):
    """What happens to a subscription."""

    CAUGHT_UP = "caught up"
    """Its catch-up has reached the last live event."""
    QUEUED = "queued"
    """A live event could not be sent at once."""
    EMPTIED = "emptied"
    """Its last queued frame was sent."""
    GAP = "gap"
    """The next live event does not follow the last one: read the log between them."""
    OVERFLOW = "overflow"
    """The send queue is over its limit; the subscription's frames were dropped."""
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
