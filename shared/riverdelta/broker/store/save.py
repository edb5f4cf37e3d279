"""
Encode a chat's state as Redis hashes; `store.load` and `store.snapshot` read them.

Plain field names, UTF-8 text, JSON for what has structure: a person with redis-cli can read it. A
chunk's text is stored in segments (``text.0``, ``text.1``, ...): an append rewrites one segment of
bounded size, so it costs the same at 1 KB and at 1 MB.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from riverdelta.broker.redis.executor import Arg
from riverdelta.broker.store.fields import STORED_FORMAT, counters_field, keys_of
from riverdelta.broker.store.keys import ChatKeys
from riverdelta.broker.store.outbox import encode_call, field_of
from riverdelta.core.changes import Changes, ChunkChange, OwedCall
from riverdelta.core.fold import ChatFold
from riverdelta.core.notes import dump_note_filters
from riverdelta.core.outputs import merge_outputs
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.state import (
    CardState,
    ChatState,
    ChunkState,
    MessageState,
    RetriedCall,
    RetriedChunk,
)

SEGMENT_LENGTH: Final = 1024
"""Code points at which a text segment is full. Small: each append copies half of one on average."""

_TRIM_BYTES: Final = 4096
"""Raw bytes between two trims: a stream drops whole nodes only, and a node holds 4 KiB."""

OUTPUT_SEGMENT_BYTES: Final = 4096
"""Size at which a segment of merged outputs is full: each new output encodes one of them again."""

Fields = dict[str, Arg]


class LogLimits(NamedTuple):
    """How many events, and how many bytes of them, a chat's log keeps."""

    events: int
    bytes: int


class HotChat:
    """
    A chat in its owner's memory: the fold, and what Redis already has of each message.

    `encode` turns a batch's changes into one commit. After any refusal or error, drop the object and
    `load` another: it may be ahead of Redis.
    """

    def __init__(self, state: ChatState, term: int, keys: ChatKeys, pipeline: Pipeline) -> None:
        self.state = state
        self.term = term
        self.keys = keys
        self.fold = ChatFold(state, pipeline)
        self.owed: list[OwedCall] = []
        """Calls of observers that were still to be made when the chat was loaded."""
        self._stored: dict[str, Fields] = {}
        self._halves: tuple[int, int] | None = None
        self._trimmed_bytes = 0

    def adopt(self, message: MessageState) -> None:
        """Add an open message as it was loaded from Redis."""
        self.state.messages[message.id] = message
        self._stored[message.id] = _message_fields(message)

    def encode(
        self, changes: Changes, *, log: LogLimits, now_ms: int, trim: bool
    ) -> tuple[list[str], list[Arg]]:
        """Make the keys and arguments of the commit that writes *changes*; see ``commit.lua``."""
        state, keys = self.state, self.keys
        for message_id in changes.adopted:
            self._stored.pop(message_id, None)  # all of its fields are written
        head = self._head_fields(changes, now_ms)
        script_keys = [keys.head, keys.chunks, keys.deltas, keys.dead, keys.producers]
        args: list[Arg] = [
            self.term,
            state.version,
            self._trim_to() if trim else 0,
            log.events,
            state.log.first_seq,
            changes.first_seq,
            len(head),
            *head,
            len(changes.events),
            *changes.events,
            len(changes.rejected),
        ]
        for entry, code, detail in changes.rejected:
            args += (code, detail, entry.message, entry.type, entry.data)
        fields = [
            f"{producer}:{message_id}"
            for message_id, recent in changes.dropped.items()
            for producer in (recent.producer, REAPER)
        ]
        args += (len(fields), *fields)
        ended = [message for message in changes.messages.values() if message.status != "open"]
        args += (len(ended), *(counters_field(message.id) for message in ended))
        args += (len(ended), *(f"{message.producer}:{message.id}" for message in ended))
        for message in changes.messages.values():
            changed = self._changed_fields(message)
            if changed:
                script_keys.append(keys.message(message.id))
                args += _write(changed)
        for change in changes.chunks.values():
            message_id, _, index = change.chunk.id.rpartition(".")
            script_keys.append(keys.chunk(message_id, int(index)))
            args += _chunk_write(change)
        for end in changes.card_ends:
            script_keys.append(keys.chunk(end.message_id, end.chunk_index))
            result = orjson.dumps(end.output)
            args += _write({"card_processor": end.processor, "output.result": result})
        for message_id, recent in changes.dropped.items():
            for key in keys.message_and_chunks(message_id, recent.chunk_count):
                script_keys.append(key)
                args += ("1", 0)
        if changes.owed:
            script_keys.append(keys.outbox)
            args += _write({field_of(call): encode_call(call) for call in changes.owed})
        return script_keys, args

    def _trim_to(self) -> int:
        """Return the number of the entry to trim up to; 0: trimming would free nothing yet."""
        state = self.state
        if state.processed_bytes - self._trimmed_bytes < _TRIM_BYTES:
            return 0
        self._trimmed_bytes = state.processed_bytes
        return state.processed

    def committed(self, version: int) -> None:
        """Note that the commit was stored: the next one builds on *version*."""
        self.state.version = version

    def older_keys(self) -> list[str]:
        """Return the keys of all messages that the head lists, and of their chunks."""
        return keys_of(self.keys, self.state.recent)

    def _head_fields(self, changes: Changes, now_ms: int) -> list[Arg]:
        state = self.state
        fields: list[Arg] = [
            "seq",
            state.seq,
            "processed",
            state.processed,
            "processed_bytes",
            state.processed_bytes,
            "log_half_bytes",
            state.log.half_bytes,
            "updated_ms",
            now_ms,
        ]
        for message in changes.messages.values():
            if message.status == "open":
                counters = f"{message.raw_chunks} {message.raw_bytes} {message.last_at_ms}"
                fields += (counters_field(message.id), counters)
        if self._halves != (state.log.first_seq, state.log.half_seq):
            self._halves = state.log.first_seq, state.log.half_seq
            fields += ("log_first", state.log.first_seq, "log_half", state.log.half_seq)
        if self._lists_changed(changes):
            messages = [
                [mid, *(entry if entry.replaced else entry[:2])]
                for mid, entry in state.recent.items()
            ]
            fields += ("open", " ".join(state.messages), "messages", orjson.dumps(messages))
        return fields

    def _lists_changed(self, changes: Changes) -> bool:
        """Whether a message or a chunk began, or a message ended or was dropped."""
        return bool(
            changes.dropped
            or any(change.fresh for change in changes.chunks.values())
            or any(
                message.status != "open" or message.id not in self._stored
                for message in changes.messages.values()
            )
        )

    def _changed_fields(self, message: MessageState) -> Fields:
        before = self._stored.get(message.id)
        fields = _message_fields(message) if before is None else _changing_fields(message)
        changed = fields
        if before is not None:
            changed = {name: value for name, value in fields.items() if before[name] != value}
        if message.status == "open":
            self._stored[message.id] = fields
            return changed
        self._stored.pop(message.id, None)
        return changed | _counters(message)


REAPER: Final = "reaper"
"""Producer id under which workers end the messages of dead producers."""


def _write(fields: Fields) -> list[Arg]:
    args: list[Arg] = ["0", 2 * len(fields)]
    for name, value in fields.items():
        args += (name, value)
    return args


def _message_fields(message: MessageState) -> Fields:
    return {
        "v": STORED_FORMAT,
        "source": message.source,
        "role": message.role,
        "producer": message.producer,
        "mode": message.mode,
        "on_mismatch": message.on_mismatch,
        "metadata": orjson.dumps(message.metadata),
        "about": orjson.dumps(message.about),
        "pipeline": message.pipeline,
        **_changing_fields(message),
    }


def _changing_fields(message: MessageState) -> Fields:
    open_chunks = {key: chunk.index for key, chunk in message.open_chunks.items()}
    return {
        "status": message.status,
        "step": message.step,
        "step_open": int(message.step_open),
        "chunks": message.chunk_count,
        "open_chunks": orjson.dumps(open_chunks),
        "closed": orjson.dumps([(key, chunk.index) for key, chunk in message.closed]),
        "retry": orjson.dumps(_retried_call(message.retried_call)),
        "call_aliases": orjson.dumps(message.call_aliases),
        "tool_calls": orjson.dumps({key: [*call] for key, call in message.tool_calls.items()}),
        "codec": orjson.dumps(message.codec.dump()),
        "finish_reason": message.finish_reason or "",
        "usage": orjson.dumps(message.usage),
        "failure": orjson.dumps(message.failure),
        "stop_reason": message.stop_reason or "",
        "annotations": orjson.dumps(message.annotations),
        "note_filters": orjson.dumps(dump_note_filters(message)) if message.note_filters else b"{}",
        "rejected": message.rejected,
        "skipped": message.skipped + message.codec.skipped,
        "ttft_ms": "" if message.ttft_ms is None else message.ttft_ms,
    }


def _counters(message: MessageState) -> Fields:
    """What changes with every entry: in the head while the message is open, else in its own hash."""
    return {
        "raw_chunks": message.raw_chunks,
        "raw_bytes": message.raw_bytes,
        "last_at_ms": message.last_at_ms,
    }


def _retried_call(retry: RetriedCall | None) -> dict[str, Any] | None:
    if retry is None:
        return None
    left = [[key, chunk.index] for key, chunk in retry.unmatched]
    return {"rule": retry.rule, "begun": retry.begun, "left": left}


def _chunk_write(change: ChunkChange) -> list[Arg]:
    """Encode a chunk's part of the commit: the segment that grows, and the fields around it."""
    chunk, text = change.chunk, "".join(change.texts)
    rewrite = change.fresh or change.reset
    if change.reset:
        chunk.segment = chunk.segment_length = 0
    fields: Fields = {"status": chunk.status, "length": len(chunk.text)}
    if rewrite or chunk.stored_format < STORED_FORMAT:
        fields |= _constant_chunk_fields(chunk)
        chunk.stored_format = STORED_FORMAT
        if chunk.card is not None:
            fields["card_processor"] = chunk.card.processor
    if chunk.card is not None:
        fields |= _card_fields(chunk.card, change.outputs)
    if chunk.processor_failed:
        fields["processor_failed"] = 1
    fields |= _memory_fields(chunk)
    if text:
        # The growing segment goes whole: it is short, and reading it back would be one more call.
        chunk.segment_length += len(text)
        segment = chunk.text[-chunk.segment_length :]
        fields[f"text.{chunk.segment}"] = segment.encode()
        if chunk.segment_length >= SEGMENT_LENGTH:
            chunk.segment, chunk.segment_length = chunk.segment + 1, 0
    args: list[Arg] = ["1" if rewrite else "0", 2 * len(fields)]
    for name, value in fields.items():
        args += (name, value)
    return args


def _memory_fields(chunk: ChunkState) -> Fields:
    """Encode what the next text is compared with, and what is held back: readers never see it."""
    open_ = chunk.status == "open" or chunk.retried is not None
    fields: Fields = {}
    if chunk.track.mode == "snapshot":
        last_length, odd_last = chunk.track.remembered()
        fields = {"last_length": last_length, "last": odd_last or ""}
        if chunk.shown is not None:
            fields["unfiltered"] = chunk.track.complete if open_ else ""
    if chunk.shown is not None:
        state = chunk.filter.dump() if open_ and chunk.filter is not None else {}
        fields["held_back"] = orjson.dumps(state)
        fields["retried_call"] = (
            b"" if chunk.retried is None else orjson.dumps(_retried_chunk(chunk.retried))
        )
    return fields


def _retried_chunk(retried: RetriedChunk) -> dict[str, Any]:
    return {"stitcher": retried.stitcher.dump(), "tool_call_id": retried.tool_call_id}


def _card_fields(card: CardState, outputs: list[dict[str, Any]]) -> Fields:
    """Encode the segments that *outputs* change: the cost does not grow with the card."""
    fields: Fields = {}
    if outputs and card.segment == 0 and card.tail is None:
        fields["card_processor"] = card.processor
    for output in outputs:
        card.tail = output if card.tail is None else merge_outputs(card.tail, output)
        encoded = orjson.dumps(card.tail)
        fields[f"output.{card.segment}"] = encoded
        if len(encoded) >= OUTPUT_SEGMENT_BYTES:
            card.segment, card.tail = card.segment + 1, None
    return fields


def _constant_chunk_fields(chunk: ChunkState) -> Fields:
    return {
        "v": STORED_FORMAT,
        "kind": chunk.kind,
        "format": chunk.format,
        "tool_name": chunk.tool_name or "",
        "tool_call_id": chunk.tool_call_id or "",
        "processor": chunk.processor or "",
        "section": "" if chunk.section is None else orjson.dumps(chunk.section._asdict()),
        "mode": chunk.track.mode,
    }
