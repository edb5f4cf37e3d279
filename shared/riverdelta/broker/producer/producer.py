"""Pushes raw chunks: what a chat backend uses."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self

from redis.exceptions import RedisError

from riverdelta.broker.client import Client
from riverdelta.broker.dispatch.attach_jobs import request_owner
from riverdelta.broker.producer.encode import clean_json
from riverdelta.broker.producer.message import Message
from riverdelta.broker.producer.resend_buffer import Resends
from riverdelta.broker.settings import Settings
from riverdelta.broker.store import scripts
from riverdelta.broker.store.scripts import PushLimits
from riverdelta.broker.user_chats import Announcement, announce
from riverdelta.core.codecs import SOURCES, default_mode
from riverdelta.core.errors import MessageExists, RiverdeltaError
from riverdelta.core.ids import check_id
from riverdelta.core.tracker import MISMATCH_RULES, MODES, Mode, OnMismatch

_CARE_S: Final = 1.0
"""Each second: the heartbeat, and a check of every message that is not done."""

_log = logging.getLogger("riverdelta.producer")


class Producer:
    """
    Opens messages and pushes their raw chunks. One per process; share it between tasks.

    Use as an async context manager::

        async with Producer.from_url("redis://localhost:6379") as producer:
            async with producer.message("chat-1", source="openai-chat") as message:
                async for chunk in openai_stream:
                    await message.push(chunk)

    Args:
        settings: Unset: from ``RIVERDELTA_*``.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self.client = Client(settings or Settings())
        self.id = self.new_token()
        self.limits = PushLimits(
            self.client.settings.max_backlog_chunks, self.client.settings.max_backlog_bytes
        )
        self.resends = Resends(self.client.settings.resend_bytes)
        self._live: dict[str, dict[str, Message]] = {}
        self._requested: dict[str, int] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._loops: list[asyncio.Task[None]] = []

    @classmethod
    def from_url(cls, url: str, **settings: Any) -> Self:  # checked by Settings
        """
        Make a producer for the Redis at *url*; *settings* as in `Settings`.

        Raises:
            SettingsError: The URL cannot be used.
        """
        return cls(Settings(redis_url=url, **settings))

    async def __aenter__(self) -> Self:
        """
        Connect.

        Raises:
            BrokerUnavailable: No server there.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """
        await self.client.__aenter__()
        await self._beat(first=True)
        self._loops = [
            asyncio.create_task(self._beat_on(), name="riverdelta-producer-beat"),
            asyncio.create_task(self._care(), name="riverdelta-producer-care"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close. Messages that are still open fail with ``producer_lost`` after the lease."""
        for loop in self._loops:
            loop.cancel()
        await asyncio.gather(*self._loops, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self._leave()
        except (RiverdeltaError, RedisError) as error:
            _log.warning(
                "producer %s could not sign off, its lease will run out: %s", self.id, error
            )
        finally:
            await self.client.aclose()

    def message(
        self,
        chat_id: str,
        *,
        source: str,
        message_id: str | None = None,
        mode: Mode | None = None,
        on_mismatch: OnMismatch = "emit",
        metadata: Mapping[str, Any] | None = None,
        conversation: str | None = None,
        user: str | None = None,
        replaces: Sequence[str] = (),
        operation_name: str | None = None,
        service_name: str | None = None,
    ) -> Message:
        """
        Prepare a message; ``async with`` opens it.

        Args:
            chat_id: Any id; a new one makes a new chat.
            source: How raw chunks are spelled; one of `riverdelta.SOURCES`.
            message_id: An idempotency key: opening one that exists raises `MessageExists`. Unset:
                random.
            mode: Whether texts are increments (``append``) or all so far (``snapshot``). Unset: as
                the source means it.
            on_mismatch: See `ChunkTracker`.
            metadata: Any JSON object; readers get it with ``message.started``.
            conversation: Kept with the metadata, for whoever watches the pipeline.
            user: Same. A chat that this makes belongs to this user, and a gateway shows it to nobody
                else; the user of a chat that exists stays who it is.
            replaces: Ids of messages whose place this one takes: readers get ``message.replaced`` and
                forget them; those that are open are stopped.
            operation_name: As *conversation*.
            service_name: Same.

        Raises:
            InvalidIdError: (a ``ValueError``) an id with other characters.
            ValueError: Unknown source, mode or mismatch rule.
        """
        check_id("chat_id", chat_id)
        ids = [("message_id", message_id), ("user", user), *(("replaces", mid) for mid in replaces)]
        for name, value in ids:
            if value is not None:
                check_id(name, value)
        _check_choice("source", source, SOURCES)
        _check_choice("mode", mode or "append", MODES)
        _check_choice("on_mismatch", on_mismatch, MISMATCH_RULES)
        about = {
            "conversation": conversation,
            "user": user,
            "operation_name": operation_name,
            "service_name": service_name,
        }
        start = {
            "source": source,
            "producer": self.id,
            "mode": mode or default_mode(source),
            "on_mismatch": on_mismatch,
            "metadata": dict(metadata or {}) | {k: v for k, v in about.items() if v is not None},
        }
        if replaces:
            start["replaces"] = list(replaces)
        message_id = message_id or f"m-{secrets.token_hex(8)}"
        return Message(self, chat_id, message_id, clean_json(start), user)

    # -- what messages call ----------------------------------------------------------------------

    def new_token(self) -> str:
        """Return a random id; nobody else has it."""
        return secrets.token_hex(8)

    async def register(self, message: Message) -> None:
        """
        List a message under this producer, before it is opened.

        Raises:
            MessageExists: This very producer has it open, or it has just ended.
        """
        of_chat = self._live.setdefault(message.chat_id, {})
        if of_chat.setdefault(message.id, message) is not message:
            text = (
                f"message {message.id} exists in chat {message.chat_id}: this producer has it open"
            )
            raise MessageExists(text)
        try:
            await self.introduce(message)
        except BaseException:
            self._strike_off(message)  # it will not be opened, or is registered again
            raise

    async def forget(self, message: Message) -> None:
        """Strike a message off: it was not opened, or is done."""
        if not self._strike_off(message):
            return
        message.release()
        listed = self.client.keys.producer_messages(self.id)
        await self.client.queue.execute("SREM", listed, f"{message.chat_id} {message.id}")

    def _strike_off(self, message: Message) -> bool:
        """Forget a message in memory; False: it was not known."""
        of_chat = self._live.get(message.chat_id, {})
        if of_chat.get(message.id) is not message:
            return False
        del of_chat[message.id]
        if not of_chat:
            del self._live[message.chat_id]
            self._requested.pop(message.chat_id, None)
        return True

    def _messages(self) -> list[Message]:
        return [message for of_chat in self._live.values() for message in of_chat.values()]

    async def introduce(self, message: Message) -> None:
        """Say, on the queue's Redis, whose a message and its chat are; before it is opened."""
        await self._enlist(message)
        if message.user is not None:
            announcement = Announcement(message.chat_id, message.id)
            await announce(self.client, message.user, announcement)

    async def _enlist(self, *messages: Message) -> None:
        members = [f"{message.chat_id} {message.id}" for message in messages]
        if members:
            listed = self.client.keys.producer_messages(self.id)
            await self.client.queue.execute("SADD", listed, *members)

    def fell_back(self, chat_id: str) -> None:
        """Have every message of a chat look whether the server forgot some of it, too."""
        self._requested.pop(chat_id, None)
        for message in self._live.get(chat_id, {}).values():
            message.fell_back()

    def request_owner_soon(self, chat_id: str, term: int) -> None:
        """Enqueue an attach job for a chat that nobody has, once per term; push does not wait for it."""
        if self._requested.get(chat_id) == term:
            return
        self._requested[chat_id] = term
        task = asyncio.create_task(self._request_owner(chat_id, term), name="riverdelta-enqueue")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def request_owner(self, chat_id: str, term: int) -> None:
        """Enqueue an attach job, unless that very job is under way."""
        await request_owner(self.client, chat_id, term=term)

    async def _request_owner(self, chat_id: str, term: int) -> None:
        try:
            await self.request_owner(chat_id, term)
        except (RiverdeltaError, RedisError) as error:
            _log.warning("chat %s has no worker yet, asking again: %s", chat_id, error)

    # -- once a second ---------------------------------------------------------------------------

    async def _beat_on(self) -> None:
        """Beat, whatever the chats' Redis does meanwhile: the heartbeat is the queue's business."""
        while True:
            await asyncio.sleep(_CARE_S)
            try:
                await self._beat(first=False)
            except (RiverdeltaError, RedisError) as error:
                _log.warning("producer %s: heartbeat missed: %s", self.id, error)

    async def _beat(self, *, first: bool) -> None:
        keys = self.client.keys
        counter = await scripts.beat(self.client.queue, keys.producers, self.id, first=first)
        if counter is None:
            # Declared dead (this process stood still): its messages were failed. List it again for
            # those to come; the checks will find out about the others.
            _log.warning("producer %s stood still and was declared dead", self.id)
            await self._enlist(*self._messages())
            await scripts.beat(self.client.queue, keys.producers, self.id, first=True)
        elif not first:
            await self._reconcile()

    async def _reconcile(self) -> None:
        """List the messages again that a queue's Redis has forgotten; more than these do no harm."""
        listed = self.client.keys.producer_messages(self.id)
        messages = self._messages()
        if await self.client.queue.execute("SCARD", listed) < len(messages):
            await self._enlist(*messages)

    async def _care(self) -> None:
        while True:
            await asyncio.sleep(_CARE_S)
            due = [message for message in self._messages() if message.is_due()]
            await asyncio.gather(*(self._check(message) for message in due))

    async def _check(self, message: Message) -> None:
        try:
            if await message.check():
                await self.forget(message)
        except (RiverdeltaError, RedisError) as error:
            _log.warning("message %s of chat %s: %s", message.id, message.chat_id, error)

    async def _leave(self) -> None:
        """Strike this producer off, unless messages are open: then the lease ends them."""
        for message in self._messages():
            if message.is_ended:
                await self.forget(message)
        if not self._live:
            await self.client.queue.execute("HDEL", self.client.keys.producers, self.id)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        message = f"{name} {value!r} is unknown: use one of {', '.join(allowed)}"
        raise ValueError(message)
