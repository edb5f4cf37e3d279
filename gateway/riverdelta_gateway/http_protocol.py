"""
uvicorn's HTTP protocol, with what ASGI does not offer.

How many bytes the client has not taken, and two ways to end a response in the middle, so that it never
looks complete.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

SCOPE_KEY: Final = "riverdelta.http"
"""Key of the protocol in the scope of its app."""
NO_SNIFF: Final = ("X-Content-Type-Options", "nosniff")
"""Header of every response: browsers take it for what it says it is."""


class HttpProtocol(H11Protocol):
    """One HTTP connection. Its app finds it in the scope, under `SCOPE_KEY`."""

    transport: asyncio.Transport

    def __init__(self, *args: Any, **options: Any) -> None:  # as uvicorn has it
        super().__init__(*args, **options)
        app = self.app

        async def app_with_protocol(scope: Any, receive: Any, send: Any) -> None:
            await app({**scope, SCOPE_KEY: self}, receive, send)

        self.app = app_with_protocol

    @property
    def can_write(self) -> bool:
        """Whether its buffer has room: a write does not wait."""
        return not self.flow.write_paused

    @property
    def unsent_bytes(self) -> int:
        """Bytes that the kernel has not taken yet."""
        return self.transport.get_write_buffer_size()

    def send_400_response(self, msg: str) -> None:
        """Refuse what is no HTTP, with the header of every response; uvicorn calls it."""
        headers = {"Content-Type": "text/plain; charset=utf-8", "Connection": "close"} | dict(
            [NO_SNIFF]
        )
        body = msg.encode()
        for event in (
            h11.Response(status_code=400, reason=b"Bad Request", headers=list(headers.items())),
            h11.Data(data=body),
            h11.EndOfMessage(),
        ):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    def hang_up(self) -> None:
        """Close behind all unsent bytes; a chunked response without its end is an error to the client."""
        self.transport.close()

    def abort(self) -> None:
        """Close now, without the unsent bytes."""
        self.transport.abort()
