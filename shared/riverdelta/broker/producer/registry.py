"""The messages of one producer process, and what they share: its id, limits and lists on Redis."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from typing import Final, NamedTuple, Protocol

from redis.exceptions import RedisError

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.producer.resend_buffer import Resends
from riverdelta.broker.store import members, scripts
from riverdelta.broker.store.scripts import PushLimits
from riverdelta.broker.user_chats import Announcement, announce, remove_chat
from riverdelta.core.errors import BrokerUnavailable, MessageExists, RiverdeltaError

_ID_BYTES: Final = 8
"""Random bytes of an id: enough that no two producers have the same."""

_log = logging.getLogger("riverdelta.producer")


class Opening(NamedTuple):
    """
    What opens a message.

    Attributes:
        chat_id, message_id: Where it is stored, and under which id.
        user: Owner of the chat; None: none was named, and a chat that this message makes has no owner.
        source: How its raw chunks are encoded; one of `riverdelta.SOURCES`.
        start: Its first entry, as JSON.
        adopts: It is a turn that was accepted. None: it is opened. Else the entry, as JSON, that says who
            writes it; *start* is for a server that has lost the message.
    """

    chat_id: str
    message_id: str
    user: str | None
    source: str
    start: bytes
    adopts: bytes | None = None


class Registered(Protocol):
    """The part of a message's delivery that the registry and the producer's loops use."""

    opening: Opening

    @property
    def is_ended(self) -> bool:
        """Whether its end is stored, by this producer or by a worker."""

    def is_due(self) -> bool:
        """Whether to `check` now."""

    async def check(self) -> bool:
        """Read its state, and do what is due; True: it needs no more checks."""

    def look_soon(self) -> None:
        """Note that the server lost some of the chat; `check` is due now."""

    def release(self) -> None:
        """Drop what is kept to be sent again."""


class Registry:
    """
    The messages of one producer process, in memory and on the queue's Redis.

    Args:
        client: Connections; the caller opens and closes them.

    Attributes:
        id: Producer id; random for each process start.
        limits: Back-pressure limits of a chat.
        resends: Entries kept to be sent again, of all messages.
    """

    def __init__(self, client: Client) -> None:
        self.client = client
        self.id = new_token()
        settings = client.settings
        self.limits = PushLimits(settings.max_backlog_chunks, settings.max_backlog_bytes)
        self.resends = Resends(settings.resend_bytes)
        self._messages: dict[str, dict[str, Registered]] = {}
        self._requested: dict[str, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def messages(self) -> list[Registered]:
        """List the messages that are open, or kept to be sent again."""
        return [message for of_chat in self._messages.values() for message in of_chat.values()]

    async def register(self, message: Registered) -> None:
        """
        List a message under this producer, before it is opened.

        Raises:
            MessageExists: This producer has it open, or it has just ended; use another id.
            BrokerUnavailable: The queue's Redis did not answer; register it again.
        """
        chat_id, message_id = message.opening.chat_id, message.opening.message_id
        of_chat = self._messages.setdefault(chat_id, {})
        if of_chat.setdefault(message_id, message) is not message:
            raise MessageExists(
                f"message {message_id} exists in chat {chat_id}: this producer has it open"
            )
        try:
            if message.opening.adopts is None:
                await self.announce(message.opening)
            else:  # announced when it was accepted; it may have ended since
                await self._list([message.opening])
        except BaseException:
            self._remove(message)  # it will not be opened, or is registered again
            raise

    async def announce(self, opening: Opening) -> None:
        """List a message under this producer, and its chat under its user; before it is opened."""
        await self._list([opening])
        if opening.user is not None:
            announcement = Announcement(opening.chat_id, opening.message_id)
            await announce(self.client, opening.user, announcement)

    async def forget(self, message: Registered) -> None:
        """Deregister a message that was not opened, or is done."""
        if self._remove(message):
            message.release()
            await self._unlist(_member(message.opening))

    async def withdraw(self, message: Registered) -> None:
        """Deregister a message that was refused: its chat is not its user's, so do not list it there."""
        await self.forget(message)
        if message.opening.user is not None:
            # Listings are checked when they are read: one that stays here does no harm.
            with contextlib.suppress(BrokerUnavailable):
                await remove_chat(self.client, message.opening.user, message.opening.chat_id)

    def _remove(self, message: Registered) -> bool:
        """Remove a message from memory; False: it was not there."""
        chat_id, message_id = message.opening.chat_id, message.opening.message_id
        of_chat = self._messages.get(chat_id, {})
        if of_chat.get(message_id) is not message:
            return False
        del of_chat[message_id]
        if not of_chat:
            del self._messages[chat_id]
            self._requested.pop(chat_id, None)
        return True

    async def _list(self, openings: list[Opening]) -> None:
        if openings:
            await scripts.add_messages(
                self.client.queue,
                self.client.keys,
                producer_id=self.id,
                members=[_member(opening) for opening in openings],
            )

    async def _unlist(self, member: str) -> None:
        await members.remove_message(self.client.queue, self.client.keys, self.id, member)

    async def list_all(self) -> None:
        """List all messages again, after this producer was declared dead."""
        await self._list([message.opening for message in self.messages()])

    async def reconcile(self) -> None:
        """List all messages again if the queue's Redis has lost some; remove what is over."""
        listed = await members.count_messages(self.client.queue, self.client.keys, self.id)
        if listed < len(self.messages()):
            await self.list_all()
        elif listed > len(self.messages()):
            await self._remove_extra()

    async def _remove_extra(self) -> None:
        """
        Remove what was listed again while it was being removed.

        A message that is open stays: its server has lost the end, and it fails when this producer leaves.
        """
        client = self.client
        there = await members.list_messages(client.queue, client.keys, self.id)
        for member in set(there) - {_member(message.opening) for message in self.messages()}:
            chat_id, _, message_id = member.partition(" ")
            keys = client.keys.chat(chat_id)
            reply = await scripts.check(client.chats, keys, producer=self.id, message_id=message_id)
            if reply.status != "open":
                await self._unlist(member)

    async def leave(self) -> None:
        """Deregister this producer, unless messages are open: they fail when its lease expires."""
        for message in self.messages():
            if message.is_ended:
                await self.forget(message)
        if not self._messages:
            await members.remove_producer(self.client.queue, self.client.keys, self.id)

    def chat_fell_back(self, chat_id: str) -> None:
        """Have every message of a chat check soon whether the server lost some of it, too."""
        self._requested.pop(chat_id, None)
        for message in self._messages.get(chat_id, {}).values():
            message.look_soon()

    # -- owners for chats ------------------------------------------------------------------------

    def request_owner_soon(self, chat_id: str, term: int) -> None:
        """Enqueue an attach job for a chat without an owner, once per term; a push need not wait."""
        if self._requested.get(chat_id) == term:
            return
        self._requested[chat_id] = term
        task = asyncio.create_task(self._request_owner(chat_id, term), name="riverdelta-enqueue")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def request_owner(self, chat_id: str, term: int) -> None:
        """Enqueue an attach job, unless the same job is queued or running."""
        await request_owner(self.client, chat_id, term=term)

    async def finish_requests(self) -> None:
        """Wait for the attach jobs that are being enqueued."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _request_owner(self, chat_id: str, term: int) -> None:
        try:
            await self.request_owner(chat_id, term)
        except (RiverdeltaError, RedisError) as error:
            _log.warning("chat %s has no worker yet, asking again: %s", chat_id, error)


def new_token() -> str:
    """Return a random id, unique in practice."""
    return secrets.token_hex(_ID_BYTES)


def _member(opening: Opening) -> str:
    return f"{opening.chat_id} {opening.message_id}"
