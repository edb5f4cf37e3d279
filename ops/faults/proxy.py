"""
A TCP proxy that can cut, freeze and delay what goes through it.

It stands between one process and the server. What it has taken in while frozen is delivered when it
thaws, even if the sender has given the connection up meanwhile: as a network does, which is how an
old command can arrive late.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import Final

_RESET: Final = struct.pack("ii", 1, 0)
"""Linger for no time: closing sends a reset."""
_PIECE: Final = 64 * 1024
_HELD_BYTES: Final = 16 * 1024 * 1024
"""Taken in and not yet delivered, per direction; past it the sender has to wait."""


class Proxy:
    """
    Listens on a port of its own, and passes everything on to *server_port*.

    Attributes:
        port: Where it listens, once started.
        admits: Whether new connections may come; those that are there stay.
    """

    def __init__(self, server_port: int) -> None:
        self.port = 0
        self.admits = True
        self._server_port = server_port
        self._listener: asyncio.Server | None = None
        self._links: set[_Link] = set()
        self._new_links_frozen = False
        self._delay_s = 0.0

    async def start(self) -> None:
        """Begin to listen."""
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listener.sockets[0].getsockname()[1]

    async def aclose(self) -> None:
        """Cut everything, and listen no more."""
        if self._listener is not None:
            self._listener.close()
        self.cut()
        while self._links:
            await asyncio.gather(*(link.over() for link in self._links))

    def cut(self) -> int:
        """Reset every connection; how many there were."""
        for link in self._links:
            link.abort()
        return len(self._links)

    async def freeze(
        self, seconds: float, *, new_ones_too: bool = True, replies_too: bool = True
    ) -> None:
        """
        Let no byte through on any connection there is.

        Args:
            seconds: For how long.
            new_ones_too: Nor on those that come meanwhile.
            replies_too: Nor from the server: else what it sends arrives, and nothing gets to it.
        """
        links = list(self._links)
        for link in links:
            link.freeze(replies_too=replies_too)
        self._new_links_frozen = new_ones_too
        try:
            await asyncio.sleep(seconds)
        finally:
            self._new_links_frozen = False
            for link in self._links if new_ones_too else links:
                link.thaw()

    async def delay(self, seconds: float, by_s: float) -> None:
        """Deliver everything late by *by_s* or more."""
        self._delay_s = by_s
        try:
            await asyncio.sleep(seconds)
        finally:
            self._delay_s = 0.0

    @property
    def delay_s(self) -> float:
        """How late everything is delivered now."""
        return self._delay_s

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self.admits:
            writer.transport.abort()
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(
                "127.0.0.1", self._server_port
            )
        except OSError:
            writer.transport.abort()
            return
        link = _Link(self, (reader, writer), (server_reader, server_writer))
        if self._new_links_frozen:
            link.freeze(replies_too=True)
        self._links.add(link)
        try:
            await link.over()
        finally:
            self._links.discard(link)


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: Proxy, client: Stream, server: Stream) -> None:
        self._proxy = proxy
        self._to_server, self._to_client = asyncio.Event(), asyncio.Event()
        self.thaw()
        self._writers = (client[1], server[1])
        self._tasks = [
            asyncio.create_task(self._pass_on(client[0], server[1], self._to_server)),
            asyncio.create_task(self._pass_on(server[0], client[1], self._to_client)),
        ]

    def freeze(self, *, replies_too: bool) -> None:
        """Hold what goes to the server, and what comes from it if asked."""
        self._to_server.clear()
        if replies_too:
            self._to_client.clear()

    def thaw(self) -> None:
        """Let everything through."""
        self._to_server.set()
        self._to_client.set()

    def abort(self) -> None:
        """Reset it; what was held is gone."""
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):  # it is closed already
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    async def over(self) -> None:
        """Wait until both directions have ended."""
        await asyncio.wait(self._tasks)

    async def _pass_on(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, thawed: asyncio.Event
    ) -> None:
        """Take in and deliver, until the sender has ended; then end the receiver's side."""
        held: asyncio.Queue[bytes] = asyncio.Queue(_HELD_BYTES // _PIECE)
        taking = asyncio.create_task(self._take(reader, held))
        try:
            while data := await held.get():
                if self._proxy.delay_s:
                    await asyncio.sleep(self._proxy.delay_s)
                await thawed.wait()
                writer.write(data)
                await writer.drain()
            await thawed.wait()
        except OSError:
            pass  # the receiver is gone
        finally:
            taking.cancel()
            writer.close()
            with contextlib.suppress(asyncio.CancelledError):
                await taking

    @staticmethod
    async def _take(reader: asyncio.StreamReader, held: asyncio.Queue[bytes]) -> None:
        try:
            while data := await reader.read(_PIECE):
                await held.put(data)
        except OSError:
            pass  # reset by the sender: what it had sent is still delivered
        await held.put(b"")
