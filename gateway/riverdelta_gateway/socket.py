"""One WebSocket: gives its session what happens, and carries out what the session decides."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from starlette.websockets import WebSocket

from riverdelta_gateway.auth import Identity
from riverdelta_gateway.close_codes import REASONS, CloseCode
from riverdelta_gateway.errors import no_such_chat, safe_error
from riverdelta_gateway.frames import SUBSCRIBE, Request, error_response, parse_request, response
from riverdelta_gateway.hub import Hub
from riverdelta_gateway.protocol import SocketProtocol
from riverdelta_gateway.send_queue import Delivery
from riverdelta_gateway.session import (
    CatchUp,
    Close,
    Leave,
    Output,
    Session,
    SessionLimits,
    Subscription,
    Write,
)
from riverdelta_gateway.transitions import State


@dataclass(frozen=True, slots=True)
class SocketLimits:
    """
    What one socket may use. `GatewaySettings` has the same names, and says what each is for.

    Attributes:
        max_chats: Subscriptions at the same time.
        max_queued_bytes: Size of its send queue.
        max_message_bytes: Size of a request.
        stall_timeout_s: A client that takes no byte for this long is closed.
        close_grace_s: Time to take the close frame before the connection is cut off.
    """

    max_chats: int
    max_queued_bytes: int
    max_message_bytes: int
    stall_timeout_s: float
    close_grace_s: float


class Socket:
    """
    Drives one WebSocket.

    Args:
        protocol: The connection.
        identity: Its user, and when the token expires.
        hub: The chats that it can subscribe to.
        limits: What it may use.
        dispatch: Answers a request, or raises what becomes the error response.

    Attributes:
        user: Its user's id.
        session: Decides; see `perform`.
    """

    def __init__(
        self,
        protocol: SocketProtocol,
        identity: Identity,
        *,
        hub: Hub,
        limits: SocketLimits,
        dispatch: Dispatch,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.user = identity.user
        self.session = Session(
            SessionLimits(
                max_chats=limits.max_chats,
                max_queued_bytes=limits.max_queued_bytes,
                stall_timeout_s=limits.stall_timeout_s,
                deadline_s=self._deadline_s(identity),
            )
        )
        self._protocol = protocol
        self._hub = hub
        self._limits = limits
        self._dispatch = dispatch
        self._ready = asyncio.Event()
        self._ready.set()
        self._catch_ups: deque[Subscription] = deque()
        self._catching_up: asyncio.Task[None] | None = None
        protocol.on_blocked = self._on_blocked
        protocol.on_drained = self._on_drained
        protocol.on_lost = self._on_lost

    # -- for handlers ----------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send a response, made by `frames.response`, behind what is queued already."""
        self.perform(self.session.send(frame))

    def renew(self, identity: Identity) -> None:
        """End with the token of *identity*, instead of the one before."""
        self.session.renew(self._deadline_s(identity))

    def perform(self, outputs: Sequence[Output]) -> None:
        """Carry out what the session decided, in order."""
        for output in outputs:
            match output:
                case Write(frame):
                    self._protocol.write(frame)
                case CatchUp(subscription):
                    self._catch_up_soon(subscription)
                case Leave(subscription):
                    self._hub.leave(subscription)
                case Close(code):
                    grace_s = 0 if code is CloseCode.TOO_SLOW else self._limits.close_grace_s
                    self._protocol.close(code, REASONS[code], grace_s)
        if self.session.closed:
            self._ready.set()  # releases all that wait; they see that the session is closed
        elif not self.session.ready:
            self._ready.clear()

    # -- its life --------------------------------------------------------------------------------

    async def serve(self, websocket: WebSocket) -> None:
        """Answer requests one at a time, until the client or the session ends the connection."""
        try:
            while not self.session.closed:
                message = await websocket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                await self._answer(message.get("text") or message.get("bytes") or b"")
                await self.until_room()
        finally:
            self._on_lost()
            if self._catching_up is not None:
                self._catching_up.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._catching_up

    async def until_room(self) -> None:
        """Wait until the send queue is half empty: a client that reads no answers asks no more."""
        while self.session.queued_bytes > self._limits.max_queued_bytes // 2:
            await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until the socket takes bytes and nothing is queued, or the session is closed."""
        await self._ready.wait()

    def tick(self) -> None:
        """Let the session compare its deadlines with the clock."""
        self.perform(self.session.tick(self._loop.time(), self._protocol.unsent_bytes))

    @property
    def unsent_bytes(self) -> int:
        """Bytes that this process holds for the client: in the send queue, and in the transport."""
        return self.session.queued_bytes + self._protocol.unsent_bytes

    # -- as the hub's reader ---------------------------------------------------------------------

    def take(self, subscription: Subscription, delivery: Delivery) -> None:
        """Take a live event."""
        outputs = self.session.event(subscription, delivery)
        if outputs:
            self.perform(outputs)

    def take_read(self, subscription: Subscription, delivery: Delivery) -> None:
        """Take an event that a catch-up read."""
        self.perform(self.session.read(subscription, delivery))

    def take_caught_up(self, subscription: Subscription) -> None:
        """Note that a catch-up is done."""
        self.perform(self.session.caught_up(subscription))

    def take_refused(self, subscription: Subscription) -> None:
        """End a subscription: the chat is not, or no longer, its user's."""
        if subscription.state is State.CLOSED:
            return
        self.perform(self.session.unsubscribe(subscription.chat_id))
        about = {"chat_id": subscription.chat_id}
        self.send(response(SUBSCRIBE, "error", about, error=no_such_chat()))

    # -- inside ----------------------------------------------------------------------------------

    def _deadline_s(self, identity: Identity) -> float | None:
        left_s = identity.expires_in_s
        return None if left_s is None else self._loop.time() + left_s

    async def _answer(self, data: str | bytes) -> None:
        request: Request | None = None
        try:
            request = parse_request(data, self._limits.max_message_bytes)
            await self._dispatch(self, request)
        except Exception as error:  # noqa: BLE001  # whatever a handler raises ends its request only
            what = "a request" if request is None else f"route {request.route!r}"
            self.send(error_response(safe_error(error, f"{what} of user {self.user}"), request))

    def _catch_up_soon(self, subscription: Subscription) -> None:
        """Queue a catch-up: a socket runs one at a time, so at most one snapshot is in memory."""
        self._catch_ups.append(subscription)
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up(), name="riverdelta-catch-up")

    async def _catch_up(self) -> None:
        while self._catch_ups:
            await self._hub.catch_up(self._catch_ups.popleft(), self)

    def _on_blocked(self) -> None:
        self.session.blocked()
        if not self.session.closed:
            self._ready.clear()

    def _on_lost(self) -> None:
        self.perform(self.session.close())

    def _on_drained(self) -> None:
        while self._protocol.can_write:
            outputs = self.session.drained()
            if not outputs:
                break
            self.perform(outputs)
        if self.session.ready:
            self._ready.set()


Dispatch = Callable[[Socket, Request], Awaitable[None]]
