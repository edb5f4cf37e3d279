"""Load a chat from its hashes for its owner: the counterpart of `store.save`."""

from __future__ import annotations

import asyncio
import logging
from typing import Final

import orjson

from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store import scripts
from riverdelta.broker.store.fields import (
    card_of,
    check_format,
    chunk_field,
    format_of,
    int_of,
    output_segments,
    section_of,
    text_of,
    text_segments,
)
from riverdelta.broker.store.head import Head, read_head
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.broker.store.outbox import read_calls
from riverdelta.broker.store.save import OUTPUT_SEGMENT_BYTES, SEGMENT_LENGTH, HotChat
from riverdelta.core.equip import equip, restart_filter
from riverdelta.core.filters import StreamFilter
from riverdelta.core.notes import load_note_filters
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.state import (
    CardState,
    ChatState,
    ChunkState,
    FinishedCard,
    LogWindow,
    MessageState,
    RetriedCall,
    RetriedChunk,
    ToolCall,
)
from riverdelta.core.stitch import Stitcher
from riverdelta.core.tracker import TextTrack

_LONG_LENGTH: Final = 32 * 1024
"""Chunks of more code points than this are restored in a thread."""

_log = logging.getLogger("riverdelta.worker")


async def load(
    executor: Commands,
    keys: ChatKeys,
    chat_id: str,
    *,
    log_max_bytes: int,
    pipeline: Pipeline,
) -> tuple[Head, HotChat] | None:
    """
    Load a chat for its owner; None: no such chat. Open chunks continue after their stored text.

    Only the owner writes what is read here, so several reads see one state.
    """
    head, outbox = await asyncio.gather(
        read_head(executor, keys), executor.execute("HGETALL", keys.outbox)
    )
    if head is None:
        return None
    state = ChatState(
        chat=chat_id,
        epoch=head.epoch,
        log=LogWindow(log_max_bytes, *head.log),
        seq=head.seq,
        version=head.version,
        processed=head.processed,
        processed_bytes=head.processed_bytes,
        recent=dict(head.recent),
    )
    hot = HotChat(state, head.term, keys, pipeline)
    hot.owed = read_calls(scripts.as_hash(outbox))
    state.owed = {(call.message_id, call.observer) for call in hot.owed}
    for message_id in head.open:
        message = await _load_message(executor, keys, message_id, pipeline)
        if message is not None:
            if message_id in head.counters:  # else an older worker wrote them, into its own hash
                message.raw_chunks, message.raw_bytes, message.last_at_ms = head.counters[
                    message_id
                ]
            hot.adopt(message)
    return head, hot


async def _load_message(
    executor: Commands, keys: ChatKeys, message_id: str, pipeline: Pipeline
) -> MessageState | None:
    fields = scripts.as_hash(await executor.execute("HGETALL", keys.message(message_id)))
    if "source" not in fields:
        return None
    check_format(fields, "message")
    source, mode = text_of(fields, "source"), text_of(fields, "mode")
    on_mismatch, codec = text_of(fields, "on_mismatch"), orjson.loads(fields["codec"])
    message = MessageState(
        id=message_id,
        source=source,
        codec=pipeline.codec(source, mode, on_mismatch, codec),  # type: ignore[arg-type]  # written by _message_fields
        producer=text_of(fields, "producer"),
        role=text_of(fields, "role"),
        mode=mode,  # type: ignore[arg-type]  # as above
        on_mismatch=on_mismatch,  # type: ignore[arg-type]  # as above
        metadata=orjson.loads(fields["metadata"]),
        about=orjson.loads(fields.get("about", b"{}")),
        step=int_of(fields, "step"),
        step_open=bool(int_of(fields, "step_open")),
        chunk_count=int_of(fields, "chunks"),
        tool_calls={
            call_id: ToolCall(*call) for call_id, call in orjson.loads(fields["tool_calls"]).items()
        },
        finish_reason=text_of(fields, "finish_reason") or None,  # type: ignore[arg-type]  # as above
        usage=orjson.loads(fields["usage"]),
        failure=orjson.loads(fields["failure"]),
        annotations=orjson.loads(fields["annotations"]),
        note_filters=_note_filters(message_id, fields, pipeline),
        call_aliases=orjson.loads(fields.get("call_aliases", b"{}")),
        raw_chunks=int_of(fields, "raw_chunks"),
        raw_bytes=int_of(fields, "raw_bytes"),
        rejected=int_of(fields, "rejected"),
        ttft_ms=int(fields["ttft_ms"]) if fields["ttft_ms"] else None,
        last_at_ms=int_of(fields, "last_at_ms"),
        pipeline=text_of(fields, "pipeline"),
    )
    message.skipped = int_of(fields, "skipped") - message.codec.skipped
    await _load_chunks(executor, keys, message, fields, pipeline)
    await _load_cards(executor, keys, message)
    return message


def _note_filters(
    message_id: str, fields: dict[str, bytes], pipeline: Pipeline
) -> dict[str, dict[str, StreamFilter]]:
    try:
        return load_note_filters(orjson.loads(fields.get("note_filters", b"{}")), pipeline)
    except Exception:  # noqa: BLE001  # a deployment's own code; the chat goes on
        _log.exception("message %s: another filter held annotations back", message_id)
        return {}


async def _load_chunks(
    executor: Commands,
    keys: ChatKeys,
    message: MessageState,
    fields: dict[str, bytes],
    pipeline: Pipeline,
) -> None:
    """Load the chunks that are open, and those that a retried call may send again."""

    async def chunk_at(index: int) -> ChunkState:
        flat = await executor.execute("HGETALL", keys.chunk(message.id, index))
        fields = scripts.as_hash(flat)
        if int_of(fields, "length") > _LONG_LENGTH:
            # Its parsers read the whole text again; other chats go on meanwhile.
            return await asyncio.to_thread(_chunk_state, message, index, fields, pipeline)
        return _chunk_state(message, index, fields, pipeline)

    for key, index in orjson.loads(fields["open_chunks"]).items():
        message.open_chunks[key] = await chunk_at(index)
    for key, index in orjson.loads(fields.get("closed", b"[]")):
        message.closed.append((key, await chunk_at(index)))
    retry = orjson.loads(fields.get("retry", b"null"))
    if retry is not None:
        left = [(key, await chunk_at(index)) for key, index in retry["left"]]
        message.retried_call = RetriedCall(retry["rule"], retry["begun"], left)


def _restore_filter(chunk: ChunkState, fields: dict[str, bytes], pipeline: Pipeline) -> None:
    """Make the chunk's filter and stitcher, in the state that the last owner stored."""
    if "held_back" not in fields:
        return
    text, (last_length, odd_last) = chunk.track.complete, chunk.track.remembered()
    chunk.track = TextTrack(chunk.track.mode, chunk.track.on_mismatch)
    chunk.track.restore(text_of(fields, "unfiltered"), last_length, odd_last)
    restart_filter(chunk, pipeline)
    if chunk.filter is not None:  # else it was switched off since: text held back stays hidden
        try:
            chunk.filter.load(orjson.loads(fields["held_back"]))
        except Exception:  # noqa: BLE001  # a deployment's own code; the chat goes on
            _log.exception("chunk %s: another filter held text back, it stays hidden", chunk.id)
            restart_filter(chunk, pipeline)
    chunk.shown = TextTrack("append", "emit")
    chunk.shown.restore(text, len(text), None)
    retried_call = chunk_field(fields, "retried_call")
    if retried_call:
        stored = orjson.loads(retried_call)
        stitcher = Stitcher(text, ended=chunk.status != "open")
        stitcher.load(stored["stitcher"])
        chunk.retried = RetriedChunk(stitcher, stored["tool_call_id"])


async def _load_cards(executor: Commands, keys: ChatKeys, message: MessageState) -> None:
    """Load the cards of calls whose result may still come."""
    left = (
        []
        if message.retried_call is None
        else [chunk for _, chunk in message.retried_call.unmatched]
    )
    chunks = [*message.open_chunks.values(), *left]
    still_open = {chunk.index for chunk in chunks if chunk.status == "open"}
    for call_id, call in message.tool_calls.items():
        if call.chunk_index not in still_open:
            flat = await executor.execute("HGETALL", keys.chunk(message.id, call.chunk_index))
            fields = scripts.as_hash(flat)
            card = card_of(fields)
            unfinished = "processor_failed" in fields or text_of(fields, "status") != "completed"
            if card is not None and not unfinished and "output.result" not in fields:
                message.cards[call_id] = FinishedCard(chunk_field(fields, "card_processor"), card)


def _chunk_state(
    message: MessageState, index: int, fields: dict[str, bytes], pipeline: Pipeline
) -> ChunkState:
    check_format(fields, "chunk")
    track = TextTrack(text_of(fields, "mode"), message.on_mismatch)  # type: ignore[arg-type]  # as above
    segments = text_segments(fields)
    text = "".join(segments)
    track.restore(text, int_of(fields, "last_length"), text_of(fields, "last") or None)
    full = bool(segments) and len(segments[-1]) >= SEGMENT_LENGTH
    chunk = ChunkState(
        id=f"{message.id}.{index}",
        index=index,
        kind=text_of(fields, "kind"),  # type: ignore[arg-type]  # as above
        format=text_of(fields, "format"),  # type: ignore[arg-type]  # as above
        tool_name=text_of(fields, "tool_name") or None,
        tool_call_id=text_of(fields, "tool_call_id") or None,
        processor=text_of(fields, "processor") or None,
        track=track,
        section=section_of(fields),
        card=_card_state(fields),
        processor_failed=bool(int_of(fields, "processor_failed")),
        status=text_of(fields, "status"),  # type: ignore[arg-type]  # as above
        segment=max(0, len(segments) - (0 if full else 1)),
        segment_length=0 if full or not segments else len(segments[-1]),
        stored_format=format_of(fields),
    )
    _restore_filter(chunk, fields, pipeline)
    if chunk.status == "open":
        equip(chunk, pipeline)
    return chunk


def _card_state(fields: dict[str, bytes]) -> CardState | None:
    card, last = card_of(fields), len(output_segments(fields)) - 1
    if card is None or last < 0:  # no card, or one made from the tool's result alone
        return None
    encoded = fields[f"output.{last}"]
    if len(encoded) >= OUTPUT_SEGMENT_BYTES:
        return CardState(chunk_field(fields, "card_processor"), card, last + 1)
    return CardState(chunk_field(fields, "card_processor"), card, last, orjson.loads(encoded))
