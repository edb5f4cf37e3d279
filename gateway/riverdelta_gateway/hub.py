"""One subscription per chat and process: each event is read and encoded once, and sent to all sockets."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final, Protocol

from redis.exceptions import RedisError

from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta.core.cursor import Verdict
from riverdelta.core.errors import RiverdeltaError
from riverdelta.core.events import Event
from riverdelta.core.positions import NO_EPOCH, Position
from riverdelta_gateway.access import ChatAccess, OwnerGuard
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.send_queue import Delivery
from riverdelta_gateway.session import Subscription
from riverdelta_gateway.transitions import State

_RETRY_S: Final = 0.25
_BEGINNING: Final = Position(NO_EPOCH, 0)
_NO_LOG: Final = Position("-", 0)
"""A position that no reader has: a reader that resumes in a chat without a log needs a snapshot."""

_log = logging.getLogger("riverdelta.gateway")


class Reader(Protocol):
    """What the hub needs of a socket."""

    @property
    def user(self) -> str:
        """Id of its user."""

    def take(self, subscription: Subscription, delivery: Delivery) -> None:
        """Take a live event; it must not block."""

    def take_read(self, subscription: Subscription, delivery: Delivery) -> None:
        """Take an event that a catch-up read."""

    def take_caught_up(self, subscription: Subscription) -> None:
        """Note that the catch-up is done."""

    def take_refused(self, subscription: Subscription) -> None:
        """End a subscription: the chat is not, or no longer, its user's."""

    async def until_ready(self) -> None:
        """Wait until the socket takes bytes, and its send queue is empty."""


class _FanOut:
    """
    Sends one chat's live events to all of its readers.

    Attributes:
        readers: By subscription.
        position: The last event that was sent to them; None: it has not begun.
        begun: Set when *position* is known.
        lingers: The timer that ends it, while it has no readers.
        task: Reads the chat.
    """

    def __init__(self, subscriber: ChatReader, access: ChatAccess, chat_id: str) -> None:
        self.readers: dict[Subscription, Reader] = {}
        self.position: Position | None = None
        self.begun = asyncio.Event()
        self.lingers: asyncio.TimerHandle | None = None
        self._subscriber = subscriber
        self._access = access
        self._chat_id = chat_id
        self.task = asyncio.create_task(self._run(), name=f"riverdelta-fan-out-{chat_id}")

    async def _run(self) -> None:
        while True:
            try:
                if self.position is None:
                    head = await self._subscriber.head_position(self._chat_id)
                    self.position = head or _BEGINNING
                    self.begun.set()
                stream = self._subscriber.events(self._chat_id, str(self.position))
                async with contextlib.aclosing(stream):
                    async for event in stream:
                        if event.type == "snapshot" or event.epoch != self.position.epoch:
                            await self._check_readers()
                        self._send(event)
            except (RiverdeltaError, RedisError) as error:
                _log.warning("following chat %s again: %s", self._chat_id, error)
                await asyncio.sleep(_RETRY_S)

    async def _check_readers(self) -> None:
        """Refuse the readers who may not read the chat any more: it may have begun a new life."""
        owner = await self._access.guard(self._chat_id, "").owner()
        for subscription, reader in tuple(self.readers.items()):
            if not self._access.is_readable(owner, reader.user):
                reader.take_refused(subscription)

    def _send(self, event: Event) -> None:
        self.position = Position(event.epoch, event.seq)
        delivery = Delivery(event)
        for subscription, reader in tuple(self.readers.items()):
            reader.take(subscription, delivery)


class Hub:
    """
    The chats that sockets of this process are subscribed to.

    Args:
        subscriber: Reads the chats.
        access: Chat ownership.
        linger_s: A chat without readers stays subscribed for this long, so that a reload finds it.
    """

    def __init__(self, subscriber: ChatReader, access: ChatAccess, linger_s: float) -> None:
        self._subscriber = subscriber
        self._access = access
        self._linger_s = linger_s
        self._fan_outs: dict[str, _FanOut] = {}
        self._ending: set[asyncio.Task[None]] = set()

    async def aclose(self) -> None:
        """Unsubscribe from all chats."""
        tasks = [fan_out.task for fan_out in self._fan_outs.values()]
        for fan_out in self._fan_outs.values():
            if fan_out.lingers is not None:
                fan_out.lingers.cancel()
        self._fan_outs.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._ending, return_exceptions=True)

    @property
    def chats(self) -> int:
        """Count the chats that this process is subscribed to."""
        return len(self._fan_outs)

    async def catch_up(self, subscription: Subscription, reader: Reader) -> None:
        """
        Send a reader what it lacks, up to the chat's live events, and let it go live there.

        Ends early when the subscription has moved on: it was closed, or its send queue was dropped.
        """
        if subscription.state is not State.STARTING:
            return
        attempt = subscription.attempt
        guard = self._access.guard(subscription.chat_id, reader.user)
        fan_out = self._fan_out(subscription.chat_id)
        fan_out.readers[subscription] = reader
        while subscription.attempt == attempt:
            try:
                await fan_out.begun.wait()
                await self._read(subscription, reader, fan_out, guard)
            except RequestError:
                reader.take_refused(subscription)
                return
            except (RiverdeltaError, RedisError) as error:
                _log.warning("reading chat %s again: %s", subscription.chat_id, error)
                await asyncio.sleep(_RETRY_S)
            else:
                return

    def leave(self, subscription: Subscription) -> None:
        """Remove a reader. Without any, the chat is unsubscribed after ``linger_s``."""
        fan_out = self._fan_outs.get(subscription.chat_id)
        if fan_out is None or fan_out.readers.pop(subscription, None) is None or fan_out.readers:
            return
        loop = asyncio.get_running_loop()
        fan_out.lingers = loop.call_later(self._linger_s, self._end, subscription.chat_id)

    # -- inside ----------------------------------------------------------------------------------

    def _fan_out(self, chat_id: str) -> _FanOut:
        fan_out = self._fan_outs.get(chat_id)
        if fan_out is None:
            fan_out = self._fan_outs[chat_id] = _FanOut(self._subscriber, self._access, chat_id)
        if fan_out.lingers is not None:
            fan_out.lingers.cancel()
            fan_out.lingers = None
        return fan_out

    def _end(self, chat_id: str) -> None:
        task = self._fan_outs.pop(chat_id).task
        task.cancel()
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)

    async def _read(
        self, subscription: Subscription, reader: Reader, fan_out: _FanOut, guard: OwnerGuard
    ) -> None:
        """Read until the reader has every event that was sent live."""
        attempt = subscription.attempt
        verdict = Verdict.SNAPSHOT
        if not subscription.needs_snapshot:
            head = await self._subscriber.head_position(subscription.chat_id)
            verdict = subscription.cursor.judge_head(head or _NO_LOG)
        while subscription.attempt == attempt:
            before = subscription.cursor.position
            await reader.until_ready()
            stream = self._subscriber.catch_up(subscription.chat_id, subscription.cursor, verdict)
            async with contextlib.aclosing(stream):
                async for event in stream:
                    await guard.check(event)
                    if subscription.attempt != attempt:
                        return
                    reader.take_read(subscription, Delivery(event))
                    await reader.until_ready()
            seen = fan_out.position
            lacks = _judge(subscription, seen) or await self._judge_head(subscription)
            if lacks is Verdict.SKIP and fan_out.position == seen:
                # Nothing came in between: the reader gets the next live event.
                reader.take_caught_up(subscription)
                return
            if lacks is Verdict.READ_LOG and subscription.cursor.position == before:
                lacks = Verdict.SNAPSHOT  # the log lacks events that were sent live
            verdict = lacks

    async def _judge_head(self, subscription: Subscription) -> Verdict:
        return subscription.cursor.judge_head(
            await self._subscriber.head_position(subscription.chat_id)
        )


def _judge(subscription: Subscription, sent: Position | None) -> Verdict | None:
    """Compare with the last live event, *sent*; None: it is on another log, compare with the head."""
    epoch, seq = subscription.cursor.position
    if sent is None or sent.seq == 0:
        return Verdict.SKIP
    if sent.epoch != epoch:
        return None
    return Verdict.SKIP if seq >= sent.seq else Verdict.READ_LOG
