"""
uvicorn's WebSocket protocol, and what about a socket ASGI has no words for.

Back-pressure as a callback instead of a task that waits; a write of bytes that many sockets share; an
end that no full buffer can hold up; and text that is no UTF-8 as a close code, not as a traceback.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.http11 import Request
from websockets.protocol import OPEN

SCOPE_KEY: Final = "riverdelta.socket"
"""Where in its scope the app finds the protocol."""
_INVALID_TEXT: Final = 1007


class SocketProtocol(WebSocketsSansIOProtocol):
    """
    One WebSocket.

    Attributes:
        on_blocked: Called when the buffer is full.
        on_drained: Called when it has room again.
        on_lost: Called when the connection is gone.
        max_unsent_bytes: Where it counts as full; set before the server starts.
    """

    max_unsent_bytes = 64 * 1024
    on_blocked: Callable[[], None] | None = None
    on_drained: Callable[[], None] | None = None
    on_lost: Callable[[], None] | None = None

    @property
    def unsent_bytes(self) -> int:
        """What the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    @property
    def can_write(self) -> bool:
        """Whether its buffer has room."""
        return self.writable.is_set() and not self.disconnected

    def write(self, frame: bytes) -> None:
        """Send a whole frame, as `frames.framed` makes it; nothing happens on a socket that closes."""
        if self.conn.state is OPEN and not self.close_sent and not self.disconnected:
            self.transport.write(frame)

    def close(self, code: int, reason: str, grace_s: float) -> None:
        """Send a close frame behind all that waits; cut the connection off after *grace_s*."""
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
        """Begin; from here on the buffer's limit holds."""
        super().connection_made(transport)
        cast("asyncio.Transport", transport).set_write_buffer_limits(self.max_unsent_bytes)

    def connection_lost(self, exc: Exception | None) -> None:
        """Hear from the transport that it is gone."""
        super().connection_lost(exc)
        if self.on_lost is not None:
            self.on_lost()

    def handle_connect(self, event: Request) -> None:
        """Take the handshake; the app's task begins after this."""
        super().handle_connect(event)
        if hasattr(self, "scope"):  # else it was no handshake
            cast("dict[str, object]", self.scope)[SCOPE_KEY] = self

    def shutdown(self) -> None:
        """End with the server; a socket that was closed with a code of ours keeps its grace."""
        if not self.close_sent:
            super().shutdown()

    def pause_writing(self) -> None:
        """Hear from the transport that its buffer is full."""
        super().pause_writing()
        if self.on_blocked is not None:
            self.on_blocked()

    def resume_writing(self) -> None:
        """Hear from the transport that its buffer has room."""
        super().resume_writing()
        if self.on_drained is not None:
            self.on_drained()

    def send_receive_event_to_app(self) -> None:
        """Hand a message on, or close where it is no text."""
        if self.curr_msg_data_type == "text":
            try:
                b"".join(self.frames).decode()
            except UnicodeDecodeError:
                self.frames = []
                self.conn.fail(_INVALID_TEXT)
                self.handle_parser_exception()
                return
        super().send_receive_event_to_app()

    def keepalive_timeout(self) -> None:
        """End a connection whose client is gone; what is unsent would never leave otherwise."""
        super().keepalive_timeout()
        self.transport.abort()
