"""
One connection to a Redis server that pipelines by itself.

All coroutines of a process share it: their commands are packed as they come, written together once
an event-loop turn, and answered in order. That halves the cost of a push against a connection pool,
and gives reads and commits of many chats one round trip without anybody building a pipeline.

It uses redis-py's `Connection` for everything up to a ready connection (URL, TLS, AUTH, SELECT).
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import Connection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, RedisError, ResponseError

from riverdelta.core.errors import BrokerUnavailable, ServerTooOld, SettingsError

_MIN_VERSION: Final = (7, 0)
"""First Redis with sharded pub/sub and script flags. Valkey says 7.2.4 here, for all its versions."""

Arg = bytes | str | int | float

_hiredis_pack: Callable[[tuple[Arg, ...]], bytes] | None = None
_HiredisReader: Callable[..., Any] | None = None
with contextlib.suppress(ImportError):  # optional: redis-py's own do the same, slower
    from hiredis import Reader, pack_command

    _hiredis_pack = pack_command  # type: ignore[assignment]  # its stub says: a tuple of one
    _HiredisReader = Reader

_NO_REPLY_YET: Final = object()


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
            await _close(connection)
            raise self.unavailable(error) from error
        facts = _parse_info(info)
        version = facts.get("redis_version", "0")
        if tuple(int(part) for part in version.split(".")[:2]) < _MIN_VERSION:
            await _close(connection)
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
        self._connecting = asyncio.Lock()
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
        if self._link is not None:
            await self._link.aclose()

    async def _connected(self) -> _Link:
        async with self._connecting:
            if self.closed:
                raise self.endpoint.unavailable("this client was closed")
            if self._link is None or self._link.failed:
                if self._link is not None:
                    await self._link.aclose()
                connection, run_id = await self.endpoint.connect()
                self._link = _Link(self.endpoint, connection, run_id)
            return self._link


class _Link(asyncio.Protocol):
    """
    One live connection: packs, writes once a loop turn, hands replies out in order.

    With hiredis it takes the place of the stream reader: replies are read where their bytes come in,
    without a task that has to wake up first.
    """

    def __init__(self, endpoint: Endpoint, connection: Connection, run_id: str) -> None:
        self.run_id = run_id
        self.failed = False
        self._endpoint = endpoint
        self._connection = connection
        self._pack = _packer(connection)
        self._out: list[bytes] = []
        self._waiting: deque[asyncio.Future[Any]] = deque()
        self._loop = asyncio.get_running_loop()
        self._progress_at = self._loop.time()
        self._reader: asyncio.Task[None] | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        writer = connection._writer  # noqa: SLF001  # redis-py names no way to its transport
        if _HiredisReader is None or writer is None:
            self._reader = asyncio.create_task(self._read(), name="riverdelta-replies")
        else:
            parse_error = connection._parser.parse_error  # noqa: SLF001  # to redis-py's exceptions
            self._replies = _HiredisReader(
                protocolError=InvalidResponse, replyError=parse_error, notEnoughData=_NO_REPLY_YET
            )
            writer.transport.set_protocol(self)

    def send(self, args: tuple[Arg, ...]) -> asyncio.Future[Any]:
        """Queue one command; the future is its reply."""
        future: asyncio.Future[Any] = self._loop.create_future()
        packed = self._pack(args)
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(packed)
        if not self._waiting:
            self._progress_at = self._loop.time()
        self._waiting.append(future)
        if self._watchdog is None:
            self._watch()
        return future

    async def aclose(self) -> None:
        """Close; whoever still waits gets `BrokerUnavailable`."""
        self._fail("connection closed")
        if self._reader is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await _close(self._connection)

    def _flush(self) -> None:
        out, self._out = self._out, []
        writer = self._connection._writer  # noqa: SLF001  # its public way to write costs a task a turn
        if self.failed or writer is None:
            self._fail("connection lost")
            return
        writer.write(out[0] if len(out) == 1 else b"".join(out))

    def data_received(self, data: bytes) -> None:
        """Take what came in; after a failure nobody waits for it any more."""
        if self.failed:
            return
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not _NO_REPLY_YET:
                self._answer(reply)
        except RedisError as error:  # no protocol at all: whatever comes next cannot be read either
            self._fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note: whoever still waits gets `BrokerUnavailable`."""
        self._fail(exc or "the server closed the connection")

    async def _read(self) -> None:
        """Do what the two above do, without hiredis."""
        try:
            while True:
                try:
                    reply = await self._connection.read_response(disable_decoding=True)
                except ResponseError as error:
                    self._answer(error)
                else:
                    self._answer(reply)
        except (RedisError, OSError) as error:
            self._fail(error)

    def _answer(self, reply: Any) -> None:  # a reply is what the command gives
        self._progress_at = self._loop.time()
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
            self._fail(f"no reply for {self._endpoint.command_timeout_s:g} s")
        else:
            self._watchdog = self._loop.call_later(left, self._watch)

    def _fail(self, reason: BaseException | str) -> None:
        if not self.failed:
            self.failed = True
            if self._reader is not None:
                self._reader.cancel()
            if self._watchdog is not None:
                self._watchdog.cancel()
        waiting, self._waiting = self._waiting, deque()
        for future in waiting:
            if not future.done():
                future.set_exception(self._endpoint.unavailable(reason))


def _packer(connection: Connection) -> Callable[[tuple[Arg, ...]], bytes]:
    if _hiredis_pack is not None:
        return _hiredis_pack
    return lambda args: b"".join(connection.pack_command(*args))


async def _close(connection: Connection) -> None:
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)


def _parse_info(info: bytes | str) -> dict[str, str]:
    text = info.decode() if isinstance(info, bytes) else info
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {name: value for name, _, value in pairs}
