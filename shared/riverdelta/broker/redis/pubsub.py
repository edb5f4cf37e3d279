"""Sharded pub/sub with one server: subscribe, notice silence, reconnect and subscribe again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from typing import Final

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError

from riverdelta.broker.redis.endpoint import endpoint_of
from riverdelta.broker.redis.pubsub_link import PubSubLink
from riverdelta.core.errors import BrokerUnavailable, ServerTooOld

STEADY_S: Final = 1.0
"""After a connection of this length, the next failure counts as the first."""
BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)

OnMessage = Callable[[str, bytes], None]
OnGap = Callable[[Collection[str]], None]

_log = logging.getLogger("riverdelta.pubsub")


class PubSub(ABC):
    """
    Subscribe to shard channels, over separate connections.

    Args:
        command_timeout_s: How long a subscription may take.
        on_message: Called with channel and payload of each message, in order, on the loop. It must
            not block.
        on_gap: Called with channels that were lost for a while and are subscribed again: messages
            may have been missed.
    """

    def __init__(self, command_timeout_s: float, on_message: OnMessage, on_gap: OnGap) -> None:
        self._on_message = on_message
        self._on_gap = on_gap
        self._timeout_s = command_timeout_s
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._missing: set[str] = set()

    @abstractmethod
    async def start(self) -> None:
        """
        Connect and begin to listen.

        Raises:
            BrokerUnavailable: No server there.
        """

    @abstractmethod
    def run_id_for(self, channel: str) -> str | None:
        """``run_id`` of the server that *channel* is subscribed at; None while there is none."""

    @abstractmethod
    def unavailable(self, reason: str) -> BrokerUnavailable:
        """Make the error that the server cannot be used now, with its reason."""

    async def aclose(self) -> None:
        """Stop listening and close."""
        for future in self._wanted.values():
            self._withdraw(future, "this client was closed")

    async def subscribe(self, channel: str) -> None:
        """
        Subscribe, and return when the server has confirmed it (after a reconnect, if need be).

        Raises:
            BrokerUnavailable: No confirmation within the command timeout; not subscribed.
        """
        future = self._wanted.get(channel)
        if future is None:
            future = self._wanted[channel] = asyncio.get_running_loop().create_future()
            self._ask_for(channel)
        try:
            async with asyncio.timeout(self._timeout_s):
                await asyncio.shield(future)
        except TimeoutError:
            if self._wanted.get(channel) is future:
                await self.unsubscribe(channel)
            raise self.unavailable("no answer to SSUBSCRIBE") from None

    async def unsubscribe(self, channel: str) -> None:
        """Unsubscribe from a channel; does nothing for an unknown one."""
        future = self._wanted.pop(channel, None)
        if future is not None:
            self._missing.discard(channel)
            self._withdraw(future, "no answer to SSUBSCRIBE")
            self._leave(channel)

    @abstractmethod
    def _ask_for(self, channel: str) -> None:
        """Send SSUBSCRIBE, now or as soon as there is a connection."""

    @abstractmethod
    def _leave(self, channel: str) -> None:
        """Send SUNSUBSCRIBE, if there is a connection."""

    def _withdraw(self, future: asyncio.Future[None], reason: str) -> None:
        """Fail the other callers that wait for the same confirmation."""
        if not future.done():
            future.set_exception(self.unavailable(reason))
            future.exception()  # fetched: asyncio warns of one that no caller fetches

    # -- what links call -------------------------------------------------------------------------

    def on_subscribed(self, _link: PubSubLink, channel: str) -> None:
        """Note that the server has confirmed *channel*."""
        future = self._wanted.get(channel)
        if future is not None and not future.done():
            future.set_result(None)
        if channel in self._missing:
            self._missing.discard(channel)
            self._on_gap((channel,))

    @abstractmethod
    def on_dropped(self, link: PubSubLink, channel: str) -> None:
        """Handle a subscription that the server ended by itself."""

    @abstractmethod
    def on_error(self, link: PubSubLink, error: RedisError) -> None:
        """Handle an error that the server replied."""

    @abstractmethod
    def on_end(self, link: PubSubLink) -> None:
        """Handle the end of the connection."""


class ShardedPubSub(PubSub):
    """`PubSub` with the one server of *url* (or the primary that its sentinels name)."""

    def __init__(
        self, url: str, command_timeout_s: float, *, on_message: OnMessage, on_gap: OnGap
    ) -> None:
        super().__init__(command_timeout_s, on_message, on_gap)
        self._endpoint = endpoint_of(url, command_timeout_s)
        self._link: PubSubLink | None = None
        self._task: asyncio.Task[None] | None = None
        self._over = asyncio.Event()

    async def start(self) -> None:
        """Connect and begin to listen; see `PubSub.start`."""
        link = self._listen(*await self._endpoint.connect())
        self._task = asyncio.create_task(self._run(link), name="riverdelta-pubsub")

    async def aclose(self) -> None:
        """Stop listening and close."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        link, self._link = self._link, None
        if link is not None:
            await link.aclose()
        await super().aclose()

    def run_id_for(self, _channel: str) -> str | None:
        """``run_id`` of the server behind the live connection; None while there is none."""
        return None if self._link is None else self._link.run_id

    def unavailable(self, reason: str) -> BrokerUnavailable:
        """Make the error that the server cannot be used now, with its reason."""
        return self._endpoint.unavailable(reason)

    def _ask_for(self, channel: str) -> None:
        if self._link is not None:  # else the next connection subscribes to all wanted channels
            self._link.subscribe((channel,))

    def _leave(self, channel: str) -> None:
        if self._link is not None:
            self._link.unsubscribe(channel)

    def on_dropped(self, link: PubSubLink, channel: str) -> None:
        """Connect again: only a primary that was demoted does this."""
        if channel in self._wanted:
            link.end(f"server ended the subscription to {channel}")

    def on_error(self, link: PubSubLink, error: RedisError) -> None:
        """Connect again, after a pause: the server may let us subscribe then."""
        link.end(error)

    def on_end(self, link: PubSubLink) -> None:
        """Connect again."""
        if link is not self._link:
            return  # closed by ourselves
        _log.warning("pub/sub connection to %s lost: %s", self._endpoint, link.ended)
        self._link = None
        self._missing = set(self._wanted)
        self._over.set()

    def _listen(self, connection: Connection, run_id: str) -> PubSubLink:
        self._over.clear()
        self._link = PubSubLink(connection, run_id, self, self._on_message)
        self._link.subscribe(self._wanted)
        return self._link

    async def _run(self, link: PubSubLink) -> None:
        """Connect again whenever the connection ended."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            connected_at = loop.time()
            await self._over.wait()
            await link.aclose()
            failures = 0 if loop.time() - connected_at > STEADY_S else failures + 1
            while self._link is None:
                await asyncio.sleep(BACKOFF_S[min(failures, len(BACKOFF_S) - 1)])
                failures += 1
                with contextlib.suppress(BrokerUnavailable, ServerTooOld):
                    link = self._listen(*await self._endpoint.connect())
