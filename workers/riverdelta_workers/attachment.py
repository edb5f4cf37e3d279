"""One chat that this process owns: what it knows of it, and what has come in for it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from riverdelta.broker.keys import ChatKeys
from riverdelta.broker.state import HotChat
from riverdelta.core.state import Entry
from riverdelta_workers.hooks import Hooks

_INBOX_ENTRIES: Final = 256
_INBOX_BYTES: Final = 1024 * 1024
"""Past either, entries that came in the wake are dropped: the stream has them all."""


@dataclass(slots=True)
class Attachment:
    """
    A chat's place in its owner's memory.

    Attributes:
        term: Fencing number of this ownership.
        hot: The chat's state; None: to be loaded (after any error or refusal).
        version, seq: Of the last commit known to be stored; finding less means lost data.
        run_id: Of the server that this ownership was claimed on.
        claims: Claims without a commit when this one was made; 0 after the first commit.
        task: Drains the chat; None while there is nothing to do.
        must_read: The stream may hold more than the inbox.
        single: Fold entry by entry, to find the one that breaks the fold or kills the process,
        single_until: up to this number: it was in the batch.
        poison: Number of the entry to pass over, with code and detail.
        idle_since: Loop time of the last work.
        closing: Give it up: no further round.
        entry_bytes: Average size of the entries read last.
        hooks: What observers are told of it; None: nothing so far.
    """

    chat_id: str
    keys: ChatKeys
    term: int
    claims: int
    run_id: str | None
    idle_since: float
    hot: HotChat | None = None
    version: int = 0
    seq: int = 0
    task: asyncio.Task[None] | None = None
    must_read: bool = True
    single: bool = False
    single_until: int = 0
    poison: tuple[int, str, str] | None = None
    closing: bool = False
    entry_bytes: int = 0
    hooks: Hooks | None = None
    _inbox: deque[Entry] = field(default_factory=deque)
    _inbox_bytes: int = 0
    _next: int = 0

    @property
    def has_work(self) -> bool:
        """Whether anything may be unread."""
        return self.must_read or bool(self._inbox)

    @property
    def owes(self) -> bool:
        """Whether calls of observers have to come through before it may be given up."""
        return self.hooks is not None and bool(self.hooks.owed)

    def offer(self, entries: list[Entry]) -> None:
        """Take entries that came with a wake; none, or not the next ones: the stream must be read."""
        first = entries[0].number if entries else 0
        size = sum(len(entry.data) for entry in entries)
        if first and first + len(entries) <= self._next:
            return  # known already
        fits = len(self._inbox) < _INBOX_ENTRIES and self._inbox_bytes + size <= _INBOX_BYTES
        if self.must_read or first != self._next or not fits:
            self.must_read = True
            return
        self._inbox.extend(entries)
        self._inbox_bytes += size
        self._next += len(entries)

    def take_inbox(self, most: int) -> list[Entry]:
        """Take up to *most* of the next entries."""
        entries = [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]
        self._inbox_bytes -= sum(len(entry.data) for entry in entries)
        return entries

    def expect(self, number: int) -> None:
        """Say which entry is to come next; whatever the inbox holds is void."""
        self._inbox.clear()
        self._inbox_bytes = 0
        self._next = number

    def drop(self) -> None:
        """Forget what memory holds: load and read again."""
        self.hot = None
        self.must_read = True
        self._inbox.clear()
        self._inbox_bytes = 0
