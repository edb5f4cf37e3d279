"""
Keep the entries that a producer pushed last, to send again what a server has lost.

Bounded for the whole process: past the bound, the oldest entries of all messages are dropped first. A
server that lost data lost the newest entries.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from riverdelta.core.outgoing import NewEntry

_ENTRY_BYTES: Final = 160
"""Memory of an entry beside its data; without it many small entries would not count."""


class Resends:
    """
    The store of one producer process.

    Args:
        max_bytes: Bound of everything kept. 0: nothing is kept.

    Attributes:
        bytes: What is kept now.
    """

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0
        self._max_bytes = max_bytes
        self._order: deque[Kept] = deque()
        self._released = 0

    def for_message(self) -> Kept:
        """Make the buffer of a new message."""
        return Kept(self)

    def added(self, kept: Kept, entry: NewEntry) -> None:
        """Count the newest entry of *kept*, and drop the oldest entries while the bound is exceeded."""
        self._order.append(kept)
        self.bytes += _size(entry)
        while self.bytes > self._max_bytes:
            oldest = self._order.popleft()
            if oldest.is_released:
                self._released -= 1
            else:
                self.bytes -= _size(oldest.drop_first())

    def released(self, entries: Iterable[NewEntry]) -> None:
        """Stop counting the entries that a message has dropped."""
        for entry in entries:
            self.bytes -= _size(entry)
            self._released += 1
        # Removed together once they are the half: that costs little per entry.
        if 2 * self._released > len(self._order):
            self._order = deque(kept for kept in self._order if not kept.is_released)
            self._released = 0


class Kept:
    """
    The last stored entries of one message, without a hole. Its start (message_seq 1) is not kept.

    Attributes:
        is_released: It keeps nothing any more, for good.
    """

    def __init__(self, resends: Resends) -> None:
        self.is_released = False
        self._resends = resends
        self._first = 2
        self._entries: deque[NewEntry] = deque()

    def __len__(self) -> int:
        """How many entries are kept."""
        return len(self._entries)

    def add(self, entries: Iterable[NewEntry]) -> None:
        """Keep what was just stored, under the next message_seqs."""
        if self.is_released:
            return
        for entry in entries:
            self._entries.append(entry)
            self._resends.added(self, entry)

    def since(self, message_seq: int) -> list[NewEntry] | None:
        """Return the entries from *message_seq* on; None: some of them are no longer kept."""
        if self.is_released or message_seq < self._first:
            return None
        return list(islice(self._entries, message_seq - self._first, None))

    def release(self) -> None:
        """Drop everything, for good."""
        if not self.is_released:
            self.is_released = True
            self._resends.released(self._entries)
            self._entries.clear()

    def drop_first(self) -> NewEntry:
        """Drop the oldest entry and return it."""
        self._first += 1
        return self._entries.popleft()


def _size(entry: NewEntry) -> int:
    return len(entry.data) + _ENTRY_BYTES
