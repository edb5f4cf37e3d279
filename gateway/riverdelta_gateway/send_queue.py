"""One socket's send queue: responses, events, and runs of deltas that merge while they wait. Pure."""

from __future__ import annotations

from collections import deque
from typing import Final, Generic, TypeVar

from riverdelta.core.events import Event
from riverdelta_gateway.frames import event_response, merged_delta

Owner = TypeVar("Owner")

_ENTRY_BYTES: Final = 256
"""Memory of an entry beside its text: measured, about this much."""


class Delivery:
    """
    One event on its way to many sockets: encoded once, shared by all.

    Attributes:
        event: The event.
        frame: The response that delivers it, framed.
    """

    __slots__ = ("event", "frame")

    def __init__(self, event: Event) -> None:
        self.event = event
        self.frame = event_response(event.type, event.raw, event.position)


class _Entry(Generic[Owner]):
    """One queued frame. *owner*: the subscription that it belongs to, or None."""

    __slots__ = ("_frame", "owner", "size")

    def __init__(self, owner: Owner | None, frame: bytes, size: int) -> None:
        self.owner = owner
        self.size = size
        self._frame = frame

    def frame(self) -> bytes:
        """Return the frame."""
        return self._frame


class _Run(_Entry[Owner]):
    """Consecutive deltas of one chunk. Their text is kept as UTF-8, which grows in place."""

    __slots__ = ("_first", "_last", "_text")

    def __init__(self, owner: Owner, delivery: Delivery) -> None:
        super().__init__(owner, delivery.frame, _ENTRY_BYTES + len(delivery.frame))
        self._first = self._last = delivery.event
        self._text: bytearray | None = None

    def takes(self, event: Event) -> bool:
        """Whether *event* follows directly on this run."""
        last = self._last
        return (
            event.chunk == last.chunk
            and event.type == "chunk.delta"
            and event.epoch == last.epoch
            and event.seq == last.seq + 1
        )

    def add(self, event: Event) -> int:
        """Add the next delta; return the bytes by which this grew."""
        if self._text is None:
            self._text = bytearray(self._first.data["text"].encode())
        text = event.data["text"].encode()
        self._text += text
        self._last = event
        self.size += len(text)
        return len(text)

    def frame(self) -> bytes:
        """Return the frame: of the one delta, or of all, merged."""
        if self._text is None:
            return self._frame
        raw = merged_delta(self._first, self._last, self._text.decode())
        return event_response("chunk.delta", raw, self._last.position)


class SendQueue(Generic[Owner]):
    """
    A queue of frames with its size in bytes.

    Attributes:
        size: Bytes that count against the limit. A snapshot does not: there is one at most, because
            catch-ups of a socket take turns and wait until it is drained.
    """

    def __init__(self) -> None:
        self.size = 0
        self._entries: deque[_Entry[Owner]] = deque()
        self._tails: dict[Owner, _Run[Owner]] = {}
        self._counts: dict[Owner, int] = {}

    def __len__(self) -> int:
        """Count the queued frames."""
        return len(self._entries)

    def add_frame(self, frame: bytes) -> None:
        """Queue a response."""
        self._append(_Entry[Owner](None, frame, _ENTRY_BYTES + len(frame)))

    def add_event(self, owner: Owner, delivery: Delivery) -> None:
        """Queue an event of *owner*, or merge it with that owner's last one."""
        event = delivery.event
        tail = self._tails.get(owner)
        if tail is not None and tail.takes(event):
            self.size += tail.add(event)
            return
        if event.type == "chunk.delta":
            run = self._tails[owner] = _Run(owner, delivery)
            self._append(run)
            return
        self._tails.pop(owner, None)
        size = 0 if event.type == "snapshot" else _ENTRY_BYTES + len(delivery.frame)
        self._append(_Entry(owner, delivery.frame, size))

    def pop(self) -> tuple[bytes, Owner | None]:
        """Take the first frame; and its owner, if no other frame of that owner is queued."""
        entry = self._entries.popleft()
        self.size -= entry.size
        owner = entry.owner
        if owner is None:
            return entry.frame(), None
        if self._tails.get(owner) is entry:
            del self._tails[owner]
        self._counts[owner] -= 1
        if self._counts[owner]:
            return entry.frame(), None
        del self._counts[owner]
        return entry.frame(), owner

    def holds(self, owner: Owner) -> bool:
        """Whether a frame of *owner* is queued."""
        return owner in self._counts

    def owners(self) -> list[Owner]:
        """List the owners of queued frames."""
        return list(self._counts)

    def drop(self, owner: Owner) -> None:
        """Drop all frames of *owner*."""
        if self._counts.pop(owner, None) is None:
            return
        self._tails.pop(owner, None)
        kept = [entry for entry in self._entries if entry.owner is not owner]
        self._entries = deque(kept)
        self.size = sum(entry.size for entry in kept)

    def _append(self, entry: _Entry[Owner]) -> None:
        self._entries.append(entry)
        self.size += entry.size
        if entry.owner is not None:
            self._counts[entry.owner] = self._counts.get(entry.owner, 0) + 1
