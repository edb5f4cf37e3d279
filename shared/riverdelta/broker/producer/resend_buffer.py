"""
What a producer keeps of what it pushed, to send again what a server has forgotten.

Bounded for the whole process: past the bound, what was stored longest ago goes first, whosever it is.
A server that comes back with less lacks what it was told last.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from itertools import islice
from typing import Final

from riverdelta.core.outgoing import NewEntry

_ENTRY_BYTES: Final = 160
"""What an entry takes in memory beside its data; else many small ones would not count."""


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
        """Make the part of a new message."""
        return Kept(self)

    def added(self, kept: Kept, entry: NewEntry) -> None:
        """Count the newest entry of *kept*, and drop the oldest of all while they are too many."""
        self._order.append(kept)
        self.bytes += _size(entry)
        while self.bytes > self._max_bytes:
            oldest = self._order.popleft()
            if oldest.is_released:
                self._released -= 1
            else:
                self.bytes -= _size(oldest.drop_first())

    def released(self, entries: Iterable[NewEntry]) -> None:
        """Count off what a message has given up."""
        for entry in entries:
            self.bytes -= _size(entry)
            self._released += 1
        # Their places are taken out together, once they are the half: each costs next to nothing.
        if 2 * self._released > len(self._order):
            self._order = deque(kept for kept in self._order if not kept.is_released)
            self._released = 0


class Kept:
    """
    The last stored entries of one message, without a hole. Its start has number 1 and is not here.

    Attributes:
        is_released: It keeps nothing any more, and never will.
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
        """Keep what was just stored, under the next numbers."""
        if self.is_released:
            return
        for entry in entries:
            self._entries.append(entry)
            self._resends.added(self, entry)

    def since(self, number: int) -> list[NewEntry] | None:
        """Give the entries from *number* on; None: some of them are not here any more."""
        if self.is_released or number < self._first:
            return None
        return list(islice(self._entries, number - self._first, None))

    def release(self) -> None:
        """Give everything up: nobody will ask for it again."""
        if not self.is_released:
            self.is_released = True
            self._resends.released(self._entries)
            self._entries.clear()

    def drop_first(self) -> NewEntry:
        """Take the oldest out."""
        self._first += 1
        return self._entries.popleft()


def _size(entry: NewEntry) -> int:
    return len(entry.data) + _ENTRY_BYTES
