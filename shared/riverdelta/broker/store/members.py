"""
Lists on the queue's Redis: producers and their messages, workers and their chats, waiting chats.

Each function is one command (`scripts` has what must be atomic) and raises `BrokerUnavailable` where
Redis did not answer; each may be repeated. A *member* of a producer's list is ``<chat> <message>``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store.keys import Keys

# -- heartbeats ----------------------------------------------------------------------------------


async def read_workers(queue: Commands, keys: Keys) -> dict[str, int]:
    """Read the heartbeat counters of all workers: worker id -> counter."""
    return _counters(await queue.execute("HGETALL", keys.workers))


async def count_workers(queue: Commands, keys: Keys) -> int:
    """Count the workers that are listed."""
    return int(await queue.execute("HLEN", keys.workers))


async def read_producers(queue: Commands, keys: Keys) -> dict[str, int]:
    """Read the heartbeat counters of all producers: producer id -> counter."""
    return _counters(await queue.execute("HGETALL", keys.producers))


async def remove_producer(queue: Commands, keys: Keys, producer_id: str) -> None:
    """Deregister a producer that has no messages."""
    await queue.execute("HDEL", keys.producers, producer_id)


# -- a producer's messages -----------------------------------------------------------------------


async def list_messages(queue: Commands, keys: Keys, producer_id: str) -> list[str]:
    """List the members of a producer's list."""
    members = await queue.execute("SMEMBERS", keys.producer_messages(producer_id))
    return [member.decode() for member in members]


async def count_messages(queue: Commands, keys: Keys, producer_id: str) -> int:
    """Count the messages of a producer."""
    return int(await queue.execute("SCARD", keys.producer_messages(producer_id)))


async def remove_message(queue: Commands, keys: Keys, producer_id: str, member: str) -> None:
    """Remove a message from its producer's list."""
    await queue.execute("SREM", keys.producer_messages(producer_id), member)


# -- a worker's chats ----------------------------------------------------------------------------


async def list_chats(queue: Commands, keys: Keys, worker_id: str) -> set[str]:
    """List the chats that a worker has, or is about to claim."""
    return {chat.decode() for chat in await queue.execute("SMEMBERS", keys.worker_chats(worker_id))}


async def count_chats(queue: Commands, keys: Keys, worker_id: str) -> int:
    """Count the chats of a worker."""
    return int(await queue.execute("SCARD", keys.worker_chats(worker_id)))


async def has_chat(queue: Commands, keys: Keys, worker_id: str, chat_id: str) -> bool:
    """Whether a chat is on a worker's list."""
    return bool(await queue.execute("SISMEMBER", keys.worker_chats(worker_id), chat_id))


async def remove_chat(queue: Commands, keys: Keys, worker_id: str, chat_id: str) -> None:
    """Remove a chat from a worker's list."""
    await queue.execute("SREM", keys.worker_chats(worker_id), chat_id)


# -- chats that wait for an owner ----------------------------------------------------------------


async def read_waiting(queue: Commands, keys: Keys, limit: int | None = None) -> dict[str, int]:
    """Read the chats that need an owner: chat id -> attach attempts, the fewest first."""
    last = -1 if limit is None else limit - 1
    return _counters(await queue.execute("ZRANGE", keys.waiting, 0, last, "WITHSCORES"))


async def count_waiting(queue: Commands, keys: Keys) -> int:
    """Count the chats that need an owner."""
    return int(await queue.execute("ZCARD", keys.waiting))


async def add_waiting(queue: Commands, keys: Keys, chat_id: str) -> bool:
    """List a chat as waiting for an owner; False: it is listed, and keeps its count of attempts."""
    return bool(await queue.execute("ZADD", keys.waiting, "NX", 0, chat_id))


async def remove_waiting(queue: Commands, keys: Keys, chat_id: str) -> None:
    """Remove a chat from the waiting list: it has an owner, or is gone."""
    await queue.execute("ZREM", keys.waiting, chat_id)


async def count_queued_jobs(queue: Commands, keys: Keys) -> int:
    """Count the attach jobs in arq's queue."""
    return int(await queue.execute("ZCARD", keys.queue))


# -- a user's chats ------------------------------------------------------------------------------


async def list_user_chats(
    queue: Commands, keys: Keys, user: str, *, limit: int
) -> list[tuple[str, int]]:
    """List up to *limit* chats of a user, the last active first: id and Unix ms of that activity."""
    last = limit - 1
    flat = await queue.execute("ZREVRANGE", keys.user_chats(user), 0, last, "WITHSCORES")
    return list(_counters(flat).items())


async def remove_user_chat(queue: Commands, keys: Keys, user: str, chat_id: str) -> None:
    """Remove a chat from a user's list."""
    await queue.execute("ZREM", keys.user_chats(user), chat_id)


def _counters(flat: Sequence[Any]) -> dict[str, int]:
    return {flat[i].decode(): int(float(flat[i + 1])) for i in range(0, len(flat), 2)}
