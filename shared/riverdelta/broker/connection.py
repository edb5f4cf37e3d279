"""
One connection to a Redis server that pipelines by itself.

All coroutines of a process share it: their commands are packed as they come, written together once
an event-loop turn, and answered in order. That halves the cost of a push against a connection pool,
and gives reads and commits of many chats one round trip without anybody building a pipeline.

It uses redis-py's `Connection` for everything up to a ready connection (URL, TLS, AUTH, SELECT).
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Any, Final

from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from riverdelta.broker.wire import Arg, Wire, close_connection
from riverdelta.core.errors import BrokerUnavailable, ServerTooOld, SettingsError

__all__ = ["Arg", "Endpoint", "Executor"]

_MIN_VERSION: Final = (7, 0)
"""First Redis with sharded pub/sub and script flags. Valkey says 7.2.4 here, for all its versions."""


class Endpoint:
    """
    Where a server is, read from a URL; makes connections to it.

    Raises:
        SettingsError: The URL cannot be used; the text says what it may be.
    """

    def __init__(self, url: str, command_timeout_s: float) -> None:
        try:
            options: dict[str, Any] = dict(parse_url(url))
        except ValueError as error:
            message = f"Redis URL cannot be used: {error}"
            raise SettingsError(message) from error
        self._class: type[Connection] = options.pop("connection_class", Connection)
        self._options = options
        self.command_timeout_s = command_timeout_s

    def __str__(self) -> str:
        """Name the server for people: never the password."""
        if "path" in self._options:
            return str(self._options["path"])
        return f"{self._options.get('host', 'localhost')}:{self._options.get('port', 6379)}"

    async def connect(self) -> tuple[Connection, str]:
        """
        Open a connection and check the server.

        Returns:
            The connection, and the ``run_id`` of the server behind it.

        Raises:
            BrokerUnavailable: No server, no answer, or wrong credentials.
            ServerTooOld: It answered, and lacks what riverdelta needs.
        """
        connection = self._class(
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            socket_connect_timeout=self.command_timeout_s,
            **self._options,
        )
        try:
            async with asyncio.timeout(self.command_timeout_s):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py 5
                await connection.send_command("INFO", "server")
                info = await connection.read_response()
        except (RedisError, OSError, TimeoutError) as error:
            await close_connection(connection)
            raise self.unavailable(error) from error
        except asyncio.CancelledError:
            await close_connection(connection)
            raise
        facts = _parse_info(info)
        version = facts.get("redis_version", "0")
        if tuple(int(part) for part in version.split(".")[:2]) < _MIN_VERSION:
            await close_connection(connection)
            message = f"Redis at {self} is version {version}: use Redis >= 7.0 or Valkey >= 7.2"
            raise ServerTooOld(message)
        return connection, facts.get("run_id", "")

    def unavailable(self, error: BaseException | str) -> BrokerUnavailable:
        """Say that this server cannot be used now, and why."""
        reason = str(error) or type(error).__name__
        message = f"Redis at {self} cannot be used: {reason}"
        return BrokerUnavailable(message)


class Executor:
    """
    Commands to one server over one connection; connects at need, and again after a failure.

    Use it from one event loop. `aclose` ends it.
    """

    def __init__(self, url: str, command_timeout_s: float) -> None:
        self.endpoint = Endpoint(url, command_timeout_s)
        self._link: _Link | None = None
        self._connecting: asyncio.Task[_Link] | None = None
        self.closed = False

    async def execute(self, *args: Arg) -> Any:  # a reply is what the command gives
        """
        Send one command and return its reply, undecoded.

        Raises:
            BrokerUnavailable: No reply came; whether the command took effect is unknown.
            redis.exceptions.ResponseError: The server answered with an error.
        """
        link = self._link
        if link is None or link.failed:
            link = await self._connected()
        return await link.send(args)

    async def connected_run_id(self) -> str:
        """``run_id`` of the server the next command goes to."""
        return (await self._connected()).run_id

    @property
    def run_id(self) -> str | None:
        """``run_id`` of the server behind the live connection; None while there is none."""
        return None if self._link is None or self._link.failed else self._link.run_id

    async def aclose(self) -> None:
        """Close the connection; commands under way fail with `BrokerUnavailable`."""
        self.closed = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.wait((self._connecting,))
        if self._link is not None:
            await self._link.aclose()

    async def _connected(self) -> _Link:
        """Get a live link; all who ask during an attempt share it, and its failure."""
        if self.closed:
            raise self.endpoint.unavailable("this client was closed")
        if self._link is not None and not self._link.failed:
            return self._link
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._connect(), name="riverdelta-connect")
            # Its failure is known to whoever still waits; perhaps nobody does.
            self._connecting.add_done_callback(lambda task: task.cancelled() or task.exception())
        connecting = self._connecting
        # Not ours alone: that one caller is cancelled must not cut the others off.
        await asyncio.wait((connecting,))
        if connecting.cancelled():
            raise self.endpoint.unavailable("this client was closed")
        return connecting.result()

    async def _connect(self) -> _Link:
        try:
            if self._link is not None:
                await self._link.aclose()
            connection, run_id = await self.endpoint.connect()
            self._link = _Link(self.endpoint, connection, run_id)
            return self._link
        finally:
            self._connecting = None


class _Link:
    """One live connection: packs, writes once a loop turn, gives each reply to whoever asked."""

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
        """Send one command, or queue it behind those under way; the future is its reply."""
        if self.failed:
            raise self._endpoint.unavailable("connection lost")
        future: asyncio.Future[Any] = self._loop.create_future()
        packed = self._pack(args)
        if not self._waiting:
            self._progress_at = self._loop.time()
            self._wire.write(packed)  # nobody to wait for: a lone command saves a loop turn
        else:
            if not self._out:
                self._loop.call_soon(self._flush)
            self._out.append(packed)
        self._waiting.append(future)
        if self._watchdog is None:
            self._watch()
        return future

    async def aclose(self) -> None:
        """Close; whoever still waits gets `BrokerUnavailable`."""
        await self._wire.aclose()

    def _flush(self) -> None:
        out, self._out = self._out, []
        self._wire.write(out[0] if len(out) == 1 else b"".join(out))

    def _answer(self, reply: Any) -> None:  # a reply is what the command gives
        self._progress_at = self._loop.time()
        if isinstance(reply, RedisError) and not isinstance(reply, ResponseError):
            raise reply  # it loads its data, or refuses us: redis-py counts that as no connection
        future = self._waiting.popleft()
        if future.done():
            return  # its caller was cancelled
        if isinstance(reply, ResponseError):
            future.set_exception(reply)
        else:
            future.set_result(reply)

    def _watch(self) -> None:
        """Fail the connection when the oldest command got no reply for the timeout."""
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


def _parse_info(info: bytes | str) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else info
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}
