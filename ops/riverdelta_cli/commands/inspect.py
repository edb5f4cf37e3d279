"""``riverdelta inspect``: shows the state in Redis. Read-only."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from rich.cells import cell_len, set_cell_size

from riverdelta import Settings
from riverdelta.broker.client import Client
from riverdelta.broker.store import inspection, members
from riverdelta.broker.store.fields import counters_of, describe
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.broker.store.streams import count_dead
from riverdelta.core.codecs.provider import find_lost
from riverdelta.core.ids import check_id
from riverdelta_cli.errors import DONE, NOT_DONE
from riverdelta_cli.output.console import Console
from riverdelta_cli.output.say import say
from riverdelta_cli.output.show import print_json
from riverdelta_cli.output.words import count
from riverdelta_cli.output.wrap import printable
from riverdelta_cli.session import Interrupt

_BEAT_S: Final = 1.2
"""Longer than the pause between two heartbeats: a counter that stands still is a bad sign."""
_LISTED: Final = 20
"""Waiting chats that are named."""
_NUMBERS: Final = {"length", "count", "bytes", "ttl s", "beats", "chats", "messages", "attempts"}


async def inspect_chat(
    chat_id: str, *, settings: Settings, as_json: bool, interrupt: Interrupt
) -> int:
    """Print the state of a chat; returns the exit code."""
    keys = settings_keys(settings, chat_id)
    async with Client(settings) as client:
        found = await interrupt.unless(_read_chat(client, keys, chat_id))
    if found is None:
        return interrupt.exit_code
    if not found:
        say(f"chat {chat_id} is unknown: nothing was pushed, or its keys have expired")
        return NOT_DONE
    if as_json:
        print_json(found)
    else:
        _print_chat(found)
    return DONE


async def inspect_all(*, settings: Settings, as_json: bool, interrupt: Interrupt) -> int:
    """Print live workers and producers, and waiting chats; returns the exit code."""
    async with Client(settings) as client:
        found = await interrupt.unless(_read_all(client))
    if found is None:
        return interrupt.exit_code
    if as_json:
        print_json(found)
    else:
        _print_all(found)
    return DONE


def settings_keys(settings: Settings, chat_id: str) -> ChatKeys:
    """Keys of a chat, its id checked."""
    return Client(settings).keys.chat(check_id("chat_id", chat_id))


# -- a chat --------------------------------------------------------------------------------------


async def _read_chat(client: Client, keys: ChatKeys, chat_id: str) -> dict[str, Any]:
    """Read everything about a chat; empty: there is none."""
    chats = client.chats
    fields = await inspection.read_hash(chats, keys.head)
    if not fields:
        return {}
    head = describe(fields)
    # Ids are text, even those that read like a number.
    head |= {name: fields.get(name, b"").decode() for name in ("epoch", "owner", "open")}
    listed = {str(row[0]): int(row[1]) for row in head.get("messages", [])}
    for opened in head["open"].split():
        listed.setdefault(opened, 0)
    messages = await asyncio.gather(
        *(_read_message(client, keys, message_id, count) for message_id, count in listed.items())
    )
    for message_id, (raw_chunks, _, _) in counters_of(fields).items():
        for message in messages:
            if message is not None and message["message"] == message_id:
                message["raw_chunks"] = raw_chunks
    names = [keys.head, keys.chunks, keys.deltas, keys.producers, keys.dead, keys.outbox]
    names += [key for mid, count in listed.items() for key in keys.message_and_chunks(mid, count)]
    sizes = await asyncio.gather(*(inspection.read_size(chats, name) for name in names))
    pushed, processed = head.get("pushed", 0), head.get("processed", 0)
    return {
        "chat": chat_id,
        "owner": head["owner"] or None,
        "term": head.get("term", 0),
        "epoch": head["epoch"] or None,
        "seq": head.get("seq", 0),
        "version": head.get("version", 0),
        "pushed": pushed,
        "processed": processed,
        "backlog": pushed - processed,
        "dead": await count_dead(chats, keys),
        "ttl_s": _seconds(await inspection.read_ttl_ms(chats, keys.head)),
        "messages": [message for message in messages if message],
        "keys": [_key(size) for size in sizes if size is not None],
    }


async def _read_message(
    client: Client, keys: ChatKeys, message_id: str, count: int
) -> dict[str, Any] | None:
    names = keys.message_and_chunks(message_id, count)
    message, *chunks = await asyncio.gather(
        *(inspection.read_hash(client.chats, name) for name in names)
    )
    if not message:
        return None
    stored = describe(message)
    return {
        "message": message_id,
        "status": stored.get("status"),
        "source": stored.get("source"),
        "step": stored.get("step"),
        "finish_reason": stored.get("finish_reason") or None,
        "failure": stored.get("failure"),
        "stop_asked": message.get("stop", b"").decode() or None,
        "raw_chunks": stored.get("raw_chunks", 0),
        "rejected": stored.get("rejected", 0),
        "skipped": stored.get("skipped", 0),
        "skipped_names": find_lost(stored.get("codec") or {}),
        "chunks": [_chunk(f"{message_id}.{i}", chunk) for i, chunk in enumerate(chunks) if chunk],
    }


def _chunk(chunk_id: str, fields: dict[str, bytes]) -> dict[str, Any]:
    names = ("kind", "status", "tool_name", "tool_call_id")
    stored: dict[str, Any] = {name: fields.get(name, b"").decode() or None for name in names}
    return {"chunk": chunk_id} | stored | {"length": int(fields.get("length", 0))}


def _key(size: inspection.KeySize) -> dict[str, Any]:
    return {
        "key": size.key,
        "type": size.type,
        "count": size.size,
        "bytes": size.bytes,
        "ttl_s": _seconds(size.ttl_ms),
    }


def _seconds(ttl_ms: int | None) -> int | None:
    return None if ttl_ms is None else ttl_ms // 1000


def _print_chat(found: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    owner = found["owner"] or "nobody"
    ttl = "no expiry" if found["ttl_s"] is None else f"expires in {found['ttl_s']} s"
    console.print(f"chat {found['chat']}", style="bold")
    console.print(f"  owner {owner}, term {found['term']}; {ttl}")
    console.print(f"  position {found['epoch']}:{found['seq']}, version {found['version']}")
    console.print(
        f"  pushed {found['pushed']}, processed {found['processed']}, "
        f"backlog {found['backlog']}, dead letters {found['dead']}"
    )
    for message in found["messages"]:
        console.print(f"\nmessage {message['message']}: {_about(message)}", style="bold")
        rows = [
            (c["chunk"], c["kind"], c["tool_name"] or "", c["status"], str(c["length"]))
            for c in message["chunks"]
        ]
        _table(console, ("chunk", "kind", "tool", "status", "length"), rows)
    console.print("\nkeys", style="bold")
    rows = [
        (k["key"], k["type"], _or_dash(k["count"]), _or_dash(k["bytes"]), _or_dash(k["ttl_s"]))
        for k in found["keys"]
    ]
    _table(console, ("key", "type", "count", "bytes", "ttl s"), rows)


def _about(message: dict[str, Any]) -> str:
    parts = [message["status"], f"source {message['source']}"]
    if message["finish_reason"]:
        parts.append(f"finish reason {message['finish_reason']}")
    if message["failure"]:
        parts.append(f"{message['failure']['code']}: {message['failure']['detail']}")
    if message["stop_asked"]:
        parts.append(f"stop asked: {message['stop_asked']}")
    parts.append(count(message["raw_chunks"], "raw chunk"))
    parts += [f"{message[name]} {name}" for name in ("rejected", "skipped") if message[name]]
    names = message["skipped_names"].items()
    lost = ", ".join(f"{printable(name)} {number}" for name, number in names)
    return ", ".join(parts) + (f" (lost: {lost})" if lost else "")


# -- everything ----------------------------------------------------------------------------------


async def _read_all(client: Client) -> dict[str, Any]:
    keys, queue = client.keys, client.queue
    workers, producers = await asyncio.gather(
        members.read_workers(queue, keys), members.read_producers(queue, keys)
    )
    if workers or producers:
        await asyncio.sleep(_BEAT_S)
    workers_now, producers_now = await asyncio.gather(
        members.read_workers(queue, keys), members.read_producers(queue, keys)
    )
    waiting, count, queued = await asyncio.gather(
        members.read_waiting(queue, keys, _LISTED),
        members.count_waiting(queue, keys),
        members.count_queued_jobs(queue, keys),
    )
    return {
        "workers": [
            {
                "worker": name,
                "alive": workers.get(name) != beats,
                "beats": beats,
                "chats": await members.count_chats(queue, keys, name),
            }
            for name, beats in workers_now.items()
        ],
        "producers": [
            {
                "producer": name,
                "alive": producers.get(name) != beats,
                "beats": beats,
                "messages": await members.count_messages(queue, keys, name),
            }
            for name, beats in producers_now.items()
        ],
        "waiting": {
            "count": count,
            "first": [{"chat": chat, "attempts": attempts} for chat, attempts in waiting.items()],
        },
        "queued_jobs": queued,
    }


def _print_all(found: dict[str, Any]) -> None:
    console = Console(highlight=False, markup=False, soft_wrap=True)
    for title, name, has in (("workers", "worker", "chats"), ("producers", "producer", "messages")):
        console.print(f"{title}: {len(found[title]) or 'none'}", style="bold")
        rows = [
            (m[name], "alive" if m["alive"] else "silent", str(m["beats"]), str(m[has]))
            for m in found[title]
        ]
        _table(console, (name, "state", "beats", has), rows)
    waiting = found["waiting"]
    console.print(f"chats that wait for a worker: {waiting['count'] or 'none'}", style="bold")
    _table(
        console,
        ("chat", "attempts"),
        [(row["chat"], str(row["attempts"])) for row in waiting["first"]],
    )
    console.print(f"attach jobs in arq's queue: {found['queued_jobs'] or 'none'}", style="bold")


def _table(console: Console, names: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """Print columns at their full width: a key that is cut off cannot be copied."""
    if not rows:
        return
    widths = [max(map(cell_len, column)) for column in zip(names, *rows, strict=True)]
    for row in (names, *rows):
        cells = (
            cell.rjust(width) if name in _NUMBERS else set_cell_size(cell, width)
            for name, cell, width in zip(names, row, widths, strict=True)
        )
        console.print("  " + "  ".join(cells).rstrip(), style="dim" if row is names else None)


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)
