"""
The transport of a ready redis-py connection, taken over: packed commands out, replies in.

redis-py's `Connection` makes it (URL, TLS, AUTH, SELECT); from there on its stream reader, its drain
after each write and its task switches would cost more than the commands.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any, Final

from redis.asyncio.connection import Connection, DefaultParser
from redis.exceptions import InvalidResponse, RedisError, ResponseError

Arg = bytes | str | int | float

_hiredis_pack: Callable[[tuple[Arg, ...]], bytes] | None = None
_HiredisReader: Callable[..., Any] | None = None
with contextlib.suppress(ImportError):  # optional: redis-py's own do the same, slower
    from hiredis import Reader, pack_command

    _hiredis_pack = pack_command  # type: ignore[assignment]  # its stub says: a tuple of one
    _HiredisReader = Reader

_NO_REPLY_YET: Final = object()


class Wire(asyncio.Protocol):
    """
    Writes commands and hands on replies, until it ends.

    With hiredis it takes the place of the stream reader: replies are handed on where their bytes
    come in, without a task that has to wake up first.

    Args:
        connection: Connected, with no reply outstanding; the wire's from here on.
        on_reply: Called with each reply, in order; a server's error is an exception as reply. A
            `RedisError` that it raises ends the wire.
        on_end: Called once, with the reason, when the wire ends.

    Attributes:
        pack: Spells a command as the server reads it.
        ended: Why no further reply comes; None while the wire is alive.
    """

    def __init__(
        self,
        connection: Connection,
        on_reply: Callable[[Any], None],
        on_end: Callable[[BaseException | str], None],
    ) -> None:
        self.ended: BaseException | str | None = None
        self.pack = _hiredis_pack or (lambda args: b"".join(connection.pack_command(*args)))
        self._connection = connection
        self._on_reply = on_reply
        self._on_end = on_end
        self._reader: asyncio.Task[None] | None = None
        writer = connection._writer  # noqa: SLF001  # redis-py names no way to its transport
        if writer is None:
            message = "a wire needs an open connection"
            raise RuntimeError(message)
        self._transport = writer.transport
        if _HiredisReader is None:
            self._reader = asyncio.create_task(self._read(), name="riverdelta-replies")
            return
        self._replies = _HiredisReader(
            protocolError=InvalidResponse,
            replyError=DefaultParser.parse_error,
            notEnoughData=_NO_REPLY_YET,
        )
        self._transport.set_protocol(self)

    def send(self, *args: Arg) -> None:
        """Write one command; nothing happens on a wire that ended."""
        self.write(self.pack(args))

    def write(self, packed: bytes) -> None:
        """Write packed commands; nothing happens on a wire that ended."""
        if self.ended is None:
            self._transport.write(packed)

    def end(self, reason: BaseException | str) -> None:
        """Hand on nothing any more; an ended wire stays as it is."""
        if self.ended is not None:
            return
        self.ended = reason
        if self._reader is not None:
            self._reader.cancel()
        self._transport.abort()  # what was written and is under way may still arrive; nothing else
        self._on_end(reason)

    async def aclose(self) -> None:
        """End the wire and close its connection."""
        self.end("connection closed")
        if self._reader is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await close_connection(self._connection)

    def data_received(self, data: bytes) -> None:
        """Take what came in; after the end nobody waits for it any more."""
        if self.ended is not None:
            return
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not _NO_REPLY_YET:
                self._on_reply(reply)
        except RedisError as error:  # whatever comes next cannot be read, or is not wanted
            self.end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """Take note of the connection's end."""
        self.end(exc or "the server closed the connection")

    async def _read(self) -> None:
        """Do what the two above do, without hiredis."""
        try:
            while True:
                try:
                    reply = await self._connection.read_response(disable_decoding=True)
                except ResponseError as error:
                    reply = error
                self._on_reply(reply)
        except (RedisError, OSError) as error:
            self.end(error)


async def close_connection(connection: Connection) -> None:
    """Close it, whatever state it is in."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)
