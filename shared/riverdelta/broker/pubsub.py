"""One connection for sharded pub/sub: subscribes, notices silence, reconnects and subscribes again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import Connection
from redis.exceptions import RedisError, ResponseError

from riverdelta.broker.connection import Endpoint
from riverdelta.broker.wire import Wire
from riverdelta.core.errors import BrokerUnavailable, ServerTooOld

_PING_S: Final = 1.0
_SILENCE_S: Final = 3.0
"""No byte for three pings: the server is frozen or the network gone; TCP would not say for minutes."""
_BACKOFF_S: Final = (0.05, 0.1, 0.2, 0.4, 0.8)

_log = logging.getLogger("riverdelta.pubsub")


class ShardedPubSub:
    """
    Subscribes to shard channels over one connection of its own.

    Args:
        on_message: Called with channel and payload of each message, in order, on the loop. It must
            not block.
        on_gap: Called after a reconnect, when every channel is subscribed again: messages may have
            been missed.
    """

    def __init__(
        self,
        url: str,
        command_timeout_s: float,
        *,
        on_message: Callable[[str, bytes], None],
        on_gap: Callable[[], None],
    ) -> None:
        self._endpoint = Endpoint(url, command_timeout_s)
        self._on_message = on_message
        self._on_gap = on_gap
        self._wanted: dict[str, asyncio.Future[None]] = {}
        self._leaving: Counter[str] = Counter()
        self._wire: Wire | None = None
        self._task: asyncio.Task[None] | None = None
        self._heard_at = 0.0
        self._unconfirmed_after_gap: set[str] | None = None
        self.run_id: str | None = None

    async def start(self) -> None:
        """
        Connect and begin to listen.

        Raises:
            BrokerUnavailable: No server there.
        """
        connection, self.run_id = await self._endpoint.connect()
        self._task = asyncio.create_task(self._run(connection), name="riverdelta-pubsub")

    async def aclose(self) -> None:
        """Stop listening and close."""
        if self._task is None:
            return
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        for future in self._wanted.values():
            self._withdraw(future, "this client was closed")

    async def subscribe(self, channel: str) -> None:
        """
        Subscribe, and return when the server has confirmed it (after a reconnect, if need be).

        Raises:
            BrokerUnavailable: No confirmation within the command timeout; the wish is withdrawn.
        """
        future = self._wanted.get(channel)
        if future is None:
            future = self._wanted[channel] = asyncio.get_running_loop().create_future()
            self._send("SSUBSCRIBE", channel)
        try:
            async with asyncio.timeout(self._endpoint.command_timeout_s):
                await asyncio.shield(future)
        except TimeoutError:
            if self._wanted.get(channel) is future:
                await self.unsubscribe(channel)
            raise self._endpoint.unavailable("no answer to SSUBSCRIBE") from None

    async def unsubscribe(self, channel: str) -> None:
        """Leave a channel; unknown ones are fine."""
        future = self._wanted.pop(channel, None)
        if future is not None:
            self._withdraw(future, "no answer to SSUBSCRIBE")
            self._leaving[channel] += 1
            self._send("SUNSUBSCRIBE", channel)

    def _withdraw(self, future: asyncio.Future[None], reason: str) -> None:
        """Tell whoever else waits for the confirmation that it will not come."""
        if not future.done():
            future.set_exception(self._endpoint.unavailable(reason))
            future.exception()  # perhaps nobody waits

    def _send(self, command: str, channel: str) -> None:
        if self._wire is not None:  # else: the next connection subscribes to all that is wanted
            self._wire.send(command, channel)

    async def _run(self, connection: Connection) -> None:
        failures = 0
        while True:
            began = asyncio.get_running_loop().time()
            reason = await self._serve(connection)
            _log.warning("pub/sub connection to %s lost: %s", self._endpoint, reason)
            lasted = asyncio.get_running_loop().time() - began > _PING_S
            failures = 0 if lasted else failures + 1
            while True:
                await asyncio.sleep(_BACKOFF_S[min(failures, len(_BACKOFF_S) - 1)])
                try:
                    connection, self.run_id = await self._endpoint.connect()
                except (BrokerUnavailable, ServerTooOld):
                    failures += 1
                else:
                    break

    async def _serve(self, connection: Connection) -> BaseException | str:
        """Subscribe to all that is wanted, and hand messages on until the connection fails; why."""
        over = asyncio.Event()
        self._leaving.clear()
        self._heard_at = asyncio.get_running_loop().time()
        # Only now may `subscribe` write on it: what is wanted already is sent right here.
        self._wire = wire = Wire(connection, self._take, lambda _: over.set())
        pinger = asyncio.create_task(self._ping(wire), name="riverdelta-pubsub-ping")
        try:
            if self._wanted:
                self._unconfirmed_after_gap = set(self._wanted)
                wire.send("SSUBSCRIBE", *self._wanted)
            else:
                self._on_gap()
            await over.wait()
        finally:
            self._wire = self.run_id = None
            pinger.cancel()
            await wire.aclose()
        return wire.ended or ""

    def _take(self, reply: Any) -> None:  # as the server sends it
        self._heard_at = asyncio.get_running_loop().time()
        if isinstance(reply, RedisError):
            raise reply
        if not isinstance(reply, list):
            return  # PONG before the first subscription
        kind, channel = reply[0], reply[1].decode()
        if kind == b"smessage":
            self._on_message(channel, reply[2])
        elif kind == b"ssubscribe":
            self._confirmed(channel)
        elif kind == b"sunsubscribe":
            if channel in self._leaving:
                self._leaving -= Counter((channel,))  # keeps no zeros
            elif channel in self._wanted:
                # A demoted primary, or a slot that moved, ends subscriptions on its own.
                message = f"server ended the subscription to {channel}"
                raise ResponseError(message)

    def _confirmed(self, channel: str) -> None:
        future = self._wanted.get(channel)
        # While we are still leaving it, this confirms the wish before that.
        if future is not None and not future.done() and channel not in self._leaving:
            future.set_result(None)
        if self._unconfirmed_after_gap is not None:
            self._unconfirmed_after_gap.discard(channel)
            if not self._unconfirmed_after_gap:
                self._unconfirmed_after_gap = None
                self._on_gap()

    async def _ping(self, wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_PING_S)
            if loop.time() - self._heard_at > _SILENCE_S:
                break
            wire.send("PING")
        wire.end(f"silent for {_SILENCE_S:g} s")
