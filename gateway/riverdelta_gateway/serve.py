"""Run a gateway process: the server around the application, and its shutdown in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import uvicorn

from riverdelta.broker.settings import Settings
from riverdelta.core.errors import SettingsError
from riverdelta_gateway.app import make_app, open_services
from riverdelta_gateway.close_codes import CloseCode
from riverdelta_gateway.http_protocol import NO_SNIFF, HttpProtocol
from riverdelta_gateway.protocol import SocketProtocol
from riverdelta_gateway.routes.table import ROUTES, Handler
from riverdelta_gateway.services import Services
from riverdelta_gateway.settings import GatewaySettings

_REFUSED_BEYOND: Final = 4
"""A request up to this many times the limit is answered with an error; beyond, the socket is closed."""
_BACKLOG: Final = 2048
"""Connections that wait to be accepted: all clients of a gateway that died reconnect at once."""


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that listens at *url*."""

    url: str
    services: Services


@contextlib.asynccontextmanager
async def gateway_server(
    settings: Settings, gateway: GatewaySettings, *, routes: Mapping[str, Handler] = ROUTES
) -> AsyncIterator[Running]:
    """
    Listen, and serve until the block is left.

    On leaving: no new connections; every socket is closed with RESTARTING, and its client resumes at
    another process; streams end; the connections to Redis are closed.

    Args:
        settings: Name the servers.
        gateway: The gateway's own settings.
        routes: The routes of the WebSocket; `ROUTES` and your own, say.

    Raises:
        SettingsError: Settings that contradict each other, or an address that cannot be listened on.
        BrokerUnavailable: No Redis there.
    """
    async with contextlib.AsyncExitStack() as stack:
        services = await stack.enter_async_context(open_services(settings, gateway))
        listener = stack.enter_context(_listen(gateway))
        server = _Server(_config(services, routes))
        serving = asyncio.create_task(server.serve([listener]), name="riverdelta-gateway")
        try:
            await _first(server.listening.wait(), serving)
            host, port = listener.getsockname()[:2]
            yield Running(f"http://{f'[{host}]' if ':' in host else host}:{port}", services)
        finally:
            services.sockets.close_all(CloseCode.RESTARTING)
            services.ending.set()
            server.should_exit = True
            await serving


class _Server(uvicorn.Server):
    """uvicorn's server; its caller handles the signals."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and set `listening`."""
        await super().startup(sockets)
        self.listening.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield


async def _first(waiting: Coroutine[Any, Any, object], serving: asyncio.Task[None]) -> None:
    """Wait for *waiting*; if *serving* ends first, raise its error."""
    waiter = asyncio.ensure_future(waiting)
    await asyncio.wait((waiter, serving), return_when=asyncio.FIRST_COMPLETED)
    waiter.cancel()
    if serving.done():
        serving.result()


def _config(services: Services, routes: Mapping[str, Handler]) -> uvicorn.Config:
    gateway = services.gateway
    protocol = type("Protocol", (SocketProtocol,), {"max_unsent_bytes": gateway.max_unsent_bytes})
    return uvicorn.Config(
        make_app(services, routes),
        http=HttpProtocol,
        timeout_keep_alive=gateway.keep_alive_s,
        ws=protocol,
        ws_max_size=gateway.max_message_bytes * _REFUSED_BEYOND,
        ws_ping_interval=gateway.ping_interval_s,
        ws_ping_timeout=gateway.pong_timeout_s,
        # Compression costs 300 KiB for each socket, and every frame would be compressed for each.
        ws_per_message_deflate=False,
        lifespan="off",  # ours is `gateway_server`
        # Access lines show the query, which may have a token; so do lines of accepted sockets (INFO).
        access_log=False,
        log_config=None,
        log_level=logging.WARNING,
        server_header=False,
        headers=[NO_SNIFF],
        # A little longer than sockets get: those that take no close frame are cut off before.
        timeout_graceful_shutdown=math.ceil(gateway.shutdown_s) + 1,
    )


@contextlib.contextmanager
def _listen(gateway: GatewaySettings) -> Iterator[socket.socket]:
    """
    Listen on the address, before anything else is started.

    Raises:
        SettingsError: The address is not this machine's, or in use.
    """
    try:
        family, *_, address = socket.getaddrinfo(
            gateway.host, gateway.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except OSError as error:
        message = f"cannot listen on {gateway.host} port {gateway.port}: {error.strerror or error}"
        raise SettingsError(message) from error
    with listener:
        yield listener
