"""One connection of sharded pub/sub, from its first subscription to its end."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any, Final, Protocol

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from riverdelta.broker.redis.wire import Wire

_PING_S: Final = 1.0
_SILENCE_S: Final = 3.0
"""No byte for three pings: the server is frozen or the network is gone. TCP notices only after minutes."""


class LinkOwner(Protocol):
    """Callbacks of a link; all are called on the loop and must not block."""

    def on_subscribed(self, link: PubSubLink, channel: str, /) -> None:
        """Note that the server has confirmed *channel*."""

    def on_dropped(self, link: PubSubLink, channel: str, /) -> None:
        """Handle a subscription that the server ended: it was demoted, or the slot moved."""

    def on_error(self, link: PubSubLink, error: RedisError, /) -> None:
        """Handle an error that the server replied."""

    def on_end(self, link: PubSubLink, /) -> None:
        """Handle the end of the connection. Called once."""


class PubSubLink:
    """
    Subscribe and pass messages on; ends when the server is silent or gone.

    Args:
        connection: Connected, with no reply outstanding; the link owns it from here on.
        run_id: ``run_id`` of the server.
        owner: Gets everything but messages.
        on_message: Called with channel and payload of each message.
    """

    def __init__(
        self,
        connection: Connection,
        run_id: str,
        owner: LinkOwner,
        on_message: Callable[[str, bytes], None],
    ) -> None:
        self.run_id = run_id
        self._owner = owner
        self._on_message = on_message
        self._leaving: Counter[str] = Counter()
        self._loop = asyncio.get_running_loop()
        self._received_at = self._loop.time()
        self.wire = Wire(connection, self._take, lambda _: self._ended())
        self._pinger = asyncio.create_task(self._ping(), name="riverdelta-pubsub-ping")

    @property
    def ended(self) -> BaseException | str | None:
        """Why it ended; None while it is alive."""
        return self.wire.ended

    def subscribe(self, channels: Collection[str]) -> None:
        """Subscribe to *channels*, one command each: their slots may differ."""
        pack = self.wire.pack
        if channels:
            self.wire.write(b"".join([pack(("SSUBSCRIBE", channel)) for channel in channels]))

    def unsubscribe(self, channel: str) -> None:
        """Unsubscribe from a channel."""
        self._leaving[channel] += 1
        self.wire.send("SUNSUBSCRIBE", channel)

    @property
    def leaving(self) -> list[str]:
        """Channels whose SUNSUBSCRIBE is under way."""
        return list(self._leaving)

    def has_left(self, channel: str) -> None:
        """Note that a SUNSUBSCRIBE was answered, if only by an error."""
        self._leaving -= Counter((channel,))  # keeps no zeros

    def end(self, reason: BaseException | str) -> None:
        """Stop passing messages on."""
        self.wire.end(reason)

    async def aclose(self) -> None:
        """End it and close its connection."""
        await self.wire.aclose()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pinger

    def _ended(self) -> None:
        self._pinger.cancel()
        self._owner.on_end(self)

    def _take(self, reply: Any) -> None:  # as the server sends it
        self._received_at = self._loop.time()
        if self.ended is not None:
            return  # it came in the same read as the reason of the end
        if isinstance(reply, RedisError):
            self._owner.on_error(self, reply)
            return
        if not isinstance(reply, list):
            return  # PONG before the first subscription
        kind = reply[0]
        if kind == b"smessage":
            self._on_message(reply[1].decode(), reply[2])
        elif kind == b"ssubscribe":
            channel = reply[1].decode()
            # While an SUNSUBSCRIBE is under way, this confirms an older SSUBSCRIBE.
            if channel not in self._leaving:
                self._owner.on_subscribed(self, channel)
        elif kind == b"sunsubscribe":
            channel = reply[1].decode()
            if channel in self._leaving:
                self.has_left(channel)
            else:
                self._owner.on_dropped(self, channel)

    async def _ping(self) -> None:
        while True:
            await asyncio.sleep(_PING_S)
            if self._loop.time() - self._received_at > _SILENCE_S:
                break
            self.wire.send("PING")
        self.end(f"silent for {_SILENCE_S:g} s")
