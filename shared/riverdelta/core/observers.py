"""Observers: a deployment's own code that is told how messages go. Data and a base class only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from riverdelta.core.events import Event, MessageStatus, SnapshotMessage


@dataclass(frozen=True, slots=True)
class EndedMessage:
    """
    A message that has ended, as hooks get it.

    Attributes:
        chat_id, message_id: Whose; together an idempotency key, for hooks may be called again.
        status: ``completed``, ``stopped`` or ``failed``.
        end: The event that ended it, as readers got it: usage and timings, or code and detail.
        message: All of it, as a snapshot has it: chunks with their texts and cards, annotations.
        attempt: 1 for the first call of this hook, as far as anybody knows.
    """

    chat_id: str
    message_id: str
    status: MessageStatus
    end: Event
    message: SnapshotMessage
    attempt: int


class Observer:
    """
    Base of observers: override what you want to hear. One object serves all chats of a process.

    Whatever a hook does, readers get the message as they would have: a hook that raises is logged.

    Attributes:
        name: Tells a pipeline's observers apart, also in Redis. Unset: the class's name.
    """

    name: str = "Observer"

    def __init_subclass__(cls, **options: Any) -> None:
        """Name a class after itself where it does not say otherwise."""
        super().__init_subclass__(**options)
        if "name" not in cls.__dict__:
            cls.name = cls.__name__

    async def on_first_bytes(self, event: Event) -> None:
        """
        Hear of the first text that readers got of a message, right before `on_chunk` has it.

        Live, as `on_chunk` is.
        """

    async def on_chunk(self, event: Event) -> None:
        """
        Hear of an event of a message's chunks, once readers have it; in order.

        Live: at most once, and not again after a crash. The chat waits for it, other chats do not. A
        hook that raises, or takes longer than ``observer_timeout_s`` over what one commit brought, is
        live no more for that message.
        """

    async def on_complete(self, ended: EndedMessage) -> None:
        """
        Hear that a message was completed, or stopped by a reader.

        Of this and `on_error` exactly one is called for a message; at least once, whatever dies: again
        by another worker, or after it raised or took longer than ``observer_end_timeout_s``, until
        ``observer_tries`` are used up.
        """

    async def on_error(self, ended: EndedMessage) -> None:
        """Hear that a message failed; otherwise as `on_complete`."""
