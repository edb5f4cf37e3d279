"""Observers: a deployment's own code that is called as messages progress. Data and a base class only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from riverdelta.core.events import Event, MessageStatus, SnapshotMessage


@dataclass(frozen=True, slots=True)
class EndedMessage:
    """
    A message that has ended, as hooks get it.

    Attributes:
        chat_id, message_id: The ids; together an idempotency key, because a hook may be called again.
        status: ``completed``, ``stopped`` or ``failed``.
        end: The event that ended it, as readers got it: usage and timings, or code and detail.
        message: The whole message in the form of a snapshot: chunks with texts and cards, annotations.
        attempt: 1 for the first call of this hook, as far as is known.
        about: ``conversation``, ``user``, ``operation_name`` and ``service_name``, where the producer named
            them; readers never get these.
    """

    chat_id: str
    message_id: str
    status: MessageStatus
    end: Event
    message: SnapshotMessage
    attempt: int
    about: Mapping[str, str] = field(default_factory=dict)


class Observer:
    """
    Base class of observers: override the hooks that you need. One object serves all chats of a process.

    A hook never changes what readers get: an exception in a hook is logged.

    Attributes:
        name: Unique in a pipeline, also stored in Redis. Unset: the class's name.
    """

    name: str = "Observer"

    def __init_subclass__(cls, **options: Any) -> None:
        """Set ``name`` to the class's name where the class has none."""
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    async def on_first_bytes(self, event: Event) -> None:
        """
        Called with the first text that readers got of a message, right before `on_chunk` with that event.

        Live: see `on_chunk`.
        """

    async def on_chunk(self, event: Event) -> None:
        """
        Called with each event of a message's chunks, in order, once readers have it.

        Live: at most once, and not again after a crash. The chat waits for the hook, other chats do not. A
        hook that raises, or takes longer than ``observer_timeout_s`` for the events of one commit, gets no
        more live events of that message.
        """

    async def on_complete(self, ended: EndedMessage) -> None:
        """
        Called when a message was completed, or stopped by a reader.

        Exactly one of this and `on_error` is called for a message, and at least once: it is called again by
        another worker after a crash, or after it raised or exceeded ``observer_end_timeout_s``, up to
        ``observer_tries`` calls in all.
        """

    async def on_error(self, ended: EndedMessage) -> None:
        """Called when a message failed; otherwise like `on_complete`."""
