"""Accept posts: check what they name, and queue the turn that they ask for."""

from __future__ import annotations

import secrets
from typing import Final

from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta_gateway.access import ChatAccess
from riverdelta_gateway.assets import AssetCatalog
from riverdelta_gateway.errors import RequestError, bad_request, no_such_chat
from riverdelta_gateway.posting.request import Post, unknown_asset
from riverdelta_gateway.posting.watch import Watches
from riverdelta_gateway.turn import Turn, turn_of
from riverdelta_gateway.turns.queue import TurnQueue

MIN_CHOSEN_ID_CHARS: Final = 16
"""Shortest id of a new chat that a client chooses: nobody guesses an id that another will use. The AI
SDK's have 16 characters of 62 kinds."""


class Posts:
    """
    Accepts the posts of this process.

    Args:
        subscriber: Reads chats.
        access: Chat ownership.
        catalog: Finds the assets that posts name.
        queue: Takes the turns.
        watches: Send an accepted turn's progress to the user's sockets.
    """

    def __init__(
        self,
        subscriber: ChatReader,
        access: ChatAccess,
        *,
        catalog: AssetCatalog,
        queue: TurnQueue,
        watches: Watches,
    ) -> None:
        self._subscriber = subscriber
        self._access = access
        self._catalog = catalog
        self._queue = queue
        self._watches = watches

    async def accept(
        self, user: str, post: Post, *, prompt_id: str | None = None, may_begin: bool = False
    ) -> Turn:
        """
        Queue the turn that *post* asks for, and watch it for the user's sockets.

        Args:
            user: Id of the user who posts.
            post: The request.
            prompt_id: The client's own id of the prompt. A turn that replied to it is replaced.
            may_begin: Whether a chat that does not exist is begun, instead of refused.

        Raises:
            RequestError: NOT_FOUND: the asset, the chat or the message does not exist for this user.
                BAD_REQUEST: the id of a new chat is too short.
            BrokerUnavailable: Redis did not answer; try again.
        """
        asset = post.asset
        if asset is not None and await self._catalog.get(user, asset.type, asset.id) is None:
            raise unknown_asset(asset)
        from_message = None
        if post.chat_id is not None:
            await self._check_chat(post.chat_id, user, may_begin=may_begin)
            from_message = await self._first_replaced(post.chat_id, post.message_id, prompt_id)
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
        self._watches.watch(user, turn.chat_id, turn.message_id)
        return turn

    async def _check_chat(self, chat_id: str, user: str, *, may_begin: bool) -> None:
        """Check that the chat is the user's own, or can be begun; opening the reply checks it again."""
        owner = await self._access.user_of(chat_id)
        if owner == user:
            return
        if may_begin and len(chat_id) < MIN_CHOSEN_ID_CHARS:
            raise bad_request(
                f"the id of a new chat must have {MIN_CHOSEN_ID_CHARS} random characters or more"
            )
        if owner is not None or not may_begin:
            raise no_such_chat()

    async def _first_replaced(
        self, chat_id: str, message_id: str | None, prompt_id: str | None
    ) -> str | None:
        """Find the first message that the turn replaces; None: it replaces none."""
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
