"""Reads a chat's events: a snapshot or what follows a position, then live, without gap or repeat."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from typing import Any, Final, Self

from riverdelta.broker.client import Client
from riverdelta.broker.settings import Settings
from riverdelta.broker.store import scripts
from riverdelta.broker.store.head import read_head
from riverdelta.broker.store.snapshot import read_snapshot
from riverdelta.core.cursor import ReaderCursor, Verdict
from riverdelta.core.errors import BrokerUnavailable
from riverdelta.core.events import Event
from riverdelta.core.ids import check_id
from riverdelta.core.positions import NO_EPOCH, Position

_QUIET_S: Final = 1.0
"""A reader that heard nothing for this long compares with the head: pub/sub may lose, the log not."""
_PENDING_EVENTS: Final = 1_000
_PENDING_BYTES: Final = 4 * 1024 * 1024
"""Live events held for one reader; past either they are dropped, and read from the log instead."""
_PAGE_EVENTS: Final = 500
"""Events read from the log at a time."""
_RETRY_S: Final = 0.25

_log = logging.getLogger("riverdelta.subscriber")


class _Feed:
    """What the channel brought for one reader, until the reader takes it. Bounded."""

    def __init__(self) -> None:
        self._pending: deque[bytes] = deque()
        self._bytes = 0
        self._wake = asyncio.Event()
        self._doubt = False
        self._quiet = False

    def offer(self, payload: bytes) -> None:
        """Take an event from the channel."""
        self._quiet = False
        if len(self._pending) >= _PENDING_EVENTS or self._bytes >= _PENDING_BYTES:
            self._pending.clear()
            self._bytes = 0
            self._doubt = True
        self._pending.append(payload)
        self._bytes += len(payload)
        self._wake.set()

    def doubt(self) -> None:
        """Events may have been missed: have the reader compare with the head."""
        self._doubt = True
        self._wake.set()

    def tick(self) -> None:
        """Doubt after a whole tick without any event."""
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


class Subscriber:
    """
    Follows chats. One per process: readers of one chat share one subscription.

    Use as an async context manager::

        async with Subscriber.from_url("redis://localhost:6379") as subscriber:
            async for event in subscriber.events("chat-1"):
                print(event.position, event.type, event.data)

    Args:
        settings: Unset: from ``RIVERDELTA_*``.

    Attributes:
        client: Its connections; others may use them, too.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.client = Client(settings or Settings())
        self._feeds: dict[str, list[_Feed]] = {}
        self._pubsub = self.client.pubsub(on_message=self._on_message, on_gap=self._on_gap)
        self._ticker: asyncio.Task[None] | None = None

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # checked by Settings
        """
        Make a subscriber for the Redis at *url*; *settings* as in `Settings`.

        Raises:
            SettingsError: The URL cannot be used.
        """
        return cls(Settings(redis_url=url, **settings))

    async def __aenter__(self) -> Self:
        """
        Connect.

        Raises:
            BrokerUnavailable: No server there.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """
        await self.client.__aenter__()
        await self._pubsub.start()
        self._ticker = asyncio.create_task(self._tick(), name="riverdelta-reader-tick")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close; iterators that are still open end with `BrokerUnavailable`."""
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        await self._pubsub.aclose()
        await self.client.aclose()
        self._on_gap(list(self._feeds))  # open iterators look again, and find out

    async def events(self, chat_id: str, after: str | None = None) -> AsyncGenerator[Event, None]:
        """
        Iterate over a chat's events; never ends by itself, and survives a Redis that goes away.

        Args:
            chat_id: The chat; it need not exist yet.
            after: ``event.position`` of the last event you have: you get exactly what follows it.
                None, or a position that is void by now (another epoch, of the future, or older than
                the log): first a ``snapshot`` event, then what follows that.

        Raises:
            InvalidIdError, InvalidPositionError: (``ValueError``) your bug.
            BrokerUnavailable: The subscriber was closed, or Redis is away at the very start.
        """
        keys = self.client.keys.chat(check_id("chat_id", chat_id))
        cursor = ReaderCursor(Position(NO_EPOCH, 0) if after is None else Position.parse(after))
        feed = await self._join(keys.deltas)
        try:
            verdict = Verdict.SNAPSHOT if after is None else Verdict.SKIP
            if after is not None:
                verdict = cursor.judge_head(await self.head_position(chat_id) or _NO_LOG)
            while True:
                # A read that was cut off is repeated from the cursor: nothing is delivered twice.
                try:
                    async for event in self.catch_up(chat_id, cursor, verdict):
                        yield event
                    verdict = Verdict.SKIP
                    payload = await feed.next()
                    if payload is None:
                        verdict = cursor.judge_head(await self.head_position(chat_id))
                        continue
                except BrokerUnavailable as error:
                    if self.client.closed:
                        raise
                    _log.warning("reading chat %s again: %s", chat_id, error)
                    await asyncio.sleep(_RETRY_S)
                    feed.doubt()
                    continue
                try:
                    event = Event(payload)
                    verdict = cursor.judge(event)
                except (ValueError, LookupError, TypeError):
                    feed.doubt()  # published by nobody we know; the log tells
                    continue
                if verdict is Verdict.DELIVER:
                    yield event
        finally:
            await self._leave(keys.deltas, feed)

    async def snapshot(self, chat_id: str) -> Event:
        """
        Read the chat as it is now.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        keys = self.client.keys.chat(check_id("chat_id", chat_id))
        return await read_snapshot(self.client.chats, keys, chat_id, _now_ms())

    async def stop(
        self, chat_id: str, message_id: str | None = None, *, reason: str = "stopped by a reader"
    ) -> list[str]:
        """
        Stop a reply; effective at its producer's next push or check, within about a second.

        Args:
            chat_id: The chat.
            message_id: The message. None: every open one.
            reason: Readers get it with ``message.stopped``; not empty.

        Returns:
            Ids of the messages that were open and are marked now.
        """
        keys = self.client.keys.chat(check_id("chat_id", chat_id))
        if message_id is None:
            head = await read_head(self.client.chats, keys)
            message_ids = head.open if head is not None else []
        else:
            message_ids = [check_id("message_id", message_id)]
        marked = []
        for candidate in message_ids:
            answer = await scripts.stop(
                self.client.chats, keys, message_id=candidate, reason=reason
            )
            if answer == "marked":
                marked.append(candidate)
        return marked

    # -- reading ---------------------------------------------------------------------------------

    async def catch_up(
        self, chat_id: str, cursor: ReaderCursor, verdict: Verdict
    ) -> AsyncGenerator[Event, None]:
        """
        Give what *verdict* asks for: a snapshot, what the log holds behind the cursor, nothing.

        Args:
            chat_id: The chat.
            cursor: Moves along with what is given.
            verdict: As the cursor judged.

        Raises:
            BrokerUnavailable: Redis did not answer; go on from where the cursor is.
        """
        if verdict is Verdict.READ_LOG:
            async for event in self._read_log(chat_id, cursor):
                if event is None:
                    verdict = Verdict.SNAPSHOT
                else:
                    yield event
        if verdict is Verdict.SNAPSHOT:
            snapshot = await self.snapshot(chat_id)
            cursor.restart(snapshot)
            yield snapshot

    async def _read_log(self, chat_id: str, cursor: ReaderCursor) -> AsyncIterator[Event | None]:
        """Give the log's events behind the cursor; None, and the end, where only a snapshot helps."""
        deltas = self.client.keys.chat(chat_id).deltas
        while True:
            first = f"{cursor.position.seq + 1}-0"
            entries = await self.client.chats.execute(
                "XRANGE", deltas, first, "+", "COUNT", _PAGE_EVENTS
            )
            for _, (_, raw) in entries:
                event = Event(raw)
                if cursor.judge_logged(event) is not Verdict.DELIVER:
                    yield None
                    return
                yield event
            if len(entries) < _PAGE_EVENTS:
                return

    async def head_position(self, chat_id: str) -> Position | None:
        """
        Say where a chat's log ends; None: there is no log.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        head = self.client.keys.chat(chat_id).head
        epoch, seq = await self.client.chats.execute("HMGET", head, "epoch", "seq")
        return Position(epoch.decode(), int(seq or 0)) if epoch else None

    # -- one subscription per chat ---------------------------------------------------------------

    async def _join(self, channel: str) -> _Feed:
        feed = _Feed()
        self._feeds.setdefault(channel, []).append(feed)
        try:
            await self._pubsub.subscribe(channel)
        except BaseException:
            await self._leave(channel, feed)
            raise
        return feed

    async def _leave(self, channel: str, feed: _Feed) -> None:
        feeds = self._feeds[channel]
        feeds.remove(feed)
        if not feeds:
            del self._feeds[channel]
            await self._pubsub.unsubscribe(channel)

    def _on_message(self, channel: str, payload: bytes) -> None:
        for feed in self._feeds.get(channel, ()):
            feed.offer(payload)

    def _on_gap(self, channels: Collection[str]) -> None:
        for channel in channels:
            for feed in self._feeds.get(channel, ()):
                feed.doubt()

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_QUIET_S)
            for feeds in self._feeds.values():
                for feed in feeds:
                    feed.tick()


_NO_LOG: Final = Position("-", 0)
"""A position that no reader has: resuming anywhere in a chat without a log needs a snapshot."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
