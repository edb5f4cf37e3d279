"""Follow chats where turns run, and send each turn's progress to the sockets of its user."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Iterator
from typing import Final, Self

from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta.broker.user_chats import Announcement, open_messages
from riverdelta.core.errors import BrokerUnavailable, RiverdeltaError
from riverdelta_gateway.access import ChatAccess
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.frames import POST, response
from riverdelta_gateway.posting.projection import PostFrame, Projection
from riverdelta_gateway.socket import Socket
from riverdelta_gateway.sockets import Sockets

_IDLE_S: Final = 60.0
"""A chat without a running turn is followed for this long; its next message is announced anyway."""
_RETRY_S: Final = 0.25
_LOOKS: Final = 20
"""Users that are looked up at the same time: after a lost connection, all are."""
_OPENING_S: Final = 1.0
"""A message is open this long after it was announced, or its producer has no Redis."""

_log = logging.getLogger("riverdelta.gateway")


class Watches:
    """
    The chats that this process follows for its users. An async context manager.

    A user's turns are watched by every process where the user has sockets, whichever accepted the post:
    turns that begin are announced, and those under way are looked up when the user's first socket comes.
    A socket that comes while a turn runs gets ``initializeChat`` first.

    Args:
        subscriber: Reads chats.
        access: Chat ownership.
        sockets: Get the frames; they announce the turns that other processes accepted.
    """

    def __init__(self, subscriber: ChatReader, access: ChatAccess, sockets: Sockets) -> None:
        self._subscriber = subscriber
        self._access = access
        self._sockets = sockets
        self._watches: dict[tuple[str, str], _Watch] = {}
        self._answering: dict[str, list[asyncio.Event]] = {}
        """User -> the posts that are being answered."""
        self._looks: set[asyncio.Task[None]] = set()
        self._look_slots = asyncio.Semaphore(_LOOKS)
        sockets.listen(self._on_announcement)
        sockets.listen_arrivals(self._greet)
        sockets.listen_missed(self._look_soon)

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cancel all watches."""
        tasks = [*(watch.task for watch in self._watches.values()), *self._looks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        """Count the chats that are watched."""
        return len(self._watches)

    def watch(self, user: str, chat_id: str, message_id: str) -> None:
        """
        Send the progress of a turn, which may not have begun, to all sockets of *user*.

        If the chat turns out to be another user's, they get one error instead, and nothing of the chat.
        """
        self._follow(user, chat_id, message_id).asked.add(message_id)

    @contextlib.contextmanager
    def answering(self, user: str) -> Iterator[None]:
        """Hold the frames of the user's turns back: a post that is being answered has its answer first."""
        answered = asyncio.Event()
        of_user = self._answering.setdefault(user, [])
        of_user.append(answered)
        try:
            yield
        finally:
            answered.set()
            of_user.remove(answered)
            if not of_user:
                del self._answering[user]

    async def _answered(self, user: str) -> None:
        """Wait until the posts of *user* that are being answered now have their answers."""
        for answered in tuple(self._answering.get(user, ())):
            await answered.wait()

    def _follow(self, user: str, chat_id: str, message_id: str) -> _Watch:
        key = (user, chat_id)
        watch = self._watches.get(key)
        if watch is None or watch.task.done():
            watch = self._watches[key] = _Watch(
                self._subscriber,
                self._access,
                self._sockets,
                user,
                chat_id,
                answered=self._answered,
            )
            watch.task.add_done_callback(lambda task: self._forget(key, task))
        watch.projection.expect(message_id)
        return watch

    def _greet(self, socket: Socket) -> None:
        """Send a socket that has come the chats where turns of its user run."""
        for (user, _), watch in self._watches.items():
            if user == socket.user:
                for frame in watch.projection.greet():
                    socket.send(encode_frame(frame, user, watch.position))

    def _look_soon(self, user: str) -> None:
        task = asyncio.create_task(self._look(user), name=f"riverdelta-look-{user}")
        self._looks.add(task)
        task.add_done_callback(self._looks.discard)

    async def _look(self, user: str) -> None:
        """Follow the user's turns under way; look twice, because a turn is announced before it is there."""
        for wait_s in (0.0, _OPENING_S):
            await asyncio.sleep(wait_s)
            followed = set(self._watches)  # they need no second look, and no second `complete`
            try:
                async with self._look_slots:
                    found = await open_messages(self._subscriber.client, user)
            except RiverdeltaError as error:
                _log.warning("looking for turns of user %s again: %s", user, error)
                continue
            for announcement in found:
                if (user, announcement.chat_id) not in followed:
                    self._on_announcement(user, announcement)

    def _on_announcement(self, user: str, announcement: Announcement) -> None:
        self._follow(user, announcement.chat_id, announcement.message_id)

    def _forget(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._watches[key].task is task:
            del self._watches[key]


class _Watch:
    """
    Follows one chat for one user while a turn runs.

    Attributes:
        projection: Makes frames of the chat's events.
        position: The last event that frames were made of.
        asked: Turns that this process accepted, and has to answer.
        task: Done when no turn runs or is expected.
    """

    def __init__(
        self,
        subscriber: ChatReader,
        access: ChatAccess,
        sockets: Sockets,
        user: str,
        chat_id: str,
        *,
        answered: Callable[[str], Awaitable[None]],
    ) -> None:
        self.projection = Projection(chat_id)
        self.position = ""
        self.asked: set[str] = set()
        self._subscriber = subscriber
        self._access = access
        self._sockets = sockets
        self._user = user
        self._chat_id = chat_id
        self._answered = answered
        self.task = asyncio.create_task(self._run(), name=f"riverdelta-posts-{chat_id}")

    async def _run(self) -> None:
        while not self.projection.idle:
            try:
                await self._follow()
            except BrokerUnavailable as error:
                _log.warning("following the turns of chat %s again: %s", self._chat_id, error)
                await asyncio.sleep(_RETRY_S)
            except TimeoutError:
                return
            except RequestError as refusal:
                self._refuse(refusal)
                return

    async def _follow(self) -> None:
        guard = self._access.guard(self._chat_id, self._user, owned=True)
        source = guard.events(self._subscriber.events(self._chat_id))
        async with contextlib.aclosing(source) as events:
            while not self.projection.idle:
                timeout_s = None if self.projection.under_way else _IDLE_S
                async with asyncio.timeout(timeout_s):
                    event = await anext(events)
                await self._answered(self._user)
                self.position = event.position
                for frame in self.projection.apply(event):
                    self._send(frame, event.position)

    def _refuse(self, refusal: RequestError) -> None:
        """Answer the turns that were accepted here and dropped: another user made the chat first."""
        for message_id in sorted(self.asked):
            about = {"chat_id": self._chat_id, "message_id": message_id}
            frame = response(
                POST, "error", about, error=refusal, sent_by=self._user, send_method="All"
            )
            self._sockets.send_to_user(self._user, frame)

    def _send(self, frame: PostFrame, position: str) -> None:
        if self._sockets.of_user(self._user):
            self._sockets.send_to_user(self._user, encode_frame(frame, self._user, position))


def encode_frame(frame: PostFrame, user: str, position: str) -> bytes:
    """Encode a frame as a response to all sockets of *user*."""
    error = None
    if frame.failure is not None:
        error = RequestError("INTERNAL_SERVER_ERROR", frame.failure["detail"])
    return response(
        POST,
        frame.event,
        frame.payload,
        error=error,
        sent_by=user,
        send_method="All",
        position=position,
    )
