"""The yardstick's connection: hiredis on an asyncio protocol, one write per loop turn, no logic."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import hiredis

from bench.server import pack
from riverdelta.broker.redis.executor import Arg


class BareWire(asyncio.Protocol):
    """
    Sends commands without waiting for their replies.

    Args:
        on_reply: Called with each reply, or each message of a subscribed channel.
    """

    def __init__(self, on_reply: Callable[[Any], None]) -> None:
        self._on_reply = on_reply
        self._replies = hiredis.Reader()
        self._out: list[bytes] = []
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the connection."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's are no subclass

    def send(self, *args: Arg) -> None:
        """Send one command with all others of this turn of the loop."""
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(pack(args))

    def data_received(self, data: bytes) -> None:
        """Hand on each reply; an error reply is raised."""
        self._replies.feed(data)
        while (reply := self._replies.gets()) is not False:
            if isinstance(reply, Exception):
                raise reply
            self._on_reply(reply)

    def close(self) -> None:
        """Close the connection."""
        if self._transport is not None:
            self._transport.close()

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None:
            self._transport.write(b"".join(out))


async def connect(port: int, on_reply: Callable[[Any], None]) -> BareWire:
    """Connect to the server on *port* of this machine."""
    loop = asyncio.get_running_loop()
    _, wire = await loop.create_connection(lambda: BareWire(on_reply), "127.0.0.1", port)
    return wire


async def subscribe(
    port: int, channels: list[str], on_message: Callable[[bytes, bytes], None]
) -> BareWire:
    """Subscribe a connection of its own to sharded channels; returns when all are confirmed."""
    confirmed = asyncio.Event()
    missing = len(channels)

    def take(reply: Any) -> None:
        nonlocal missing
        kind, channel, payload = reply
        if kind == b"smessage":
            on_message(channel, payload)
            return
        missing -= 1
        if not missing:
            confirmed.set()

    wire = await connect(port, take)
    for channel in channels:
        wire.send("SSUBSCRIBE", channel)
    await confirmed.wait()
    return wire
