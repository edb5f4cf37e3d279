"""Chat ownership: lookup and access checks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, Final

from riverdelta.broker.client import Client
from riverdelta.broker.user_chats import list_chats, user_of_chat
from riverdelta.core.errors import BrokerUnavailable
from riverdelta.core.events import Event
from riverdelta_gateway.errors import no_such_chat

_RETRY_S: Final = 0.25


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
        if not self.is_readable(await self.user_of(chat_id), user):
            raise no_such_chat()

    def is_readable(self, owner: str | None, user: str) -> bool:
        """Whether *user* may read a chat of *owner*, as `user_of` gives it."""
        return self._open_to_all or owner == user

    def owner_for(self, user: str) -> str | None:
        """Whose a chat must be so that *user* may write to it; None: whoever's it is."""
        return None if self._open_to_all else user

    def guard(self, chat_id: str, user: str, *, owned: bool = False) -> OwnerGuard:
        """
        Make what checks a chat's events before *user* gets them.

        Args:
            chat_id: The chat.
            user: Id of the user who reads.
            owned: The chat must be the user's own, with ``--dev``, too.
        """
        return OwnerGuard(self, chat_id, user, owned=owned)

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


class OwnerGuard:
    """
    Checks the owner where a chat's events may have become another user's.

    A chat has one owner for its life, and each life has an epoch of its own: so the first event that a
    reader gets, each snapshot and each new epoch are checked, after they were read and before they go out.

    Attributes:
        chat_id: The chat.
    """

    def __init__(self, access: ChatAccess, chat_id: str, user: str, *, owned: bool) -> None:
        self._access = access
        self.chat_id = chat_id
        self._user = user
        self._owned = owned
        self._epoch: str | None = None

    async def check(self, event: Event) -> None:
        """
        Check that the user may get *event*; waits while Redis does not answer.

        Raises:
            RequestError: NOT_FOUND: the chat is another user's, or gone.
        """
        if event.epoch == self._epoch and event.type != "snapshot":
            return
        owner = await self.owner()
        if owner is None and event.type == "snapshot" and not event.data["messages"]:
            return  # no such chat: who makes it is checked at its first event
        if owner != self._user and (self._owned or not self._access.is_readable(owner, self._user)):
            raise no_such_chat()
        self._epoch = event.epoch

    async def events(self, source: AsyncGenerator[Event, None]) -> AsyncGenerator[Event, None]:
        """Pass *source* on, each event checked; raises as `check`."""
        async with contextlib.aclosing(source):
            async for event in source:
                await self.check(event)
                yield event

    async def owner(self) -> str | None:
        """Look up the owner, as `ChatAccess.user_of`; waits while Redis does not answer."""
        while True:
            try:
                return await self._access.user_of(self.chat_id)
            except BrokerUnavailable:
                # The event was read: were it dropped, its reader would have a gap.
                await asyncio.sleep(_RETRY_S)
