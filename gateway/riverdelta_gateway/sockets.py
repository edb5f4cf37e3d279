"""All sockets of this process, by user, and the announcements of their users' messages."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from typing import Final, Self

from riverdelta.broker.client import Client
from riverdelta.broker.redis.pubsub import ShardedPubSub
from riverdelta.broker.user_chats import Announcement, read_announcement
from riverdelta.core.errors import BrokerUnavailable
from riverdelta_gateway.close_codes import CloseCode
from riverdelta_gateway.socket import Socket

Listener = Callable[[str, Announcement], None]
ArrivalListener = Callable[[Socket], None]
MissedListener = Callable[[str], None]

_RETRY_S: Final = 0.25

_log = logging.getLogger("riverdelta.gateway")


class Sockets:
    """
    The sockets of this process. An async context manager.

    While a user has a socket here, this process is subscribed to the user's announcements: see `listen`.

    Args:
        client: Its queue's Redis carries the announcements.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._of_user: dict[str, set[Socket]] = {}
        self._listeners: list[Listener] = []
        self._arrival_listeners: list[ArrivalListener] = []
        self._missed_listeners: list[MissedListener] = []
        self._subscribing: set[asyncio.Task[None]] = set()
        settings = client.settings
        self._pubsub = ShardedPubSub(
            settings.effective_queue_url,
            settings.command_timeout_s,
            on_message=self._on_announcement,
            on_gap=self._on_gap,
        )

    async def __aenter__(self) -> Self:
        """
        Connect.

        Raises:
            BrokerUnavailable: No server there.
        """
        await self._pubsub.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Disconnect. The server closes the sockets that are left."""
        for task in self._subscribing:
            task.cancel()
        await asyncio.gather(*self._subscribing, return_exceptions=True)
        await self._pubsub.aclose()

    def __len__(self) -> int:
        """Count the sockets of all users."""
        return sum(len(sockets) for sockets in self._of_user.values())

    def all(self) -> list[Socket]:
        """List the sockets of all users."""
        return [socket for sockets in self._of_user.values() for socket in sockets]

    def of_user(self, user: str) -> Sequence[Socket]:
        """List the sockets that a user has in this process."""
        return tuple(self._of_user.get(user, ()))

    def send_to_user(self, user: str, frame: bytes) -> None:
        """Send a response, made by `frames.response`, to all sockets that a user has here."""
        for socket in self.of_user(user):
            socket.send(frame)

    def listen(self, listener: Listener) -> None:
        """Call *listener* with user and announcement when a user who is here opens a message."""
        self._listeners.append(listener)

    def listen_arrivals(self, listener: ArrivalListener) -> None:
        """Call *listener* with each socket that was added."""
        self._arrival_listeners.append(listener)

    def listen_missed(self, listener: MissedListener) -> None:
        """Call *listener* with a user whose announcements may have been missed up to now."""
        self._missed_listeners.append(listener)

    async def add(self, socket: Socket) -> None:
        """Register a socket; the first one of its user subscribes to the user's announcements."""
        sockets = self._of_user.setdefault(socket.user, set())
        sockets.add(socket)
        if len(sockets) == 1:
            try:
                await self._pubsub.subscribe(self._client.keys.user_chats(socket.user))
            except BrokerUnavailable as error:
                _log.warning("user %s gets no announcements yet: %s", socket.user, error)
                self._subscribe_later(socket.user)
            else:
                self._on_missed(socket.user)
        for listener in self._arrival_listeners:
            listener(socket)

    async def remove(self, socket: Socket) -> None:
        """Deregister a socket; the last one of its user ends the subscription."""
        sockets = self._of_user.get(socket.user, set())
        sockets.discard(socket)
        if not sockets and self._of_user.pop(socket.user, None) is not None:
            await self._pubsub.unsubscribe(self._client.keys.user_chats(socket.user))

    def close_all(self, code: CloseCode) -> None:
        """Close every socket with *code*."""
        for socket in self.all():
            socket.perform(socket.session.close(code))

    def _subscribe_later(self, user: str) -> None:
        task = asyncio.create_task(self._subscribe(user), name=f"riverdelta-announcements-{user}")
        self._subscribing.add(task)
        task.add_done_callback(self._subscribing.discard)

    async def _subscribe(self, user: str) -> None:
        """Subscribe to a user's announcements as soon as Redis is back, while the user is here."""
        while user in self._of_user:
            await asyncio.sleep(_RETRY_S)
            try:
                await self._pubsub.subscribe(self._client.keys.user_chats(user))
            except BrokerUnavailable:
                continue
            if user in self._of_user:
                self._on_missed(user)
            else:  # the last socket went meanwhile
                await self._pubsub.unsubscribe(self._client.keys.user_chats(user))
            return

    def _on_missed(self, user: str) -> None:
        for listener in self._missed_listeners:
            listener(user)

    def _on_gap(self, channels: Collection[str]) -> None:
        for channel in channels:
            self._on_missed(self._client.keys.user_of_chats(channel))

    def _on_announcement(self, channel: str, payload: bytes) -> None:
        try:
            announcement = read_announcement(payload)
        except ValueError:
            _log.warning("ignoring a message on %s that is no announcement", channel)
            return
        user = self._client.keys.user_of_chats(channel)
        for listener in self._listeners:
            listener(user, announcement)
