"""Queue of live events for one reader: bounded, and in doubt when it may have missed some."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

MAX_EVENTS: Final = 1_000
_MAX_BYTES: Final = 4 * 1024 * 1024
"""Live events held for one reader; past either they are dropped, and read from the log instead."""


class Feed:
    """Events from a chat's channel that one reader has not read yet."""

    def __init__(self) -> None:
        self._pending: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._doubt = False
        self._quiet = False

    def __len__(self) -> int:
        """How many events are held."""
        return len(self._pending)

    def offer(self, payload: bytes) -> None:
        """Add an event from the channel; drop all that are held if there are too many."""
        self._quiet = False
        if len(self._pending) >= MAX_EVENTS or self._bytes >= _MAX_BYTES:
            self._pending.clear()
            self._bytes = 0
            self._doubt = True
        self._pending.append(payload)
        self._bytes += len(payload)
        self._wake.set()

    def doubt(self) -> None:
        """Make the reader compare with the head: events may have been missed."""
        self._doubt = True
        self._wake.set()

    def tick(self) -> None:
        """Doubt if a whole tick passed without an event: pub/sub may lose one, the log does not."""
        if self._quiet:
            self.doubt()
        self._quiet = True

    async def next(self) -> bytes | None:
        """Wait for the next event; None: in doubt, compare with the head."""
        while not self._pending and not self._doubt:
            self._wake.clear()
            await self._wake.wait()
        if self._doubt:
            self._doubt = False
            return None
        payload = self._pending.popleft()
        self._bytes -= len(payload)
        return payload
