"""Read a chat for people: hashes as they are stored, and the size of each key."""

from __future__ import annotations

from typing import Final, NamedTuple

from redis.exceptions import ResponseError

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store.scripts import as_hash

_COUNT_COMMANDS: Final = {"hash": "HLEN", "stream": "XLEN"}


class KeySize(NamedTuple):
    """
    A key, its size and its memory.

    Attributes:
        key: Its name.
        type: As Redis names it: ``hash``, ``stream``.
        size: How many fields or entries; None for other types.
        bytes: Memory; None: the Redis user may not read it.
        ttl_ms: Milliseconds until it expires; None: never.
    """

    key: str
    type: str
    size: int | None
    bytes: int | None
    ttl_ms: int | None


async def exists(chats: Commands, *keys: str) -> bool:
    """Whether any of *keys*, all of one chat, exists."""
    return bool(await chats.execute("EXISTS", *keys))


async def read_hash(chats: Commands, key: str) -> dict[str, bytes]:
    """Read a whole hash; empty: there is none."""
    return as_hash(await chats.execute("HGETALL", key))


async def read_ttl_ms(chats: Commands, key: str) -> int | None:
    """Read the milliseconds until a key expires; None: never, or it is gone."""
    ttl_ms = int(await chats.execute("PTTL", key))
    return None if ttl_ms < 0 else ttl_ms


async def read_size(chats: Commands, key: str) -> KeySize | None:
    """Measure a key; None: it does not exist."""
    kind = (await chats.execute("TYPE", key)).decode()
    if kind == "none":
        return None
    command = _COUNT_COMMANDS.get(kind)
    size = await chats.execute(command, key) if command else None
    try:
        used = await chats.execute("MEMORY", "USAGE", key)
    except ResponseError:
        used = None  # an ACL that allows reading need not allow this
    return KeySize(key, kind, size, used, await read_ttl_ms(chats, key))
