"""Accepts posts, and tells the sockets of their users how the turns go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import TYPE_CHECKING, Final, Self

from riverdelta.broker.reader.subscriber import Subscriber
from riverdelta.broker.user_chats import Announcement
from riverdelta.core.errors import BrokerUnavailable
from riverdelta_gateway.access import Chats
from riverdelta_gateway.assets import AssetCatalog
from riverdelta_gateway.errors import RequestError
from riverdelta_gateway.frames import response
from riverdelta_gateway.posting.projection import PostFrame, Projection
from riverdelta_gateway.posting.request import Post, unknown_asset
from riverdelta_gateway.turn import Turn, turn_of
from riverdelta_gateway.turns.queue import TurnQueue

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

    async def accept(
        self, user: str, post: Post, *, prompt_id: str | None = None, may_begin: bool = False
    ) -> Turn:
        """
        Put the turn that *post* asks for on the queue, and tell the user's sockets how it goes.

        Args:
            user: Who posts.
            post: What they ask for.
            prompt_id: The client's own id of the prompt. A turn that replied to it is replaced.
            may_begin: The chat is begun if it is not there.

        Raises:
            RequestError: NOT_FOUND: the asset, the chat or the message is not there for this user.
            BrokerUnavailable: Redis did not answer; try again.
        """
        asset = post.asset
        if asset is not None and await self._catalog.get(asset.type, asset.id) is None:
            raise unknown_asset(asset)
        from_message = None
        if post.chat_id is not None:
            if not may_begin or await self._chats.owner(post.chat_id) is not None:
                await self._chats.check_readable(post.chat_id, user)
            from_message = await self._replaced(post.chat_id, post.message_id, prompt_id)
        turn = Turn(
            chat_id=post.chat_id or f"c-{secrets.token_hex(8)}",
            message_id=f"m-{secrets.token_hex(8)}",
            user=user,
            prompt=post.prompt,
            prompt_id=prompt_id,
            asset_type=None if asset is None else asset.type,
            asset_id=None if asset is None else asset.id,
            from_message=from_message,
        )
        await self._queue.ask(turn)
        self._watch(user, turn.chat_id, turn.message_id)
        return turn

    async def _replaced(
        self, chat_id: str, message_id: str | None, prompt_id: str | None
    ) -> str | None:
        """Find the first message that is to be replaced; None: none is."""
        if message_id is None and prompt_id is None:
            return None
        snapshot = await self._subscriber.snapshot(chat_id)
        for message in snapshot.data["messages"]:
            turn = turn_of(message["metadata"]) or {}
            is_reply = prompt_id is not None and prompt_id == turn.get("prompt_id")
            if is_reply or message_id == message["message"]:
                return str(message["message"])
        if message_id is not None:
            raise RequestError(
                "NOT_FOUND", "message_id: there is no message with this id in the chat"
            )
        return None

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
