"""Whose chats are whose."""

from __future__ import annotations

import asyncio
from typing import Any

from riverdelta.broker.client import Client
from riverdelta.broker.user_chats import list_chats
from riverdelta_gateway.errors import no_such_chat


class Chats:
    """
    What users may see.

    Args:
        client: The chats' Redis and the queue's.
        open_to_all: ``--dev``: every chat is everybody's, also one that does not exist yet, so that a
            page may be open before anything was pushed.
    """

    def __init__(self, client: Client, *, open_to_all: bool) -> None:
        self._client = client
        self._open_to_all = open_to_all

    async def owner(self, chat_id: str) -> str | None:
        """Say who opened a chat; "" if nobody was named, None if it does not exist."""
        head = self._client.keys.chat(chat_id).head
        term, user = await self._client.chats.execute("HMGET", head, "term", "user")
        return None if term is None else (user or b"").decode()

    async def check_readable(self, chat_id: str, user: str) -> None:
        """
        See that *user* may follow and stop a chat.

        Raises:
            RequestError: NOT_FOUND: it does not exist, or is another's.
            BrokerUnavailable: Redis did not answer; try again.
        """
        if not self._open_to_all and await self.owner(chat_id) != user:
            raise no_such_chat()

    async def of_user(self, user: str) -> list[dict[str, Any]]:
        """List a user's chats, the last active first: ``chat_id`` and ``last_active_ms``."""
        listed = await list_chats(self._client, user)
        owners = await asyncio.gather(*(self.owner(chat_id) for chat_id, _ in listed))
        return [
            {"chat_id": chat_id, "last_active_ms": active_ms}
            for (chat_id, active_ms), owner in zip(listed, owners, strict=True)
            if owner == user
        ]
