"""
The routes of the WebSocket: which handler answers which route.

A handler is called with a `Context` for each request, one request at a time per socket, in order::

    async def greet(context: Context) -> None:
        context.reply("greeting", {"text": "Hello"})       # to the socket that asked
        context.send_to_user("greeted", {})                # to all sockets of the user, in this process

It refuses a request by raising `RequestError`; any other exception becomes INTERNAL_SERVER_ERROR and a
line in the log. Work that goes on after the answer belongs in a task of its own: the socket's next
request waits until the handler returns.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from riverdelta_gateway.errors import bad_request
from riverdelta_gateway.frames import POST, SUBSCRIBE, Request
from riverdelta_gateway.routes import chats, token
from riverdelta_gateway.routes.context import Context
from riverdelta_gateway.routes.post import post
from riverdelta_gateway.services import Services
from riverdelta_gateway.socket import Dispatch, Socket

Handler = Callable[[Context], Awaitable[None]]

ROUTES: Final[Mapping[str, Handler]] = {
    POST: post,
    SUBSCRIBE: chats.subscribe,
    "/chats/unsubscribe": chats.unsubscribe,
    "/chats/stop": chats.stop,
    "/chats/list": chats.list_chats,
    "/token/renew": token.renew,
}
"""Route -> handler."""


def dispatcher(services: Services, routes: Mapping[str, Handler]) -> Dispatch:
    """
    Make the function that calls the handler of a request's route.

    It raises `RequestError` (BAD_REQUEST, naming the routes) for a route that *routes* does not have, and
    whatever the handler raises.
    """

    async def dispatch(socket: Socket, request: Request) -> None:
        handler = routes.get(request.route)
        if handler is None:
            raise bad_request(f"There is no such route; there are: {', '.join(sorted(routes))}.")
        await handler(Context(socket, request, services))

    return dispatch
