"""Build the snapshot of a chat for one reader, from its hashes as of one seq."""

from __future__ import annotations

import asyncio
from typing import Final

import orjson

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store import scripts
from riverdelta.broker.store.fields import (
    card_of,
    check_format,
    chunk_field,
    int_of,
    keys_of,
    section_of,
    text_of,
    text_segments,
)
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.core.events import (
    Event,
    SnapshotChunk,
    SnapshotMessage,
    empty_snapshot,
    encode_event,
    section_data,
)
from riverdelta.core.state import Recent

_LONG_BYTES: Final = 256 * 1024
"""Bytes of hashes from which on a snapshot is made in a thread: other readers go on meanwhile."""


async def read_snapshot(executor: Commands, keys: ChatKeys, chat_id: str, now_ms: int) -> Event:
    """Read the snapshot event of a chat, as of one seq; an empty one if there is no log yet."""
    names = await executor.execute("HGET", keys.head, "messages")
    while True:
        remembered = {mid: Recent(*entry) for mid, *entry in orjson.loads(names or b"[]")}
        listed = {mid: entry for mid, entry in remembered.items() if not entry.replaced}
        head, *rest = await scripts.snapshot(executor, keys, keys_of(keys, listed))
        if head.get("messages") == names:
            break
        names = head.get("messages")  # a message or chunk began in between: read it, too
    if "epoch" not in head:
        return empty_snapshot(chat_id, now_ms)
    check_format(head, "chat")
    size = sum(len(value) for fields in rest for value in fields.values())
    if size > _LONG_BYTES:
        return await asyncio.to_thread(_snapshot_event, chat_id, head, listed, rest, now_ms)
    return _snapshot_event(chat_id, head, listed, rest, now_ms)


def _snapshot_event(
    chat_id: str,
    head: dict[str, bytes],
    listed: dict[str, Recent],
    hashes: list[dict[str, bytes]],
    now_ms: int,
) -> Event:
    """Make the event. *hashes*: of each message in *listed*, and behind it of its chunks."""
    messages = []
    for message_id, entry in listed.items():
        count = 1 + entry.chunk_count
        (message, *chunks), hashes = hashes[:count], hashes[count:]
        if message:
            messages.append(_snapshot_message(message_id, message, chunks))
    return Event(
        encode_event(
            seq=int_of(head, "seq"),
            epoch=text_of(head, "epoch"),
            chat=chat_id,
            message=None,
            chunk=None,
            type_="snapshot",
            ts_ms=now_ms,
            data={"messages": messages},
        )
    )


async def read_message(
    executor: Commands, keys: ChatKeys, message_id: str
) -> SnapshotMessage | None:
    """Read one ended message in the form of a snapshot; None: it is gone."""
    key = keys.message(message_id)
    fields = scripts.as_hash(await executor.execute("HGETALL", key))
    if "source" not in fields:
        return None
    others = keys.message_and_chunks(message_id, int_of(fields, "chunks"))
    _, message, *chunks = await scripts.snapshot(executor, keys, others)
    return _snapshot_message(message_id, message, chunks) if message else None


def _snapshot_message(
    message_id: str, fields: dict[str, bytes], chunks: list[dict[str, bytes]]
) -> SnapshotMessage:
    status = text_of(fields, "status")
    return SnapshotMessage(
        message=message_id,
        role=text_of(fields, "role"),
        metadata=orjson.loads(fields["metadata"]),
        status=status,  # type: ignore[typeddict-item]  # written by _message_fields
        finish_reason=text_of(fields, "finish_reason") or None if status == "completed" else None,  # type: ignore[typeddict-item]  # as above
        usage=orjson.loads(fields["usage"]) if status == "completed" else None,
        error=orjson.loads(fields["failure"]) if status == "failed" else None,
        stop_reason=text_of(fields, "stop_reason") if status == "stopped" else None,
        annotations=orjson.loads(fields["annotations"]),
        chunks=[
            _snapshot_chunk(f"{message_id}.{index}", chunk) for index, chunk in enumerate(chunks)
        ],
    )


def _snapshot_chunk(chunk_id: str, fields: dict[str, bytes]) -> SnapshotChunk:
    return SnapshotChunk(
        chunk=chunk_id,
        kind=text_of(fields, "kind"),  # type: ignore[typeddict-item]  # written by _chunk_write
        format=text_of(fields, "format"),  # type: ignore[typeddict-item]  # as above
        status=text_of(fields, "status"),  # type: ignore[typeddict-item]  # as above
        text="".join(text_segments(fields)),
        tool_name=text_of(fields, "tool_name") or None,
        tool_call_id=text_of(fields, "tool_call_id") or None,
        section=section_data(section_of(fields)),
        outputs={}
        if (card := card_of(fields)) is None
        else {chunk_field(fields, "card_processor"): card},
    )
