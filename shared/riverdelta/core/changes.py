"""What the fold wants written: the data types between the fold and `broker.store.save`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from riverdelta.core.safe_failures import HiddenFailure
from riverdelta.core.state import ChunkState, Entry, MessageState, Recent


class RejectedEntry(NamedTuple):
    """An entry that could not be used, and why."""

    entry: Entry
    code: str
    detail: str


@dataclass(slots=True)
class ChunkChange:
    """Changes of a chunk in one batch. *texts* were added (after the reset, if *reset*)."""

    chunk: ChunkState
    fresh: bool = False
    reset: bool = False
    texts: list[str] = field(default_factory=list)
    outputs: list[dict[str, Any]] = field(default_factory=list)


class CardEnd(NamedTuple):
    """The finished card of a closed chunk, completed by a tool result."""

    message_id: str
    chunk_index: int
    processor: str
    output: dict[str, Any]


class OwedCall(NamedTuple):
    """
    A call of an observer that is due because a message ended.

    Attributes:
        message_id, observer: The message, and the observer's name.
        end: The event that ended the message, as JSON.
        tries: Calls begun, this one included.
        error: Why the last call failed; "" when none did.
    """

    message_id: str
    observer: str
    end: bytes
    tries: int = 1
    error: str = ""


@dataclass(slots=True)
class Changes:
    """Everything that a batch writes, in one atomic step."""

    first_seq: int
    events: list[bytes] = field(default_factory=list)
    messages: dict[str, MessageState] = field(default_factory=dict)
    chunks: dict[str, ChunkChange] = field(default_factory=dict)
    card_ends: list[CardEnd] = field(default_factory=list)
    rejected: list[RejectedEntry] = field(default_factory=list)
    dropped: dict[str, Recent] = field(default_factory=dict)
    adopted: set[str] = field(default_factory=set)
    """Messages whose producer or source changed."""
    owed: list[OwedCall] = field(default_factory=list)
    hidden: list[HiddenFailure] = field(default_factory=list)
    """For the log; it is not written to Redis."""
