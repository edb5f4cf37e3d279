"""One subscription per chat and process, however many readers follow the chat."""

from __future__ import annotations

import logging
from collections.abc import Collection
from typing import Final

from riverdelta.broker.client import Client
from riverdelta.broker.loop import Loop
from riverdelta.broker.reader.feed import Feed

_QUIET_S: Final = 1.0
"""A reader that got nothing for this long compares with the head."""

_log = logging.getLogger("riverdelta.subscriber")


class Feeds(Loop):
    """
    Pass the events of each channel to its feeds; as a loop, make quiet feeds compare with the head.

    Args:
        client: Makes the subscriptions; close it after this.
    """

    def __init__(self, client: Client) -> None:
        super().__init__(_QUIET_S, _log)
        self._feeds: dict[str, list[Feed]] = {}
        self._pubsub = client.pubsub(on_message=self._on_message, on_gap=self._on_gap)

    async def start(self) -> None:
        """
        Connect, and start the loop.

        Raises:
            BrokerUnavailable: No server there.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """
        await self._pubsub.start()
        await super().start()

    async def exec(self) -> None:
        """Make each quiet feed compare with the head."""
        for feeds in self._feeds.values():
            for feed in feeds:
                feed.tick()

    async def shutdown(self) -> None:
        """Disconnect."""
        await super().shutdown()
        await self._pubsub.aclose()

    def wake_all(self) -> None:
        """Wake every reader, which then finds that its client is closed."""
        self._on_gap(list(self._feeds))

    async def join(self, channel: str) -> Feed:
        """
        Make a feed of a channel; it gets every event that is published from now on.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        feed = Feed()
        self._feeds.setdefault(channel, []).append(feed)
        try:
            await self._pubsub.subscribe(channel)
        except BaseException:
            await self.leave(channel, feed)
            raise
        return feed

    async def leave(self, channel: str, feed: Feed) -> None:
        """Remove a feed; the last one ends the subscription."""
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
