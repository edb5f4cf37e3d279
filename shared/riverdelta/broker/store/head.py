"""Read a chat's head hash: all of it, or the few fields that a caller needs."""

from __future__ import annotations

from typing import NamedTuple

import orjson

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store import scripts
from riverdelta.broker.store.fields import check_format, counters_of, int_of, text_of
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.core.positions import Position
from riverdelta.core.state import Recent


class Head(NamedTuple):
    """The fields of a head hash, decoded."""

    epoch: str
    seq: int
    version: int
    processed: int
    processed_bytes: int
    pushed: int
    term: int
    owner: str
    claims: int
    open: list[str]
    recent: dict[str, Recent]
    log: tuple[int, int, int]
    counters: dict[str, tuple[int, int, int]]

    @classmethod
    def of(cls, fields: dict[str, bytes]) -> Head:
        """
        Decode the fields that HGETALL returned.

        Raises:
            FormatTooNew: A newer riverdelta wrote them.
        """
        check_format(fields, "chat")
        messages = orjson.loads(fields.get("messages", b"[]"))
        return cls(
            epoch=text_of(fields, "epoch"),
            seq=int_of(fields, "seq"),
            version=int_of(fields, "version"),
            processed=int_of(fields, "processed"),
            processed_bytes=int_of(fields, "processed_bytes"),
            pushed=int_of(fields, "pushed"),
            term=int_of(fields, "term"),
            owner=text_of(fields, "owner"),
            claims=int_of(fields, "claims"),
            open=text_of(fields, "open").split(),
            recent={mid: Recent(*entry) for mid, *entry in messages},
            log=(
                int_of(fields, "log_first", 1),
                int_of(fields, "log_half", 1),
                int_of(fields, "log_half_bytes"),
            ),
            counters=counters_of(fields),
        )


async def read_head(executor: Commands, keys: ChatKeys) -> Head | None:
    """Read a chat's head; None: there is no such chat."""
    fields = scripts.as_hash(await executor.execute("HGETALL", keys.head))
    return Head.of(fields) if fields else None


class Ownership(NamedTuple):
    """
    Which worker has a chat.

    Attributes:
        owner: Worker id; "": no worker has it.
        term: Fencing number of the last owner.
    """

    owner: str
    term: int


async def read_ownership(chats: Commands, keys: ChatKeys) -> Ownership | None:
    """Read which worker has a chat; None: there is no such chat."""
    owner, term = await chats.execute("HMGET", keys.head, "owner", "term")
    return None if term is None else Ownership((owner or b"").decode(), int(term))


async def read_user(chats: Commands, keys: ChatKeys) -> str | None:
    """Read the user that a chat belongs to; "": it has no owner; None: there is no such chat."""
    term, user = await chats.execute("HMGET", keys.head, "term", "user")
    return None if term is None else (user or b"").decode()


async def read_open(chats: Commands, keys: ChatKeys) -> list[str]:
    """
    Read the ids of a chat's open messages; none if there is no such chat.

    Turns are there from the moment they are accepted, also before a worker has read of them. Some of the
    ids may be of messages that have just ended.
    """
    open_, turns = await chats.execute("HMGET", keys.head, "open", "turns")
    ids = f"{(open_ or b'').decode()} {(turns or b'').decode()}".split()
    return list(dict.fromkeys(ids))


async def read_folded_open(chats: Commands, keys: ChatKeys) -> list[str]:
    """Read the ids of the open messages that readers know of; none if there is no such chat."""
    (open_,) = await chats.execute("HMGET", keys.head, "open")
    return (open_ or b"").decode().split()


class KnownTurns(NamedTuple):
    """
    The last turns that a chat accepted.

    Attributes:
        ids: Ids of the open ones, and of some that have ended since.
        owner: Worker that has the chat; "": none, or there is no such chat.
    """

    ids: list[str]
    owner: str


async def read_turns(chats: Commands, keys: ChatKeys) -> KnownTurns:
    """Read the last accepted turns of a chat."""
    turns, owner = await chats.execute("HMGET", keys.head, "turns", "owner")
    return KnownTurns((turns or b"").decode().split(), (owner or b"").decode())


async def read_position(chats: Commands, keys: ChatKeys) -> Position | None:
    """Read where a chat's log ends; None: there is no log."""
    epoch, seq = await chats.execute("HMGET", keys.head, "epoch", "seq")
    return Position(epoch.decode(), int(seq or 0)) if epoch else None


class Backlog(NamedTuple):
    """Unread entries of a chat, and their bytes."""

    entries: int
    bytes: int


async def read_backlog(chats: Commands, keys: ChatKeys) -> Backlog:
    """Read how many entries and bytes of a chat are unread."""
    fields = ("pushed", "processed", "pushed_bytes", "processed_bytes")
    reply = await chats.execute("HMGET", keys.head, *fields)
    pushed, processed, pushed_bytes, processed_bytes = (int(value or 0) for value in reply)
    return Backlog(pushed - processed, pushed_bytes - processed_bytes)
