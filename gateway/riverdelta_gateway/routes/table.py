"""
The routes of the WebSocket: a table that other modules add to.

A handler is registered by name, and called with a `Context` for each request, one at a time per
socket, in order::

    @route("/chats/post")
    async def post(context: Context) -> None:
        ...
        context.reply("accepted", {"chat_id": chat_id})        # to the socket that asked
        context.send_to_user("complete", chat)                 # to all sockets of the user, here

It refuses by raising `RequestError`; any other exception becomes INTERNAL_SERVER_ERROR and a line in
the log. What outlives the request (a projection, a reply) belongs into a task of its own, not into the
handler: the socket's next request waits for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from riverdelta.core.errors import InvalidIdError, InvalidPositionError
from riverdelta.core.ids import check_id
from riverdelta.core.positions import Position
from riverdelta_gateway.errors import bad_request
from riverdelta_gateway.frames import Request, response

if TYPE_CHECKING:
    from riverdelta_gateway.services import Services
    from riverdelta_gateway.sockets import Socket


@dataclass(frozen=True, slots=True)
class Context:
    """
    One request, and what its handler may use.

    Attributes:
        socket: Whence it came.
        request: Its route, payload and id.
        services: What the process shares: client, hub, sockets, settings, limits.
    """

    socket: Socket
    request: Request
    services: Services

    @property
    def user(self) -> str:
        """Who asks."""
        return self.socket.user

    @property
    def payload(self) -> dict[str, Any]:
        """The request's arguments; check them, nobody has."""
        return self.request.payload

    def reply(self, event: str, payload: Any) -> None:
        """Answer the socket that asked."""
        request = self.request
        self.socket.send(
            response(
                request.route,
                event,
                payload,
                sent_by=self.user,
                request_id=request.request_id,
            )
        )

    def send_to_user(self, event: str, payload: Any, *, position: str | None = None) -> None:
        """
        Send to all sockets that the user has in this process; what they all get is spelled once.

        Other processes: see `Sockets.listen`. Unlike the events of a chat, these do not merge: a socket
        that leaves more than ``max_queued_bytes`` of them unread is closed with TOO_SLOW.
        """
        frame = response(
            self.request.route,
            event,
            payload,
            sent_by=self.user,
            send_method="All",
            position=position,
        )
        self.services.sockets.send_to_user(self.user, frame)

    def id_in_payload(self, name: str) -> str:
        """
        Read an id from the payload.

        Raises:
            RequestError: BAD_REQUEST: it is not there, or not an id.
        """
        value = self.payload.get(name)
        if not isinstance(value, str):
            raise bad_request(f"{name} must be a string.")
        return checked_id(name, value)


Handler = Callable[[Context], Awaitable[None]]

ROUTES: Final[dict[str, Handler]] = {}
"""Route name -> handler. `route` adds to it; importing a module with handlers is enough."""


def route(name: str) -> Callable[[Handler], Handler]:
    """Register a handler under *name*."""

    def register(handler: Handler) -> Handler:
        ROUTES[name] = handler
        return handler

    return register


def handler_of(name: str) -> Handler:
    """
    Find the handler of a route.

    Raises:
        RequestError: BAD_REQUEST: there is none; it says which there are.
    """
    handler = ROUTES.get(name)
    if handler is None:
        raise bad_request(f"There is no such route; there are: {', '.join(sorted(ROUTES))}.")
    return handler


def checked_id(name: str, value: str) -> str:
    """
    Return *value* if it may be an id.

    Raises:
        RequestError: BAD_REQUEST.
    """
    try:
        return check_id(name, value)
    except InvalidIdError as error:
        raise bad_request(f"{error}.") from None


def checked_position(value: object) -> Position | None:
    """
    Read a position; None: there is none.

    Raises:
        RequestError: BAD_REQUEST.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        raise bad_request("after must be a position, a string such as 9f2c41aa:7.")
    try:
        return Position.parse(value)
    except InvalidPositionError:
        raise bad_request("after must be a position, a string such as 9f2c41aa:7.") from None
