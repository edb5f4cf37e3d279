"""The ASGI application: which path leads where."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any, Final

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket

from riverdelta.broker.reader.subscriber import Subscriber
from riverdelta.broker.settings import Settings
from riverdelta_gateway.access import Chats
from riverdelta_gateway.auth import Authenticator
from riverdelta_gateway.close_codes import REASONS, CloseCode
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.frames import error_response
from riverdelta_gateway.hub import Hub
from riverdelta_gateway.limits import Limits
from riverdelta_gateway.posting.accept import Posts
from riverdelta_gateway.protocol import SCOPE_KEY, SocketProtocol
from riverdelta_gateway.routes import api_chat, chats, http  # noqa: F401  # registers its routes
from riverdelta_gateway.routes import post as _post_route  # noqa: F401  # registers its route
from riverdelta_gateway.routes.page import Page
from riverdelta_gateway.services import Services
from riverdelta_gateway.settings import GatewaySettings
from riverdelta_gateway.sockets import Socket, Sockets
from riverdelta_gateway.turns.plugins import make_catalog
from riverdelta_gateway.turns.queue import TurnQueue, arq_pool
from riverdelta_gateway.turns.settings import TurnSettings

_CORS: Final[dict[str, Any]] = {
    "allow_methods": ["GET", "POST"],
    "allow_headers": ["Authorization", "Content-Type", "Last-Event-ID"],
}


@contextlib.asynccontextmanager
async def open_services(settings: Settings, gateway: GatewaySettings) -> AsyncIterator[Services]:
    """
    Connect to Redis, and make what the parts of the gateway share.

    Raises:
        SettingsError: Settings that do not go together, see `Authenticator`; or an asset catalog of
            `TurnSettings` that cannot be used.
        BrokerUnavailable: No server there.
        ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
    """
    auth = Authenticator(gateway)
    catalog = make_catalog(TurnSettings())
    async with Subscriber(settings) as subscriber, arq_pool(settings) as pool:
        client = subscriber.client
        hub = Hub(subscriber, gateway.linger_s)
        try:
            async with (
                Sockets(client, gateway.max_sockets_per_user) as sockets,
                Posts(
                    subscriber,
                    sockets,
                    Chats(client, open_to_all=auth.dev),
                    catalog=catalog,
                    queue=TurnQueue(pool, settings),
                ) as posts,
            ):
                yield Services(
                    settings=settings,
                    gateway=gateway,
                    client=client,
                    hub=hub,
                    sockets=sockets,
                    chats=Chats(client, open_to_all=auth.dev),
                    limits=Limits(client, gateway),
                    auth=auth,
                    posts=posts,
                )
        finally:
            await hub.aclose()


def make_app(services: Services) -> Starlette:
    """Make the application; it needs our own server, see `serve`."""
    routes = [
        WebSocketRoute("/ws", open_socket),
        *http.ROUTES,
        *api_chat.ROUTES,
        Mount("/", Page()),
    ]
    middleware = []
    if origins := services.gateway.allowed_origins:
        middleware.append(Middleware(CORSMiddleware, allow_origins=origins, **_CORS))
    app = Starlette(
        routes=routes,
        middleware=middleware,
        exception_handlers={HTTPException: http.unknown_path},
    )
    app.state.services = services
    return app


async def open_socket(websocket: WebSocket) -> None:
    """Serve ``/ws``: a foreign page is refused at the handshake, a bad token with a close code."""
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
        # Not at the handshake: browsers do not tell a page why that failed.
        _refuse(protocol, refusal, CloseCode.UNAUTHORIZED, grace_s)
        return
    try:
        services.sockets.take_place(identity.user)
    except RequestError as refusal:
        _refuse(protocol, refusal, CloseCode.TOO_MANY_SOCKETS, grace_s)
        return
    socket = Socket(protocol, identity, services)
    try:
        await services.sockets.add(socket)
        await socket.serve(websocket)
    finally:
        await services.sockets.remove(socket)
        services.sockets.give_place_back(identity.user)


def _refuse(protocol: SocketProtocol, error: RequestError, code: CloseCode, grace_s: float) -> None:
    protocol.write(error_response(error))
    protocol.close(code, REASONS[code], grace_s)
