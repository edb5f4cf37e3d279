"""One request on a WebSocket, and what its handler may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from riverdelta_gateway.errors import bad_request
from riverdelta_gateway.frames import Request, response
from riverdelta_gateway.routes.checks import checked_id
from riverdelta_gateway.services import Services
from riverdelta_gateway.socket import Socket


@dataclass(frozen=True, slots=True)
class Context:
    """
    One request, and what its handler may use.

    Attributes:
        socket: The socket that sent the request.
        request: Its route, payload and id.
        services: What the process shares.
    """

    socket: Socket
    request: Request
    services: Services

    @property
    def user(self) -> str:
        """Id of the user who asks."""
        return self.socket.user

    @property
    def payload(self) -> dict[str, Any]:
        """The request's arguments, not checked yet."""
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
        Send one response, encoded once, to all sockets that the user has in this process.

        For those in other processes see `Sockets.listen`. Unlike the events of a chat, such responses do
        not merge: a socket that leaves more than ``max_queued_bytes`` unread is closed with TOO_SLOW.
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
            RequestError: BAD_REQUEST: it is missing, or not an id.
        """
        value = self.payload.get(name)
        if not isinstance(value, str):
            raise bad_request(f"{name} must be a string.")
        return checked_id(name, value)
