"""
Call the observers of a pipeline: live while a message streams, and at least once after it has ended.

Live hooks run between two rounds of their chat, after the commit: they only get what readers have.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Final

from riverdelta.broker.client import Client
from riverdelta.core.changes import Changes
from riverdelta.core.events import Event
from riverdelta.core.observers import Observer
from riverdelta_workers.attachment import Attachment, ObserverCalls
from riverdelta_workers.outbox import Outbox, failure_text

_GRACE_S: Final = 0.25
"""Time for running end hooks when their chat is handed over; a whole hand-over has 1 s."""

_log = logging.getLogger("riverdelta.worker")


class ObserverCaller:
    """
    Calls the observers of one worker process.

    Args:
        client: The connections to Redis.
        observers: Of the pipeline.

    Attributes:
        live_failures: Live hooks that raised or were too slow, since the start.
        outbox: Makes the calls that are due when messages end.
    """

    def __init__(self, client: Client, observers: Sequence[Observer]) -> None:
        self.live_failures = 0
        self.outbox = Outbox(client, observers)
        self._live = [observer for observer in observers if _is_live(observer)]
        self._timeout_s = client.settings.observer_timeout_s

    def chat_loaded(self, attachment: Attachment) -> None:
        """Take over the calls that the last owner of a loaded chat still owed."""
        hot = attachment.hot
        if hot is None:
            return
        begun = {m.id for m in hot.state.messages.values() if m.ttft_ms is not None}
        if self._live and begun:
            _calls_of(attachment).begun |= begun
        if hot.owed:
            self.outbox.take_over(attachment, _calls_of(attachment), hot.owed)

    async def committed(self, attachment: Attachment, changes: Changes) -> None:
        """Call live hooks for a commit; the chat waits up to ``observer_timeout_s``. Never raises."""
        if self._live:
            await self._call_live(attachment, _calls_of(attachment), changes)
        if changes.owed:
            self.outbox.begin(attachment, _calls_of(attachment), changes.owed)

    def abandon(self, attachment: Attachment) -> None:
        """Cancel the live hooks of a chat, because it is handed over."""
        for task in attachment.observer_calls.live if attachment.observer_calls else ():
            task.cancel()

    async def hand_over(self, attachment: Attachment) -> None:
        """Give end hooks of a chat a moment to finish; the next owner repeats unfinished ones."""
        if attachment.observer_calls and attachment.observer_calls.owed:
            await asyncio.wait(attachment.observer_calls.owed.values(), timeout=_GRACE_S)
        self.stop(attachment)

    def stop(self, attachment: Attachment) -> None:
        """Cancel all calls for a chat, because another worker owns it."""
        for task in (
            list(attachment.observer_calls.owed.values()) if attachment.observer_calls else ()
        ):
            task.cancel()

    async def _call_live(
        self, attachment: Attachment, observer_calls: ObserverCalls, changes: Changes
    ) -> None:
        calls: dict[asyncio.Task[str], tuple[str, str]] = {}
        for message_id, events in _by_message(changes).items():
            first = next((event for event in events if event.type == "chunk.delta"), None)
            if message_id in observer_calls.begun:
                first = None
            elif first is not None:
                observer_calls.begun.add(message_id)
            for observer in self._live:
                if (message_id, observer.name) not in observer_calls.silenced:
                    call = asyncio.create_task(_call(observer, events, first))
                    calls[call] = message_id, observer.name
        if calls:
            await self._wait(attachment, observer_calls, calls)
        for message in changes.messages.values():
            if message.status != "open":
                observer_calls.ended(message.id)

    async def _wait(
        self,
        attachment: Attachment,
        observer_calls: ObserverCalls,
        calls: dict[asyncio.Task[str], tuple[str, str]],
    ) -> None:
        observer_calls.live.update(calls)
        try:
            done, late = await asyncio.wait(calls, timeout=self._timeout_s)
        finally:
            self.abandon(attachment)
            observer_calls.live.clear()
        if attachment.closing:
            return
        said = {call: "was cancelled" if call.cancelled() else call.result() for call in done}
        said |= dict.fromkeys(late, f"not done after {self._timeout_s:g} s")
        for call, error in said.items():
            if error:
                self.live_failures += 1
                observer_calls.silenced.add(calls[call])
                _log.warning(
                    "chat %s: observer %s gets no more live events of message %s: %s",
                    *(attachment.chat_id, calls[call][1], calls[call][0], error),
                )


async def _call(observer: Observer, events: list[Event], first: Event | None) -> str:
    """Call the live hooks of one observer, in order; returns the error, or ""."""
    try:
        for event in events:
            if event is first:
                await observer.on_first_bytes(event)
            await observer.on_chunk(event)
    except Exception as error:  # noqa: BLE001  # whatever an observer does, the chat goes on
        return failure_text(error)
    return ""


def _by_message(changes: Changes) -> dict[str, list[Event]]:
    """Group the committed events of chunks by message."""
    events: dict[str, list[Event]] = {}
    for raw in changes.events:
        event = Event(raw)
        if event.message is not None and event.chunk is not None:
            events.setdefault(event.message, []).append(event)
    return events


def _is_live(observer: Observer) -> bool:
    """Whether the observer overrides a live hook; others need no call."""
    kind = type(observer)
    live = (kind.on_chunk, kind.on_first_bytes)
    return live != (Observer.on_chunk, Observer.on_first_bytes)


def _calls_of(attachment: Attachment) -> ObserverCalls:
    if attachment.observer_calls is None:
        attachment.observer_calls = ObserverCalls()
    return attachment.observer_calls
