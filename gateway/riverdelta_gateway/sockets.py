"""The sockets of this process: one `Socket` a WebSocket, and `Sockets`, who knows whose they are."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, Self

from starlette.websockets import WebSocket

from riverdelta.broker.client import Client
from riverdelta.broker.redis.pubsub import ShardedPubSub
from riverdelta.broker.user_chats import Announcement, read_announcement
from riverdelta.core.errors import BrokerUnavailable
from riverdelta_gateway.auth import Identity
from riverdelta_gateway.close_codes import REASONS, CloseCode
from riverdelta_gateway.errors import RequestError, safe_error
from riverdelta_gateway.frames import Request, error_response, parse_request
from riverdelta_gateway.protocol import SocketProtocol
from riverdelta_gateway.routes.table import Context, handler_of
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

if TYPE_CHECKING:
    from riverdelta_gateway.services import Services

_TICK_S: Final = 1.0

_log = logging.getLogger("riverdelta.gateway")


class Socket:
    """
    Drives one WebSocket: hands its session what happens, and does what that says.

    Attributes:
        user: Whose it is.
        session: Decides.
    """

    def __init__(self, protocol: SocketProtocol, identity: Identity, services: Services) -> None:
        gateway = services.gateway
        self._loop = asyncio.get_running_loop()
        expires_in_s = identity.expires_in_s
        self.user = identity.user
        self.session = Session(
            SessionLimits(
                max_chats=gateway.max_chats_per_socket,
                max_queued_bytes=gateway.max_queued_bytes,
                stall_timeout_s=gateway.stall_timeout_s,
                deadline_s=None if expires_in_s is None else self._loop.time() + expires_in_s,
            )
        )
        self._services = services
        self._protocol = protocol
        self._ready = asyncio.Event()
        self._ready.set()
        self._catch_ups: deque[Subscription] = deque()
        self._catching_up: asyncio.Task[None] | None = None
        protocol.on_blocked = self._on_blocked
        protocol.on_drained = self._on_drained
        protocol.on_lost = self._on_lost

    # -- for handlers ----------------------------------------------------------------------------

    def send(self, frame: bytes) -> None:
        """Send a response, made by `frames.response`; it waits its turn behind what waits already."""
        self.perform(self.session.send(frame))

    def perform(self, outputs: Sequence[Output]) -> None:
        """Do what the session says."""
        for output in outputs:
            match output:
                case Write(frame):
                    self._protocol.write(frame)
                case CatchUp(subscription):
                    self._catch_up_soon(subscription)
                case Leave(subscription):
                    self._services.hub.leave(subscription)
                case Close(code):
                    grace_s = 0 if code is CloseCode.TOO_SLOW else self._services.gateway.shutdown_s
                    self._protocol.close(code, REASONS[code], grace_s)
        if self.session.closed:
            self._ready.set()  # whoever waits may go home
        elif not self.session.ready:
            self._ready.clear()

    # -- its life --------------------------------------------------------------------------------

    async def serve(self, websocket: WebSocket) -> None:
        """Answer requests, one after the other, until the client or the session ends it."""
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
        """Wait until answers may pile up again: who reads none of them asks no more."""
        while self.session.queued_bytes > self._services.gateway.max_queued_bytes // 2:
            await self.until_ready()

    async def until_ready(self) -> None:
        """Wait until the socket takes bytes and nothing waits, or the session is over."""
        await self._ready.wait()

    def tick(self) -> None:
        """Let the session look at the clock."""
        self.perform(self.session.tick(self._loop.time(), self._protocol.unsent_bytes))

    @property
    def unsent_bytes(self) -> int:
        """All that this process holds for the client: what is queued, and what the kernel refused."""
        return self.session.queued_bytes + self._protocol.unsent_bytes

    # -- as the hub's reader ---------------------------------------------------------------------

    def take(self, subscription: Subscription, delivery: Delivery) -> None:
        """Take an event from the chat's feed."""
        outputs = self.session.event(subscription, delivery)
        if outputs:
            self.perform(outputs)

    def take_read(self, subscription: Subscription, delivery: Delivery) -> None:
        """Take an event that a catch-up read."""
        self.perform(self.session.read(subscription, delivery))

    def take_caught_up(self, subscription: Subscription) -> None:
        """Hear that a catch-up is done."""
        self.perform(self.session.caught_up(subscription))

    # -- inside ----------------------------------------------------------------------------------

    async def _answer(self, data: str | bytes) -> None:
        request: Request | None = None
        try:
            request = parse_request(data, self._services.gateway.max_message_bytes)
            handler = handler_of(request.route)
            await handler(Context(self, request, self._services))
        except Exception as error:  # noqa: BLE001  # whatever a handler raises ends its request only
            what = "a request" if request is None else f"route {request.route!r}"
            self.send(error_response(safe_error(error, f"{what} of user {self.user}"), request))

    def _catch_up_soon(self, subscription: Subscription) -> None:
        """Catch up after those that wait already: one snapshot at a time is on its way."""
        self._catch_ups.append(subscription)
        if self._catching_up is None or self._catching_up.done():
            self._catching_up = asyncio.create_task(self._catch_up(), name="riverdelta-catch-up")

    async def _catch_up(self) -> None:
        while self._catch_ups:
            await self._services.hub.catch_up(self._catch_ups.popleft(), self)

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


Listener = Callable[[str, Announcement], None]


class Sockets:
    """
    All sockets of this process; an async context manager.

    Every process with sockets of a user hears of the user's messages: see `listen`.

    Args:
        client: Its queue's Redis announces.
        max_per_user: Sockets and streams that one user may have here.
    """

    def __init__(self, client: Client, max_per_user: int) -> None:
        self._client = client
        self._max_per_user = max_per_user
        self._of_user: dict[str, set[Socket]] = {}
        self._places: Counter[str] = Counter()
        self._listeners: list[Listener] = []
        settings = client.settings
        self._pubsub = ShardedPubSub(
            settings.effective_queue_url,
            settings.command_timeout_s,
            on_message=self._on_announcement,
            # An announcement that was missed is in the user's list all the same.
            on_gap=lambda _: None,
        )
        self._ticker: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """
        Connect.

        Raises:
            BrokerUnavailable: No server there.
        """
        await self._pubsub.start()
        self._ticker = asyncio.create_task(self._tick(), name="riverdelta-sockets-tick")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect; sockets that are left are closed by the server."""
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
        await self._pubsub.aclose()

    def __len__(self) -> int:
        """Sockets of all users."""
        return sum(len(sockets) for sockets in self._of_user.values())

    def of_user(self, user: str) -> Sequence[Socket]:
        """List the sockets that a user has in this process."""
        return tuple(self._of_user.get(user, ()))

    def send_to_user(self, user: str, frame: bytes) -> None:
        """Send a response, made by `frames.response`, to all sockets that a user has here."""
        for socket in self.of_user(user):
            socket.send(frame)

    def listen(self, listener: Listener) -> None:
        """Call *listener* with user and announcement when a message of a user who is here is opened."""
        self._listeners.append(listener)

    def take_place(self, user: str) -> None:
        """
        Count a socket, or another stream that stays open; `give_place_back` when it ends.

        Raises:
            RequestError: RATE_LIMITED: the user has too many of them.
        """
        if self._places[user] >= self._max_per_user:
            raise RequestError(
                "RATE_LIMITED", "You have too many sockets and streams open: close one first."
            )
        self._places[user] += 1

    def give_place_back(self, user: str) -> None:
        """Count one that has ended."""
        self._places -= Counter((user,))  # keeps no zeros

    async def add(self, socket: Socket) -> None:
        """List a socket, and hear from now on what is announced to its user."""
        sockets = self._of_user.setdefault(socket.user, set())
        sockets.add(socket)
        if len(sockets) == 1:
            try:
                await self._pubsub.subscribe(self._client.keys.user_chats(socket.user))
            except BrokerUnavailable as error:
                _log.warning("announcements of user %s are missing: %s", socket.user, error)

    async def remove(self, socket: Socket) -> None:
        """Strike a socket off."""
        sockets = self._of_user.get(socket.user, set())
        sockets.discard(socket)
        if not sockets and self._of_user.pop(socket.user, None) is not None:
            await self._pubsub.unsubscribe(self._client.keys.user_chats(socket.user))

    def close_all(self, code: CloseCode) -> None:
        """Close every socket with *code*."""
        for user in tuple(self._of_user):
            for socket in self.of_user(user):
                socket.perform(socket.session.close(code))

    def _on_announcement(self, channel: str, payload: bytes) -> None:
        try:
            announcement = read_announcement(payload)
        except ValueError:
            _log.warning("something that is no announcement on %s", channel)
            return
        user = self._client.keys.user_of_chats(channel)
        for listener in self._listeners:
            listener(user, announcement)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            for user in tuple(self._of_user):
                for socket in self.of_user(user):
                    socket.tick()
