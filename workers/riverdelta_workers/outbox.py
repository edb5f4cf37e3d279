"""
Call observers after the end of a message: at least once, even if workers die.

The commit that ends a message writes each owed call into the chat's outbox. The chat's owner makes the call
and removes it; a new owner finds what is left. A chat is not released before its outbox is empty, so a
reaper finds it a new owner like any other chat.

These are not arq jobs: a full process occupies arq's job slots, slow hooks would occupy them too, and the
job of a killed worker is blocked for the longest job timeout. A new owner is there within three seconds.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final, TypeVar

from redis.exceptions import RedisError

from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta.broker.store.messages import read_about
from riverdelta.broker.store.snapshot import read_message
from riverdelta.core.changes import OwedCall
from riverdelta.core.errors import BrokerUnavailable
from riverdelta.core.events import Event
from riverdelta.core.observers import EndedMessage, Observer
from riverdelta_workers.attachment import Attachment, ObserverCalls

_LONGEST_PAUSE_S: Final = 60.0
_REDIS_PAUSE_S: Final = 0.5

T = TypeVar("T")

_log = logging.getLogger("riverdelta.worker")


class Outbox:
    """
    The calls that this process owes. Each has its own task: none waits for another.

    Attributes:
        failures: Calls that raised or took too long, since the start.
        given_up: Calls that used up their tries, since the start.
    """

    def __init__(self, client: Client, observers: Sequence[Observer]) -> None:
        self.failures = 0
        self.given_up = 0
        self._client = client
        self._observers = {observer.name: observer for observer in observers}
        self._tries = client.settings.observer_tries

    def begin(
        self, attachment: Attachment, observer_calls: ObserverCalls, calls: Iterable[OwedCall]
    ) -> None:
        """Make *calls* that were just committed; the commit counted their first try."""
        for call in calls:
            self._start(attachment, observer_calls, call, taken_over=False)

    def take_over(
        self, attachment: Attachment, observer_calls: ObserverCalls, calls: Iterable[OwedCall]
    ) -> None:
        """Make *calls* that were found in Redis, except those in progress."""
        for call in calls:
            if (call.message_id, call.observer) not in observer_calls.owed:
                self._start(attachment, observer_calls, call, taken_over=True)

    def _start(
        self,
        attachment: Attachment,
        observer_calls: ObserverCalls,
        call: OwedCall,
        *,
        taken_over: bool,
    ) -> None:
        key = call.message_id, call.observer
        task = asyncio.create_task(self._deliver(attachment, call, taken_over=taken_over))
        observer_calls.owed[key] = task
        task.add_done_callback(lambda _: observer_calls.owed.pop(key))

    async def _deliver(self, attachment: Attachment, call: OwedCall, *, taken_over: bool) -> None:
        """Repeat the call until it succeeds, runs out of tries, or another worker owns the chat."""
        current: OwedCall | None = call
        if taken_over:
            # The last try was begun by a worker that died; its result is unknown.
            current = await self._count(attachment, call, "its worker died before it finished")
        while current is not None and current.tries <= self._tries:
            error = await self._attempt(attachment, current)
            if not error:
                await self._remove(attachment, current)
                return
            self.failures += 1
            _log.warning(
                "chat %s: %s, try %d of %d: %s",
                *(attachment.chat_id, _name(current), current.tries, self._tries, error),
            )
            pause_s = self._pause_s(current.tries)
            current = await self._count(attachment, current, error)
            if current is not None and current.tries <= self._tries:
                await asyncio.sleep(pause_s)
        if current is not None:
            self.given_up += 1
            given_up = f"{self._tries} tries, the last one: {current.error}"
            _log.error(
                "chat %s: %s failed for good: %s", attachment.chat_id, _name(current), given_up
            )
            await self._remove(attachment, current, given_up)

    async def _attempt(self, attachment: Attachment, call: OwedCall) -> str:
        """Call the hook; returns the error, or ""."""
        observer = self._observers.get(call.observer)
        if observer is None:
            return "the pipeline has no observer of this name"
        chats, keys = self._client.chats, attachment.keys
        message = await _insist(lambda: read_message(chats, keys, call.message_id))
        if message is None:
            return "Redis no longer has the message"
        status = message["status"]
        about = await _insist(lambda: read_about(chats, keys, call.message_id))
        ended = EndedMessage(
            attachment.chat_id, call.message_id, status, Event(call.end), message, call.tries, about
        )
        hook = observer.on_error if status == "failed" else observer.on_complete
        try:
            async with asyncio.timeout(self._client.settings.observer_end_timeout_s):
                await hook(ended)
        except Exception as error:  # noqa: BLE001  # any error of an observer is retried
            return failure_text(error)
        return ""

    async def _count(self, attachment: Attachment, call: OwedCall, error: str) -> OwedCall | None:
        """Count the next try in Redis; None: the call is done, or another worker owns the chat."""
        chats, again = self._client.chats, call._replace(tries=call.tries + 1, error=error)
        noted = await _insist(
            lambda: scripts.try_again(chats, attachment.keys, again, term=attachment.term)
        )
        return again if noted else None

    async def _remove(self, attachment: Attachment, call: OwedCall, given_up: str = "") -> None:
        """Remove a call from the outbox. If another worker owns the chat, that one repeats the call."""
        chats, keys = self._client.chats, attachment.keys
        await _insist(
            lambda: scripts.settle(chats, keys, call, term=attachment.term, given_up=given_up)
        )
        if attachment.hot is not None:
            attachment.hot.state.owed.discard((call.message_id, call.observer))

    def _pause_s(self, tries: int) -> float:
        doubled = self._client.settings.observer_pause_s * 2.0 ** (tries - 1)
        return min(doubled, _LONGEST_PAUSE_S)


async def _insist(command: Callable[[], Awaitable[T]]) -> T:
    """Run a command until Redis answers; cancelled when the chat is handed over."""
    while True:
        try:
            return await command()
        except (BrokerUnavailable, RedisError) as error:
            _log.warning("outbox: retrying: %s", error)
            await asyncio.sleep(_REDIS_PAUSE_S)


def _name(call: OwedCall) -> str:
    return f"end of message {call.message_id} for observer {call.observer}"


def failure_text(error: BaseException) -> str:
    """Return an error as one short line for logs."""
    return f"{type(error).__name__}: {error}".rstrip(": ")[:500]
