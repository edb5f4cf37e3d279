"""
One connection to a Redis server that pipelines by itself.

All coroutines of a process share it: their commands are packed as they come, written together once
per event-loop turn, and answered in order. A push costs half of what it costs with a connection pool,
and reads and commits of many chats share one round trip.

It uses redis-py's `Connection` for everything up to a ready connection (URL, TLS, AUTH, SELECT).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any

from redis.asyncio.connection import Connection
from redis.exceptions import ReadOnlyError, RedisError, ResponseError

from riverdelta.broker.redis.endpoint import Endpoint, endpoint_of
from riverdelta.broker.redis.wire import Arg, Wire
from riverdelta.core.errors import BrokerUnavailable

__all__ = ["Arg", "Endpoint", "Executor", "Link"]


class Executor:
    """
    Execute commands on one server over one connection; connects at need, and again after a failure.

    Use it from one event loop. `aclose` ends it.
    """

    def __init__(self, url: str, command_timeout_s: float) -> None:
        self.endpoint = endpoint_of(url, command_timeout_s)
        self._link: Link | None = None
        self._connecting: asyncio.Task[Link] | None = None
        self.closed = False

    async def execute(self, *args: Arg) -> Any:  # the command's reply
        """
        Send one command and return its reply, undecoded.

        Raises:
            BrokerUnavailable: No reply came; whether the command took effect is unknown.
            redis.exceptions.ResponseError: The server answered with an error.
        """
        link = self._link
        if link is None or link.failed:
            link = await self.connected()
        return await link.send(args)

    async def connect(self) -> None:
        """Connect now rather than at the first command; raises as `connected`."""
        await self.connected()

    @property
    def live(self) -> Link | None:
        """The live connection; None while there is none."""
        return None if self._link is None or self._link.failed else self._link

    @property
    def run_id(self) -> str | None:
        """``run_id`` of the server behind the live connection; None while there is none."""
        return None if self._link is None or self._link.failed else self._link.run_id

    def run_id_for(self, _key: str) -> str | None:
        """`run_id`: every key is on this server."""
        return self.run_id

    def unavailable(self, error: BaseException | str) -> BrokerUnavailable:
        """Make the error that the server cannot be used now, with its reason."""
        return self.endpoint.unavailable(error)

    async def aclose(self) -> None:
        """Close the connection; commands under way fail with `BrokerUnavailable`."""
        self.closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        if self._link is not None:
            await self._link.aclose()

    async def connected(self) -> Link:
        """
        Return a live connection; concurrent callers share one attempt, and its failure.

        Raises:
            BrokerUnavailable: No server there; nothing was sent.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """
        if self.closed:
            raise self.endpoint.unavailable("this client was closed")
        if self._link is not None and not self._link.failed:
            return self._link
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="riverdelta-connect")
            # Fetch its exception here: asyncio warns of one that no caller fetches.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        connecting = self._connecting
        # Shared: a cancelled caller must not cancel the others.
        await asyncio.wait((connecting,))
        if connecting.cancelled():
            raise self.endpoint.unavailable("this client was closed")
        return connecting.result()

    async def _connect(self) -> Link:
        try:
            if self._link is not None:
                await self._link.aclose()
            connection, run_id = await self.endpoint.connect()
            self._link = self._make_link(connection, run_id)
            return self._link
        finally:
            self._connecting = None

    def _make_link(self, connection: Connection, run_id: str) -> Link:
        return Link(self.endpoint, connection, run_id)


class Link:
    """One live connection: packs commands, writes once per loop turn, gives each caller its reply."""

    def __init__(self, endpoint: Endpoint, connection: Connection, run_id: str) -> None:
        self.run_id = run_id
        self.failed = False
        self._endpoint = endpoint
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._progress_at = self._loop.time()
        self._watchdog: asyncio.TimerHandle | None = None
        self._wire = Wire(connection, self._answer, self._fail)
        self._pack = self._wire.pack

    def send(self, args: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """Send one command, or queue it behind those under way; the future gets its reply."""
        if self.failed:
            raise self._endpoint.unavailable("connection lost")
        future: asyncio.Future[Any] = self._loop.create_future()
        packed = self._pack(args)
        if not self._waiting:
            self._progress_at = self._loop.time()
            self._wire.write(packed)  # nothing under way: writing at once saves a loop turn
        else:
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(packed)
        self._waiting.append(future)
        if self._watchdog is None:
            self._watch()
        return future

    def send_asking(self, args: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """Send a command after ASKING: the node executes it although it does not have the slot yet."""
        asking = self.send(("ASKING",))
        asking.add_done_callback(lambda reply: reply.cancelled() or reply.exception())
        return self.send(args)

    async def aclose(self) -> None:
        """Close; commands without a reply fail with `BrokerUnavailable`."""
        await self._wire.aclose()

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._wire.write(out[0] if len(out) == 1 else b"".join(out))

    def _answer(self, reply: Any) -> None:  # the command's reply
        self._progress_at = self._loop.time()
        if isinstance(reply, RedisError) and (
            not isinstance(reply, ResponseError) or isinstance(reply, ReadOnlyError)
        ):
            # The server is loading its data or refuses us, which redis-py counts as a lost connection;
            # or it is a replica by now: connect again, to the primary.
            raise reply
        future = self._waiting.popleft()
        if future.done():
            return  # its caller was cancelled
        if isinstance(reply, ResponseError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _watch(self) -> None:
        """Fail the connection if no reply came for the command timeout."""
        self._watchdog = None
        if self.failed or not self._waiting:
            return
        left = self._progress_at + self._endpoint.command_timeout_s - self._loop.time()
        if left <= 0:
            self._wire.end(f"no reply for {self._endpoint.command_timeout_s:g} s")
        else:
            self._watchdog = self._loop.call_later(left, self._watch)

    def _fail(self, reason: BaseException | str) -> None:
        self.failed = True
        if self._watchdog is not None:
            self._watchdog.cancel()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(self._endpoint.unavailable(reason))
