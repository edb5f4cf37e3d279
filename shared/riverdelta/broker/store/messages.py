"""Read single fields of a chat's messages."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import orjson

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store.keys import ChatKeys


async def read_status(chats: Commands, keys: ChatKeys, message_id: str) -> str | None:
    """Read a message's status: ``open``, ``completed``, ``failed``, ``stopped``; None: it is gone."""
    return await _field(chats, keys, message_id, "status")


async def read_producer(chats: Commands, keys: ChatKeys, message_id: str) -> str | None:
    """
    Read the id of the producer that writes a message; None: there is no such message.

    ``""``: a turn that waits for one. Who adopted a turn is known before a worker has read of it.
    """
    key = keys.message(message_id)
    adopter, producer = await chats.execute("HMGET", key, "adopter", "producer")
    found = adopter or producer
    return None if found is None else found.decode()


async def read_about(chats: Commands, keys: ChatKeys, message_id: str) -> dict[str, str]:
    """Read what a message's producer says to observers only; empty where it said nothing."""
    value = await _field(chats, keys, message_id, "about")
    return {} if value is None else dict(orjson.loads(value))


async def _field(chats: Commands, keys: ChatKeys, message_id: str, name: str) -> str | None:
    value = await chats.execute("HGET", keys.message(message_id), name)
    return None if value is None else value.decode()


async def read_last_message_seqs(
    chats: Commands, keys: ChatKeys, messages: Sequence[tuple[str, str]]
) -> list[int]:
    """Read the message_seq of the last stored entry of each (producer id, message id); 0: none."""
    fields = [f"{producer}:{message_id}" for producer, message_id in messages]
    # In the head while a message is open, unless an older producer opened it.
    opened, others = await asyncio.gather(
        chats.execute("HMGET", keys.head, *(f"last.{field}" for field in fields)),
        chats.execute("HMGET", keys.producers, *fields),
    )
    return [int(one or other or 0) for one, other in zip(opened, others, strict=True)]
