"""Push raw chunks: the interface for chat backends."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

from redis.exceptions import RedisError

from riverdelta.broker.client import Client
from riverdelta.broker.producer.caretaker import Caretaker
from riverdelta.broker.producer.delivery import Delivery
from riverdelta.broker.producer.encode import clean_json
from riverdelta.broker.producer.heartbeat import Heartbeat
from riverdelta.broker.producer.message import Message
from riverdelta.broker.producer.registry import Opening, Registry, new_token
from riverdelta.broker.settings import Settings
from riverdelta.broker.store.start import Encoding, start_entry
from riverdelta.core.codecs import SOURCES, default_mode
from riverdelta.core.errors import RiverdeltaError
from riverdelta.core.ids import check_id
from riverdelta.core.tracker import MISMATCH_RULES, MODES, Mode, OnMismatch

_log = logging.getLogger("riverdelta.producer")


class Producer:
    """
    Open messages and push their raw chunks. One per process; share it between tasks.

    Use as an async context manager::

        async with Producer.from_url("redis://localhost:6379") as producer:
            async with producer.message("chat-1", source="openai-chat") as message:
                async for chunk in openai_stream:
                    await message.push(chunk)

    Args:
        settings: Unset: from ``RIVERDELTA_*``.

    Attributes:
        id: Producer id; random for each process start.
    """

    def __init__(self, settings: Settings | None = None) -> None:
        self._client = Client(settings or Settings())
        self._registry = Registry(self._client)
        self._heartbeat = Heartbeat(self._registry)
        self._caretaker = Caretaker(self._registry)
        self.id = self._registry.id

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
        await self._client.__aenter__()
        await self._heartbeat.start()
        await self._caretaker.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close. Messages that are still open fail with ``producer_lost`` after the lease."""
        await self._heartbeat.shutdown()
        await self._caretaker.shutdown()
        await self._registry.finish_requests()
        try:
            await self._registry.leave()
        except (RiverdeltaError, RedisError) as error:
            _log.warning(
                "producer %s did not deregister, its lease will expire: %s", self.id, error
            )
        finally:
            await self._client.aclose()

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
            source: How raw chunks are encoded; one of `riverdelta.SOURCES`.
            message_id: An idempotency key: opening one that exists raises `MessageExists`. Unset:
                random.
            mode: Whether texts are increments (``append``) or all so far (``snapshot``). Unset: as
                the source means it.
            on_mismatch: See `ChunkTracker`.
            metadata: Any JSON object; readers get it with ``message.started``.
            conversation: For observers of the pipeline (`EndedMessage.about`); readers never get it.
            user: Owner of the chat. A new chat belongs to this user for its life, and a gateway shows it
                to no other user; in a chat that exists and is not this user's, opening the message
                raises `NotChatOwner`. None: a new chat has no owner, and no owner is compared: where
                users can choose chat ids, name the user of every message.
            replaces: Ids of messages whose place this one takes: readers get ``message.replaced`` and
                forget them; those that are open are stopped.
            operation_name: As *conversation*.
            service_name: Same.

        Raises:
            InvalidIdError: (a ``ValueError``) an id with other characters.
            ValueError: Unknown source, mode or mismatch rule.
        """
        opening = self._opening(
            chat_id,
            message_id or f"m-{new_token()}",
            user=user,
            encoding=_encoding(source, mode, on_mismatch),
            metadata=metadata,
            replaces=replaces,
            about={
                "conversation": conversation,
                "user": user,
                "operation_name": operation_name,
                "service_name": service_name,
            },
        )
        return Message(Delivery(self._registry, opening), self._client.settings.max_chunk_bytes)

    def adopt(
        self,
        chat_id: str,
        message_id: str,
        *,
        source: str,
        mode: Mode | None = None,
        on_mismatch: OnMismatch = "emit",
        metadata: Mapping[str, Any] | None = None,
        user: str | None = None,
        replaces: Sequence[str] = (),
    ) -> Message:
        """
        Prepare to write a turn that a gateway accepted; ``async with`` makes this its only producer.

        Entering raises `MessageExists` if another producer writes it, `MessageEnded` or `Stopped` if it
        ended while it waited, and `MessageLost` if the server does not know it.

        Args:
            chat_id: The chat of the turn.
            message_id: Its message.
            source: As in `message`; it counts from here on.
            mode: As *source*.
            on_mismatch: As *source*.
            metadata: As the gateway stored it; used if the server loses the message.
            user: Owner of the chat.
            replaces: As *metadata*.

        Raises:
            InvalidIdError: (a ``ValueError``) an id with other characters.
            ValueError: Unknown source, mode or mismatch rule.
        """
        encoding = _encoding(source, mode, on_mismatch)
        opening = self._opening(
            chat_id,
            message_id,
            user=user,
            encoding=encoding,
            metadata=metadata,
            replaces=replaces,
            about={"user": user},
        )
        adopts = clean_json({"producer": self._registry.id, **encoding})
        delivery = Delivery(self._registry, opening._replace(adopts=adopts))
        return Message(delivery, self._client.settings.max_chunk_bytes)

    def _opening(
        self,
        chat_id: str,
        message_id: str,
        *,
        user: str | None,
        encoding: Encoding,
        metadata: Mapping[str, Any] | None,
        replaces: Sequence[str],
        about: Mapping[str, str | None],
    ) -> Opening:
        ids = [("message_id", message_id), ("user", user), *(("replaces", mid) for mid in replaces)]
        for name, value in (("chat_id", chat_id), *ids):
            if value is not None:
                check_id(name, value)
        start = start_entry(
            self._registry.id, encoding, metadata=metadata or {}, about=about, replaces=replaces
        )
        return Opening(chat_id, message_id, user, encoding["source"], clean_json(start))


def _encoding(source: str, mode: Mode | None, on_mismatch: OnMismatch) -> Encoding:
    """Say how raw chunks are encoded; raises `ValueError` for what is unknown."""
    _check_choice("source", source, SOURCES)
    _check_choice("mode", mode or "append", MODES)
    _check_choice("on_mismatch", on_mismatch, MISMATCH_RULES)
    return Encoding(source=source, mode=mode or default_mode(source), on_mismatch=on_mismatch)


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        message = f"{name} {value!r} is unknown: use one of {', '.join(allowed)}"
        raise ValueError(message)
