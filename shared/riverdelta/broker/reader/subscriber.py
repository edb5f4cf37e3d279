"""Follow chats: the interface for gateways and all other readers."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Self

from riverdelta.broker.reader.chat_reader import STOPPED_BY_A_READER, ChatReader
from riverdelta.broker.settings import Settings
from riverdelta.core.events import Event


class Subscriber:
    """
    Follow chats. One per process: readers of one chat share one subscription.

    Use as an async context manager::

        async with Subscriber.from_url("redis://localhost:6379") as subscriber:
            async for event in subscriber.events("chat-1"):
                print(event.position, event.type, event.data)

    Args:
        settings: Unset: from ``RIVERDELTA_*``.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._reader = ChatReader(settings or Settings())

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
        await self._reader.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close; iterators that are still open end with `BrokerUnavailable`."""
        await self._reader.__aexit__()

    def events(self, chat_id: str, after: str | None = None) -> AsyncGenerator[Event, None]:
        """
        Iterate over a chat's events; never ends by itself; continues when Redis comes back.

        Args:
            chat_id: The chat; it need not exist yet.
            after: ``event.position`` of the last event you have: you get exactly what follows it.
                None, or a position that is void by now (another epoch, of the future, or older than
                the log): first a ``snapshot`` event, then what follows that.

        Raises:
            InvalidIdError, InvalidPositionError: (``ValueError``) a caller bug.
            BrokerUnavailable: The subscriber was closed, or Redis did not answer at the start.
        """
        return self._reader.events(chat_id, after)

    async def snapshot(self, chat_id: str) -> Event:
        """
        Read the chat as it is now.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        return await self._reader.snapshot(chat_id)

    async def stop(
        self, chat_id: str, message_id: str | None = None, *, reason: str = STOPPED_BY_A_READER
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
        return await self._reader.stop(chat_id, message_id, reason=reason)
