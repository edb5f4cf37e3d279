"""A chat that this process owns: its state in memory, and the entries that arrived for it."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from riverdelta.broker.client import Client
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.broker.store.save import HotChat
from riverdelta.broker.store.streams import read_entries
from riverdelta.core.state import Entry

_INBOX_ENTRIES: Final = 256
_INBOX_BYTES: Final = 1024 * 1024
"""Bounds of the inbox. Beyond them, entries of a wake are dropped: the stream has them all."""
_READ_BYTES: Final = 1024 * 1024
"""Target size of a batch of large entries, so that replies and commits stay small."""


@dataclass(slots=True)
class ObserverCalls:
    """
    Calls of observers for one owned chat.

    Attributes:
        begun: Open messages whose first text was reported, by this owner or an earlier one.
        silenced: Message id and observer name whose live hooks are off: one raised or was too slow.
        live: Live hooks that are running.
        owed: The task that calls `on_complete` or `on_error`, by message id and observer name.
    """

    begun: set[str] = field(default_factory=set)
    silenced: set[tuple[str, str]] = field(default_factory=set)
    live: set[asyncio.Task[str]] = field(default_factory=set)
    owed: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)

    def ended(self, message_id: str) -> None:
        """Forget a message: it gets no more live hooks."""
        self.begun.discard(message_id)
        self.silenced -= {known for known in self.silenced if known[0] == message_id}


@dataclass(slots=True)
class Attachment:
    """
    An owned chat in its owner's memory.

    Attributes:
        term: Fencing number of this ownership.
        hot: The chat's state; None: to be loaded (after any error or refusal).
        version, seq: Of the last commit known to be stored; finding less means lost data.
        run_id: Of the server that this ownership was claimed on.
        claims: Claims without a commit when this one was made; 0 after the first commit.
        task: Drains the chat; None while there is nothing to do.
        must_read: The stream may hold more than the inbox.
        single: Process one entry per batch, to find the one that breaks the fold or kills the process.
        single_until: Number of the last entry of the failed batch; isolation ends behind it.
        poison: Number of the entry to skip, with code and detail.
        idle_since: Loop time of the last work.
        closing: It is being handed over: no further round.
        entry_bytes: Average size of the entries read last.
        observer_calls: Calls of observers for it; None: none so far.
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
    observer_calls: ObserverCalls | None = None
    _inbox: deque[Entry] = field(default_factory=deque)
    _inbox_bytes: int = 0
    _next: int = 0

    @property
    def has_work(self) -> bool:
        """Whether there may be unread entries."""
        return self.must_read or bool(self._inbox)

    @property
    def owes(self) -> bool:
        """Whether calls of observers must finish before the chat may be released."""
        return self.observer_calls is not None and bool(self.observer_calls.owed)

    def offer(self, entries: list[Entry]) -> None:
        """Add the entries of a wake. If there are none, or a gap, the stream must be read."""
        first = entries[0].number if entries else 0
        size = sum(len(entry.data) for entry in entries)
        if first and first + len(entries) <= self._next:
            return  # already known
        fits = len(self._inbox) < _INBOX_ENTRIES and self._inbox_bytes + size <= _INBOX_BYTES
        if self.must_read or first != self._next or not fits:
            self.must_read = True
            return
        self._inbox.extend(entries)
        self._inbox_bytes += size
        self._next += len(entries)

    def take_inbox(self, most: int) -> list[Entry]:
        """Take up to *most* of the next entries from the inbox."""
        entries = [self._inbox.popleft() for _ in range(min(most, len(self._inbox)))]
        self._inbox_bytes -= sum(len(entry.data) for entry in entries)
        return entries

    def expect(self, number: int) -> None:
        """Set the number of the next entry, and clear the inbox."""
        self._inbox.clear()
        self._inbox_bytes = 0
        self._next = number

    def drop(self) -> None:
        """Drop the state in memory, so that it is loaded and read again."""
        self.hot = None
        self.must_read = True
        self._inbox.clear()
        self._inbox_bytes = 0


async def next_entries(client: Client, attachment: Attachment, processed: int) -> list[Entry]:
    """
    Take or read the entries behind number *processed*; may be empty.

    Raises:
        BrokerUnavailable: Redis did not answer.
    """
    most = 1 if attachment.single else client.settings.batch_chunks
    if not attachment.must_read:
        return attachment.take_inbox(most)
    attachment.must_read = False
    count = most if attachment.single else _fitting(most, attachment.entry_bytes)
    entries = await read_entries(client.chats, attachment.keys, processed=processed, count=count)
    # A wake that arrived during the read was compared with the old number: read once more.
    if len(entries) == count or attachment.has_work:
        attachment.must_read = True
    attachment.expect(processed + len(entries) + 1)
    if entries:
        attachment.entry_bytes = sum(len(entry.data) for entry in entries) // len(entries)
    return entries


def _fitting(most: int, entry_bytes: int) -> int:
    """Return how many entries to read, by the average size of the last ones."""
    return max(1, min(most, _READ_BYTES // entry_bytes)) if entry_bytes else most
