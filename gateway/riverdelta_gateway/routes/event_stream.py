"""An HTTP response that streams server-sent events, with the limits that sockets have."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Mapping
from typing import Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from riverdelta.core.errors import RiverdeltaError
from riverdelta_gateway.auth import Identity
from riverdelta_gateway.http_protocol import SCOPE_KEY, HttpProtocol
from riverdelta_gateway.services import Services
from riverdelta_gateway.stream_clock import StreamClock

HEADERS: Final[Mapping[str, str]] = {
    # no-transform: a proxy that compresses holds small pieces back.
    "Cache-Control": "no-cache, no-transform",
    # nginx and others buffer the response otherwise.
    "X-Accel-Buffering": "no",
}
_HEARTBEAT: Final = b": still here\n\n"

_log = logging.getLogger("riverdelta.gateway")


class EventStream(Response):
    """
    An SSE response. It ends with *lines*; when it is cut before, it never looks complete.

    It is cut when the token or the process ends (behind *last_words*), or when the client takes nothing
    for ``stall_timeout_s``. Without last words the connection is closed in mid-response: clients of SSE
    reconnect, all others see an error. A HEAD request gets the headers only.

    Args:
        lines: The body. Empty pieces are left out.
        services: What the process shares.
        identity: Its token ends the stream.
        place: What it holds until it ends: the user's place in `ConnectionLimit`.
        headers: Beside those that all streams have.
        last_words: What a stream that is cut ends with.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        lines: AsyncGenerator[bytes, None],
        services: Services,
        identity: Identity,
        *,
        place: contextlib.ExitStack,
        headers: Mapping[str, str] | None = None,
        last_words: bytes | None = None,
    ) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({**HEADERS, **(headers or {})})
        self._lines = lines
        self._services = services
        self._place = place
        self._last_words = last_words
        self._expires_in_s = identity.expires_in_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Stream until *lines* end, the stream is cut, or the client is gone."""
        with self._place:
            async with contextlib.aclosing(self._lines):
                await send(
                    {"type": "http.response.start", "status": 200, "headers": self.raw_headers}
                )
                if scope["method"] == "HEAD":
                    await send({"type": "http.response.body"})
                    return
                await self._stream(scope[SCOPE_KEY], receive, send)

    async def _stream(self, protocol: HttpProtocol, receive: Receive, send: Send) -> None:
        gateway, now_s = self._services.gateway, asyncio.get_running_loop().time
        expires_in_s = self._expires_in_s
        clock = StreamClock(
            now_s(),
            heartbeat_s=gateway.sse_heartbeat_s,
            stall_timeout_s=gateway.stall_timeout_s,
            ends_at_s=None if expires_in_s is None else now_s() + expires_in_s,
        )
        writer = _Writer(protocol, send, clock)
        gone = asyncio.ensure_future(_until_gone(receive))
        ending = asyncio.ensure_future(self._services.ending.wait())
        coming = asyncio.ensure_future(anext(self._lines, None))
        try:
            while not gone.done():
                writer.check()
                piece: bytes | None = b""
                if writer.idle and coming.done():
                    piece = coming.result()
                    if piece is None:
                        await writer.write(b"", more_body=False)
                    else:
                        coming = asyncio.ensure_future(anext(self._lines, None))
                if writer.done:
                    return
                due = clock.judge(now_s(), protocol.unsent_bytes, sending=not writer.idle)
                if due == "stalled":
                    protocol.abort()
                elif ending.done() or due == "token_expired":
                    await self._cut(writer, protocol, gone)
                    return
                elif writer.idle and (piece or due == "heartbeat"):
                    await writer.write(piece or _HEARTBEAT)
                await asyncio.wait(
                    {gone, ending, writer.sending or coming},
                    timeout=clock.wait_s(now_s(), sending=not writer.idle),
                    return_when=asyncio.FIRST_COMPLETED,
                )
        except RiverdeltaError as error:
            _log.warning("a stream is cut: %s", error)
            await self._cut(writer, protocol, gone)
        finally:
            await _cancel(gone, ending, coming, writer.sending)

    async def _cut(
        self, writer: _Writer, protocol: HttpProtocol, gone: asyncio.Future[None]
    ) -> None:
        """End a stream in the middle; a client that does not take the rest in time is cut off."""
        try:
            async with asyncio.timeout(self._services.gateway.shutdown_s):
                await writer.finish(self._last_words)
                if self._last_words is None:
                    protocol.hang_up()
                    await asyncio.shield(gone)
        except TimeoutError:
            protocol.abort()
            await gone


class _Writer:
    """
    Writes the pieces of one response, one at a time.

    Attributes:
        sending: The write that waits until the client has taken what is unsent; None: none waits.
        done: Whether the response is complete.
    """

    def __init__(self, protocol: HttpProtocol, send: Send, clock: StreamClock) -> None:
        self.sending: asyncio.Future[None] | None = None
        self.done = False
        self._more_body = True
        self._protocol = protocol
        self._send = send
        self._clock = clock

    @property
    def idle(self) -> bool:
        """Whether no write waits."""
        return self.sending is None

    async def write(self, piece: bytes, *, more_body: bool = True) -> None:
        """Write a piece, or begin to; without *more_body*, it is the last one."""
        self._more_body = more_body
        writing = self._send({"type": "http.response.body", "body": piece, "more_body": more_body})
        if self._protocol.can_write:
            await writing
            self._note_written()
        else:
            self.sending = asyncio.ensure_future(writing)

    def check(self) -> None:
        """Note whether the write that waited is done."""
        if self.sending is not None and self.sending.done():
            self.sending.result()
            self.sending = None
            self._note_written()

    async def finish(self, last_words: bytes | None) -> None:
        """Wait for the write that waits; then write *last_words*, if any, and complete the response."""
        if self.sending is not None:
            await self.sending
            self.check()
        if last_words is not None and not self.done:
            await self._send({"type": "http.response.body", "body": last_words})

    def _note_written(self) -> None:
        self._clock.sent(asyncio.get_running_loop().time(), self._protocol.unsent_bytes)
        self.done = not self._more_body


async def _cancel(*tasks: asyncio.Future[Any] | None) -> None:
    """Cancel tasks of a stream that is over, and ignore their errors."""
    running = [task for task in tasks if task is not None]
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
