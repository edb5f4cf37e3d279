"""Chat ownership: lookup and access checks."""

from __future__ import annotations

import asyncio
from typing import Any

from riverdelta.broker.client import Client
from riverdelta.broker.user_chats import list_chats, user_of_chat
from riverdelta_gateway.errors import no_such_chat


class ChatAccess:
    """
    Decides which user may read and stop which chat.

    Args:
        client: The chats' Redis and the queue's.
        open_to_all: ``--dev``: every user may read every chat, also one that does not exist yet, so that
            a page can be open before anything is pushed.
    """

    def __init__(self, client: Client, *, open_to_all: bool) -> None:
        self._client = client
        self._open_to_all = open_to_all

    async def user_of(self, chat_id: str) -> str | None:
        """
        Look up the user that a chat was opened for; "": none was named; None: the chat does not exist.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        return await user_of_chat(self._client, chat_id)

    async def check_readable(self, chat_id: str, user: str) -> None:
        """
        Check that *user* may read and stop a chat.

        Raises:
            RequestError: NOT_FOUND: the chat does not exist, or belongs to another user.
            BrokerUnavailable: Redis did not answer; try again.
        """
        if not self._open_to_all and await self.user_of(chat_id) != user:
            raise no_such_chat()

    async def chats_of(self, user: str) -> list[dict[str, Any]]:
        """
        List a user's chats, the last active first: ``chat_id`` and ``last_active_ms``.

        Raises:
            BrokerUnavailable: Redis did not answer; try again.
        """
        listed = await list_chats(self._client, user)
        users = await asyncio.gather(*(self.user_of(chat_id) for chat_id, _ in listed))
        return [
            {"chat_id": chat_id, "last_active_ms": active_ms}
            for (chat_id, active_ms), opened_for in zip(listed, users, strict=True)
            if opened_for == user
        ]
