"""
uvicorn's WebSocket protocol, with what ASGI does not offer.

Back-pressure as a callback instead of a waiting task; writes of bytes that many sockets share; a close
that a full buffer does not delay; and a close code, not a traceback, for text that is no UTF-8.

What a client can make the gateway keep is bounded: while it takes no bytes, nothing of it is read and its
pings are not answered; a message may come in so many fragments, and no more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame
from websockets.http11 import Request, Response
from websockets.protocol import OPEN
from websockets.server import ServerProtocol

from riverdelta_gateway.http_protocol import NO_SNIFF

SCOPE_KEY: Final = "riverdelta.socket"
"""Key of the protocol in the scope of its app."""
_INVALID_TEXT: Final = 1007
_TOO_BIG: Final = 1009
_MOST_FRAGMENTS: Final = 1024
"""Of one message: each costs some fifty bytes beside its own, and an empty one counts for no size."""


class _Handshake(ServerProtocol):
    """The protocol of one connection; a refused handshake has the header of every response."""

    def send_response(self, response: Response) -> None:
        """Send the answer to a handshake."""
        name, value = NO_SNIFF
        if name not in response.headers:
            response.headers[name] = value
        super().send_response(response)


class SocketProtocol(WebSocketsSansIOProtocol):
    """
    One WebSocket.

    Attributes:
        on_blocked: Called when the buffer is full.
        on_drained: Called when it has room again.
        on_lost: Called when the connection is gone.
        max_unsent_bytes: Size from which the buffer is full; set before the server starts.
    """

    max_unsent_bytes = 64 * 1024
    on_blocked: Callable[[], None] | None = None
    on_drained: Callable[[], None] | None = None
    on_lost: Callable[[], None] | None = None

    def __init__(self, *args: Any, **options: Any) -> None:  # as uvicorn has it
        super().__init__(*args, **options)
        self.conn = _Handshake(max_size=self.config.ws_max_size, logger=self.conn.logger)

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    @property
    def can_write(self) -> bool:
        """Whether its buffer has room."""
        return self.writable.is_set() and not self.disconnected

    def write(self, frame: bytes) -> None:
        """Send a whole frame, made by `frames.framed`; on a closing socket, do nothing."""
        if self.conn.state is OPEN and not self.close_sent and not self.disconnected:
            self.transport.write(frame)

    def close(self, code: int, reason: str, grace_s: float) -> None:
        """Send a close frame behind all unsent bytes; cut the connection off after *grace_s*."""
        if self.close_sent or self.conn.state is not OPEN:
            return
        self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()  # for the client's close frame
        self.close_timer = self.loop.call_later(grace_s, self.transport.abort)

    # -- what uvicorn and asyncio call -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Set the limit of the write buffer."""
        super().connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(self.max_unsent_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """Report that the connection is gone."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def handle_connect(self, event: Request) -> None:
        """Put this protocol into the scope, before the app's task begins."""
        super().handle_connect(event)
        if hasattr(self, "scope"):  # else it was no handshake
            cast("dict[str, object]", self.scope)[SCOPE_KEY] = self

    def shutdown(self) -> None:
        """Close with the server; a socket that is closing already keeps its grace period."""
        if not self.close_sent:
            super().shutdown()

    async def receive(self) -> Any:  # as uvicorn has it
        """Give the app the next message; go on reading only if the client takes bytes, too."""
        message = await super().receive()
        if not self.writable.is_set():
            self._hold_reading()
        return message

    def handle_ping(self) -> None:
        """Answer a ping, unless the client takes no bytes or is about to be closed."""
        if self.close_sent or not self.can_write:
            self.conn.data_to_send()  # the answer
            return
        super().handle_ping()

    def handle_cont(self, event: Frame) -> None:
        """Take a further fragment of a message; close the socket if there are too many."""
        if len(self.frames) >= _MOST_FRAGMENTS:
            self.frames = []
            self.conn.fail(_TOO_BIG, "too many fragments")
            self.handle_parser_exception()
            return
        super().handle_cont(event)

    def pause_writing(self) -> None:
        """Report that the buffer is full."""
        super().pause_writing()
        self._hold_reading()
        if self.on_blocked is not None:
            self.on_blocked()

    def resume_writing(self) -> None:
        """Report that the buffer has room."""
        super().resume_writing()
        if self.read_paused and self.queue.empty() and not self.transport.is_closing():
            self.read_paused = False
            self.transport.resume_reading()
        if self.on_drained is not None:
            self.on_drained()

    def send_receive_event_to_app(self) -> None:
        """Pass a message to the app; close the socket if a text is no UTF-8."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(_INVALID_TEXT)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def _hold_reading(self) -> None:
        if not self.read_paused and not self.close_sent and not self.transport.is_closing():
            self.read_paused = True
            self.transport.pause_reading()

    def keepalive_timeout(self) -> None:
        """
        Cut off a connection whose client is gone: a close would wait for the unsent bytes.

        While the client takes no bytes its pong is not read, and the stall limit decides.
        """
        if not self.can_write and self.on_blocked is not None and self.ping_timeout is not None:
            self.pong_timer = self.loop.call_later(self.ping_timeout, self.keepalive_timeout)
            return
        super().keepalive_timeout()
        self.transport.abort()
