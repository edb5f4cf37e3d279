"""Read a chat's streams: raw entries, the log, dead letters."""

from __future__ import annotations

from typing import Any

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.core.state import Entry


async def read_entries(
    chats: Commands, keys: ChatKeys, *, processed: int, count: int
) -> list[Entry]:
    """Read up to *count* raw entries after number *processed*; there may be none."""
    reply = await chats.execute("XREAD", "COUNT", count, "STREAMS", keys.chunks, f"{processed}-0")
    return [_entry(entry_id, fields) for entry_id, fields in reply[0][1]] if reply else []


def _entry(entry_id: bytes, fields: list[bytes]) -> Entry:
    # Field order is fixed by push.lua.
    _, message, _, kind, _, at_ms, _, data = fields
    # Runs once per chunk: a named tuple's own constructor would take a third longer.
    values = (int(entry_id[:-2]), message.decode(), kind.decode(), int(at_ms), data)
    return tuple.__new__(Entry, values)


async def read_log(chats: Commands, keys: ChatKeys, *, after: int, count: int) -> list[bytes]:
    """Read up to *count* events of the log after seq *after*, each as JSON."""
    entries = await chats.execute("XRANGE", keys.deltas, f"{after + 1}-0", "+", "COUNT", count)
    return [event for _, (_, event) in entries]


async def newest_dead(chats: Commands, keys: ChatKeys) -> bytes | None:
    """Read the id of the newest dead letter; None: there are none."""
    newest = await chats.execute("XREVRANGE", keys.dead, "+", "-", "COUNT", 1)
    return newest[0][0] if newest else None


async def read_dead(
    chats: Commands, keys: ChatKeys, *, first: bytes, last: bytes, count: int
) -> list[tuple[bytes, list[Any]]]:
    """Read up to *count* dead letters from id *first* to *last*: id and flat fields of each."""
    page = await chats.execute("XRANGE", keys.dead, first, last, "COUNT", count)
    return [(letter_id, flat) for letter_id, flat in page]


async def count_dead(chats: Commands, keys: ChatKeys) -> int:
    """Count the dead letters of a chat."""
    return int(await chats.execute("XLEN", keys.dead))
