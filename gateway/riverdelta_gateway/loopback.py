"""The names of this machine, for a gateway without tokens: whoever can reach it may do everything."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.frames import error_document

LOOPBACK: Final = ("127.0.0.1", "::1", "localhost")


class OnlyLoopbackNames:
    """
    ASGI middleware: answers only requests whose ``Host`` is a name of this machine.

    A page of any host can point its own name at 127.0.0.1 once it is loaded (DNS rebinding). For the
    browser this gateway is that page's own host then, but its requests still carry the page's name.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what was sent to this machine's names; refuse everything else with 403."""
        if scope["type"] in {"http", "websocket"} and not is_loopback(Headers(scope=scope)):
            names = "localhost, 127.0.0.1 and [::1]"
            error = RequestError("UNAUTHORIZED", f"Without tokens this gateway is only {names}.")
            await JSONResponse(error_document(error), 403)(scope, receive, send)
            return
        await self._app(scope, receive, send)


def is_loopback(headers: Headers) -> bool:
    """Whether a request has one ``Host``, a name of this machine with any port."""
    hosts = headers.getlist("host")
    try:
        return len(hosts) == 1 and urlsplit(f"//{hosts[0]}").hostname in LOOPBACK
    except ValueError:  # "[x": no address
        return False
