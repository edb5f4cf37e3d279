"""Accepts posts, and tells the sockets of their users how the turns go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Final, Self

from riverdelta.broker.subscriber import Subscriber
from riverdelta.broker.users import Announcement
from riverdelta.core.errors import BrokerUnavailable
from riverdelta_gateway.chats import Chats
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.frames import response
from riverdelta_gateway.posting.assets import AssetCatalog
from riverdelta_gateway.posting.projection import PostFrame, Projection
from riverdelta_gateway.posting.request import AssetRef, Post, unknown_asset
from riverdelta_gateway.turns.queue import TurnQueue
from riverdelta_gateway.turns.turn import Turn

if TYPE_CHECKING:
    from riverdelta_gateway.sockets import Sockets

POST: Final = "/chats/post"

_PATIENCE_S: Final = 60.0
"""A chat is followed for this long while nothing is under way there; its next message is announced."""
_RETRY_S: Final = 0.25

_log = logging.getLogger("riverdelta.gateway")


class Posts:
    """
    The posts of this process, and the turns of all users who have sockets here. A context manager.

    Args:
        subscriber: Reads chats.
        sockets: Who is here; it hears of the turns that other processes accepted.
        chats: Whose chats are whose.
        catalog: Finds the assets that posts name.
        queue: Takes the turns.
    """

    def __init__(
        self,
        subscriber: Subscriber,
        sockets: Sockets,
        chats: Chats,
        *,
        catalog: AssetCatalog,
        queue: TurnQueue,
    ) -> None:
        self._subscriber = subscriber
        self._sockets = sockets
        self._chats = chats
        self._catalog = catalog
        self._queue = queue
        self._watches: dict[tuple[str, str], _Watch] = {}
        sockets.listen(self._on_announcement)

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Tell nobody anything any more."""
        tasks = [watch.task for watch in self._watches.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def accept(self, user: str, post: Post) -> Turn:
        """
        Put the turn that *post* asks for on the queue.

        Raises:
            RequestError: NOT_FOUND: the asset, the chat or the message is not there for this user.
            BrokerUnavailable: Redis did not answer; try again.
        """
        asset = await self.check_asset(post)
        if post.chat_id is not None:
            await self._chats.check_readable(post.chat_id, user)
        if post.chat_id is not None and post.message_id is not None:
            await self._check_message(post.chat_id, post.message_id)
        turn = Turn(
            chat_id=post.chat_id or f"c-{secrets.token_hex(8)}",
            message_id=new_message_id(),
            user=user,
            prompt=post.prompt,
            asset_type=None if asset is None else asset.type,
            asset_id=None if asset is None else asset.id,
            from_message=post.message_id,
        )
        await self.ask(turn)
        return turn

    async def check_asset(self, post: Post) -> AssetRef | None:
        """
        Give the asset that *post* names, if any.

        Raises:
            RequestError: NOT_FOUND: there is none.
        """
        asset = post.asset
        if asset is not None and await self._catalog.get(asset.type, asset.id) is None:
            raise unknown_asset(asset)
        return asset

    async def ask(self, turn: Turn) -> None:
        """
        Put a turn on the queue, and tell the user's sockets how it goes.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        await self._queue.ask(turn)
        self._watch(turn.user, turn.chat_id, turn.message_id)

    async def _check_message(self, chat_id: str, message_id: str) -> None:
        snapshot = await self._subscriber.snapshot(chat_id)
        if message_id not in (message["message"] for message in snapshot.data["messages"]):
            raise RequestError(
                "NOT_FOUND", "message_id: there is no message with this id in the chat"
            )

    # -- telling ---------------------------------------------------------------------------------

    def _on_announcement(self, user: str, announcement: Announcement) -> None:
        self._watch(user, announcement.chat_id, announcement.message_id)

    def _watch(self, user: str, chat_id: str, message_id: str) -> None:
        key = (user, chat_id)
        watch = self._watches.get(key)
        if watch is None or watch.task.done():
            watch = self._watches[key] = _Watch(self._subscriber, self._sockets, user, chat_id)
            watch.task.add_done_callback(lambda task: self._forget(key, task))
        watch.projection.expect(message_id)

    def _forget(self, key: tuple[str, str], task: asyncio.Task[None]) -> None:
        if self._watches[key].task is task:
            del self._watches[key]


class _Watch:
    """
    Follows a chat while a turn is under way there.

    Attributes:
        projection: What its sockets are to be told.
        task: Done when nothing is to be told any more.
    """

    def __init__(self, subscriber: Subscriber, sockets: Sockets, user: str, chat_id: str) -> None:
        self.projection = Projection(chat_id)
        self._subscriber = subscriber
        self._sockets = sockets
        self._user = user
        self._chat_id = chat_id
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

    async def _follow(self) -> None:
        async with contextlib.aclosing(self._subscriber.events(self._chat_id)) as events:
            while not self.projection.idle:
                patience_s = None if self.projection.under_way else _PATIENCE_S
                async with asyncio.timeout(patience_s):
                    event = await anext(events)
                for frame in self.projection.apply(event):
                    self._send(frame, event.position)

    def _send(self, frame: PostFrame, position: str) -> None:
        if self._sockets.of_user(self._user):
            self._sockets.send_to_user(self._user, spell(frame, self._user, position))


def spell(frame: PostFrame, user: str, position: str) -> bytes:
    """Spell a frame as a response to all sockets of *user*."""
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


def new_message_id() -> str:
    """Make the id of a turn."""
    return f"m-{secrets.token_hex(8)}"
