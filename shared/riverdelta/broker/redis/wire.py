"""
Write packed commands to the transport of a redis-py connection, and read replies from it.

redis-py's `Connection` connects (URL, TLS, AUTH, SELECT). It is not used after that: its stream reader,
its drain after each write and its task switches would cost more than the commands.
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
with contextlib.suppress(ImportError):  # optional: redis-py's own code does the same, slower
    from hiredis import Reader, pack_command

    _hiredis_pack = pack_command  # type: ignore[assignment]  # its stub says: a tuple of one
    _HiredisReader = Reader

_NO_REPLY_YET: Final = object()


class Wire(asyncio.Protocol):
    """
    Write commands and pass replies on, until it ends.

    With hiredis it replaces the stream reader: replies are passed on as their bytes come in, without
    waking a task first.

    Args:
        connection: Connected, with no reply outstanding; the wire owns it from here on.
        on_reply: Called with each reply, in order; an error of the server is passed as an
            exception. A `RedisError` that the callback raises ends the wire.
        on_end: Called once, with the reason, when the wire ends.

    Attributes:
        pack: Encodes a command as the server reads it.
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
        writer = connection._writer  # noqa: SLF001  # redis-py has no public access to its transport
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
        """Write one command; does nothing on a wire that ended."""
        self.write(self.pack(args))

    def write(self, packed: bytes) -> None:
        """Write packed commands; does nothing on a wire that ended."""
        if self.ended is None:
            self._transport.write(packed)

    def end(self, reason: BaseException | str) -> None:
        """Stop passing replies on; does nothing on a wire that ended."""
        if self.ended is not None:
            return
        self.ended = reason
        if self._reader is not None:
            self._reader.cancel()
        self._transport.abort()  # commands already written may still arrive
        self._on_end(reason)

    async def aclose(self) -> None:
        """End the wire and close its connection."""
        self.end("connection closed")
        if self._reader is not None:
            with contextlib.suppress(asyncio.CancelledError):
                await self._reader
        await close_connection(self._connection)

    def data_received(self, data: bytes) -> None:
        """Read replies from the bytes that came in; after the end they are dropped."""
        if self.ended is not None:
            return
        try:
            self._replies.feed(data)
            while (reply := self._replies.gets()) is not _NO_REPLY_YET:
                self._on_reply(reply)
        except RedisError as error:  # the bytes after it cannot be read, or the callback refused
            self.end(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the wire: the connection has ended."""
        self.end(exc or "the server closed the connection")

    async def _read(self) -> None:
        """Read replies without hiredis, in place of the two methods above."""
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
    """Close *connection*, whatever state it is in."""
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await connection.disconnect(nowait=True)
