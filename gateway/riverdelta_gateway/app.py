"""The ASGI application: which part of the gateway answers which path."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket

from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta.broker.settings import Settings
from riverdelta_gateway.access import ChatAccess
from riverdelta_gateway.auth import Authenticator
from riverdelta_gateway.backends.opening import SOURCE as OPENING_SOURCE
from riverdelta_gateway.close_codes import REASONS, CloseCode
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.frames import error_response
from riverdelta_gateway.hub import Hub
from riverdelta_gateway.limits import ConnectionLimit, PostLimit
from riverdelta_gateway.loopback import OnlyLoopbackNames
from riverdelta_gateway.posting.accept import Posts, TurnRules
from riverdelta_gateway.posting.watch import Watches
from riverdelta_gateway.protocol import SCOPE_KEY, SocketProtocol
from riverdelta_gateway.routes import api_chat, http
from riverdelta_gateway.routes.page import Page
from riverdelta_gateway.routes.table import ROUTES, Handler, dispatcher
from riverdelta_gateway.services import Services
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.socket import Dispatch, Socket, SocketLimits
from riverdelta_gateway.sockets import Sockets
from riverdelta_gateway.ticker import Ticker
from riverdelta_gateway.turns.plugins import make_catalog, source_of
from riverdelta_gateway.turns.queue import TurnQueue, arq_pool
from riverdelta_gateway.turns.settings import TurnSettings

_CORS: Final[dict[str, Any]] = {
    "allow_methods": ["GET", "POST"],
    "allow_headers": [
        *("Authorization", "Content-Type", "Last-Event-ID"),
        *("User-Agent", "X-Requested-With", "Cache-Control"),  # older SDKs set these
    ],
}


@contextlib.asynccontextmanager
async def open_services(settings: Settings, gateway: GatewaySettings) -> AsyncIterator[Services]:
    """
    Connect to Redis, and make the services that the parts of the gateway share.

    Raises:
        SettingsError: Settings that contradict each other, see `Authenticator`; or an asset catalog of
            `TurnSettings` that cannot be used.
        BrokerUnavailable: No server there.
        ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
    """
    auth = Authenticator(gateway)
    turns = TurnSettings()
    catalog = make_catalog(turns)
    async with ChatReader(settings) as subscriber, arq_pool(settings) as pool:
        client = subscriber.client
        access = ChatAccess(client, open_to_all=auth.dev)
        hub = Hub(subscriber, access, gateway.linger_s)
        try:
            async with (
                Sockets(client) as sockets,
                _ticking(sockets),
                Watches(subscriber, access, sockets) as watches,
                Posts(
                    subscriber,
                    access,
                    catalog=catalog,
                    queue=TurnQueue(pool, settings),
                    watches=watches,
                    rules=TurnRules(gateway, source_of(turns), OPENING_SOURCE),
                ) as posts,
            ):
                yield Services(
                    settings=settings,
                    gateway=gateway,
                    client=client,
                    subscriber=subscriber,
                    hub=hub,
                    sockets=sockets,
                    access=access,
                    connections=ConnectionLimit(gateway.max_sockets_per_user),
                    post_limit=PostLimit(client, gateway.max_posts_per_minute),
                    auth=auth,
                    posts=posts,
                    watches=watches,
                )
        finally:
            await hub.aclose()


@contextlib.asynccontextmanager
async def _ticking(sockets: Sockets) -> AsyncIterator[None]:
    ticker = Ticker(sockets)
    await ticker.start()
    try:
        yield
    finally:
        await ticker.shutdown()


def make_app(services: Services, routes: Mapping[str, Handler] = ROUTES) -> Starlette:
    """
    Make the application; it needs our own server, see `serve`.

    Args:
        services: What its parts share.
        routes: The routes of its WebSocket.
    """
    paths = [
        WebSocketRoute("/ws", open_socket),
        *http.ROUTES,
        *api_chat.ROUTES,
        Mount("/", Page()),
    ]
    middleware = [Middleware(OnlyLoopbackNames)] if services.auth.dev else []
    if origins := services.gateway.allowed_origins:
        middleware.append(Middleware(CORSMiddleware, allow_origins=origins, **_CORS))
    app = Starlette(
        routes=paths,
        middleware=middleware,
        exception_handlers={HTTPException: http.unknown_path},
    )
    app.state.services = services
    app.state.socket_limits = _socket_limits(services.gateway)
    app.state.dispatch = dispatcher(services, routes)
    return app


async def open_socket(websocket: WebSocket) -> None:
    """Serve ``/ws``: refuse foreign pages at the handshake, bad tokens with a close code."""
    services: Services = websocket.app.state.services
    if not services.auth.is_origin_allowed(websocket):
        await websocket.send_denial_response(http.foreign_page())
        return
    await websocket.accept()
    protocol: SocketProtocol = websocket.scope[SCOPE_KEY]
    grace_s = services.gateway.shutdown_s
    try:
        identity = services.auth.identify(websocket)
    except RequestError as refusal:
        # Not at the handshake: browsers hide from a page why that failed.
        _refuse(protocol, refusal, CloseCode.UNAUTHORIZED, grace_s)
        return
    try:
        services.connections.take(identity.user)
    except RequestError as refusal:
        _refuse(protocol, refusal, CloseCode.TOO_MANY_SOCKETS, grace_s)
        return
    limits: SocketLimits = websocket.app.state.socket_limits
    dispatch: Dispatch = websocket.app.state.dispatch
    socket = Socket(protocol, identity, hub=services.hub, limits=limits, dispatch=dispatch)
    try:
        await services.sockets.add(socket)
        await socket.serve(websocket)
    finally:
        await services.sockets.remove(socket)
        services.connections.release(identity.user)


def _socket_limits(gateway: GatewaySettings) -> SocketLimits:
    return SocketLimits(
        max_chats=gateway.max_chats_per_socket,
        max_queued_bytes=gateway.max_queued_bytes,
        max_message_bytes=gateway.max_message_bytes,
        stall_timeout_s=gateway.stall_timeout_s,
        close_grace_s=gateway.shutdown_s,
    )


def _refuse(protocol: SocketProtocol, error: RequestError, code: CloseCode, grace_s: float) -> None:
    protocol.write(error_response(error))
    protocol.close(code, REASONS[code], grace_s)
