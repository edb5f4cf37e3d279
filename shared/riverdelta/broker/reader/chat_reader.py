"""Read a chat's events: a snapshot or what follows a position, then live, without gap or repeat."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final, Self

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.reader.feeds import Feeds
from riverdelta.broker.settings import Settings
from riverdelta.broker.store import scripts
from riverdelta.broker.store.head import read_open, read_position
from riverdelta.broker.store.snapshot import read_snapshot
from riverdelta.broker.store.streams import read_log
from riverdelta.core.cursor import ReaderCursor, Verdict
from riverdelta.core.errors import BrokerUnavailable
from riverdelta.core.events import Event
from riverdelta.core.ids import check_id
from riverdelta.core.positions import NO_EPOCH, Position

_PAGE_EVENTS: Final = 500
"""Events read from the log at a time."""
_RETRY_S: Final = 0.25
STOPPED_BY_A_READER: Final = "stopped by a reader"
"""Reason of a stop for which the reader gave none."""
_NO_LOG: Final = Position("-", 0)
"""A position that no reader has: resuming anywhere in a chat without a log needs a snapshot."""

_log = logging.getLogger("riverdelta.subscriber")


class ChatReader:
    """
    Read chats, for `Subscriber`; the gateway also uses the parts of a catch-up.

    An async context manager.

    Args:
        settings: See `Subscriber`.

    Attributes:
        client: Its connections; may be shared.
    """

    def __init__(self, settings: Settings) -> None:
        self.client = Client(settings)
        self._feeds = Feeds(self.client)

    async def __aenter__(self) -> Self:
        """
        Connect.

        Raises:
            BrokerUnavailable: No server there.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """
        await self.client.__aenter__()
        await self._feeds.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close; iterators that are still open end with `BrokerUnavailable`."""
        await self._feeds.shutdown()
        await self.client.aclose()
        self._feeds.wake_all()

    async def events(self, chat_id: str, after: str | None = None) -> AsyncGenerator[Event, None]:
        """Iterate over a chat's events; see `Subscriber.events`."""
        keys = self.client.keys.chat(check_id("chat_id", chat_id))
        cursor = ReaderCursor(Position(NO_EPOCH, 0) if after is None else Position.parse(after))
        feed = await self._feeds.join(keys.deltas)
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
                    feed.doubt()  # not published by a worker; the log has the events
                    continue
                if verdict is Verdict.DELIVER:
                    yield event
        finally:
            await self._feeds.leave(keys.deltas, feed)

    async def last_events(self, chat_id: str, count: int) -> list[Event]:
        """
        Read the last events of a chat's log, *count* at most, the oldest first.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        head = await self.head_position(chat_id)
        if head is None:
            return []
        keys = self.client.keys.chat(check_id("chat_id", chat_id))
        after = max(0, head.seq - count)
        page = await read_log(self.client.chats, keys, after=after, count=count)
        return [Event(raw) for raw in page]

    async def snapshot(self, chat_id: str) -> Event:
        """Read the chat as it is now; see `Subscriber.snapshot`."""
        keys = self.client.keys.chat(check_id("chat_id", chat_id))
        return await read_snapshot(self.client.chats, keys, chat_id, _now_ms())

    async def open_messages(self, chat_id: str) -> list[str]:
        """Read which messages of a chat are open; see `read_open`."""
        return await read_open(self.client.chats, self.client.keys.chat(chat_id))

    async def stop(
        self,
        chat_id: str,
        message_id: str | None = None,
        *,
        reason: str = STOPPED_BY_A_READER,
        user: str | None = None,
    ) -> list[str]:
        """Stop a reply; see `Subscriber.stop`. With *user*: only in a chat that is this user's then."""
        keys = self.client.keys.chat(check_id("chat_id", chat_id))
        if message_id is None:
            message_ids = await read_open(self.client.chats, keys)
        else:
            message_ids = [check_id("message_id", message_id)]
        marked = []
        for candidate in message_ids:
            reply = await scripts.stop(
                self.client.chats, keys, message_id=candidate, reason=reason, user=user
            )
            if reply.status == "marked":
                marked.append(candidate)
                if reply.unread and not reply.owner:
                    await request_owner(self.client, chat_id, term=reply.term)
        return marked

    async def catch_up(
        self, chat_id: str, cursor: ReaderCursor, verdict: Verdict
    ) -> AsyncGenerator[Event, None]:
        """
        Read what *verdict* requires: a snapshot, the log after the cursor, or nothing.

        Args:
            chat_id: The chat.
            cursor: Moves with each event.
            verdict: What the cursor decided.

        Raises:
            BrokerUnavailable: Redis did not answer; call again with the same cursor.
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
        """Read the log after the cursor; yields None and ends where a snapshot is needed."""
        chats, keys = self.client.chats, self.client.keys.chat(chat_id)
        while True:
            after = cursor.position.seq
            page = await read_log(chats, keys, after=after, count=_PAGE_EVENTS)
            for raw in page:
                event = Event(raw)
                if cursor.judge_logged(event) is not Verdict.DELIVER:
                    yield None
                    return
                yield event
            if len(page) < _PAGE_EVENTS:
                return

    async def head_position(self, chat_id: str) -> Position | None:
        """
        Read where a chat's log ends; None: there is no log.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        return await read_position(self.client.chats, self.client.keys.chat(chat_id))


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
