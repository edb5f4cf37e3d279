"""
How a chat's state is spelled in Redis hashes, and read back.

Plain field names, UTF-8 text, JSON for what has structure: a person with redis-cli can read it. A
chunk's text stands in segments (``text.0``, ``text.1``, ...): an append rewrites one segment of
bounded size, so it costs the same at 1 KB and at 1 MB.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import orjson

from riverdelta.broker import scripts
from riverdelta.broker.connection import Arg, Executor
from riverdelta.broker.keys import ChatKeys
from riverdelta.core.cards import make_parser
from riverdelta.core.codecs import make_codec
from riverdelta.core.errors import FormatTooNew
from riverdelta.core.events import (
    FORMAT,
    Event,
    SnapshotChunk,
    SnapshotMessage,
    empty_snapshot,
    encode_event,
)
from riverdelta.core.fold import Changes, ChatFold, ChunkChange
from riverdelta.core.outputs import merge_outputs, reduce_output
from riverdelta.core.processors import ProcessorRegistry
from riverdelta.core.state import (
    CardState,
    ChatState,
    ChunkState,
    LogWindow,
    MessageState,
    Recent,
    ToolCall,
)
from riverdelta.core.tracker import TextTrack

SEGMENT_LENGTH: Final = 1024
"""Code points at which a text segment is full. Small: each append copies half of one on average."""

_TRIM_BYTES: Final = 4096
"""Raw bytes between two trims: a stream drops whole nodes only, and a node holds 4 KiB."""

OUTPUT_SEGMENT_BYTES: Final = 4096
"""Size at which a segment of merged outputs is full: each new output spells one of them again."""

Fields = dict[str, Arg]


class LogLimits(NamedTuple):
    """How much log a chat keeps."""

    events: int
    bytes: int


class HotChat:
    """
    A chat in its owner's memory: the fold, and what Redis already has of each message.

    `encode` turns a batch's changes into one commit. After any refusal or error, drop the object and
    `load` another: it may be ahead of Redis.
    """

    def __init__(
        self, state: ChatState, term: int, keys: ChatKeys, registry: ProcessorRegistry
    ) -> None:
        self.state = state
        self.term = term
        self.keys = keys
        self.fold = ChatFold(state, registry)
        self._stored: dict[str, Fields] = {}
        self._trimmed_bytes = 0

    def adopt(self, message: MessageState) -> None:
        """Take up an open message as Redis has it."""
        self.state.messages[message.id] = message
        self._stored[message.id] = _message_fields(message)

    def encode(
        self, changes: Changes, *, log: LogLimits, now_ms: int, trim: bool
    ) -> tuple[list[str], list[Arg]]:
        """Keys and arguments of the commit that writes *changes*; see ``commit.lua``."""
        state, keys = self.state, self.keys
        head = self._head_fields(now_ms)
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
            len(changes.dead),
        ]
        for entry, code, detail in changes.dead:
            args += (code, detail, entry.message, entry.type, entry.data)
        fields = [
            f"{producer}:{message_id}"
            for message_id, recent in changes.dropped.items()
            for producer in (recent.producer, REAPER)
        ]
        args += (len(fields), *fields)
        for message in changes.messages.values():
            script_keys.append(keys.message(message.id))
            args += _write(self._news(message))
        for change in changes.chunks.values():
            message_id, _, index = change.chunk.id.rpartition(".")
            script_keys.append(keys.chunk(message_id, int(index)))
            args += _chunk_write(change)
        for end in changes.card_ends:
            script_keys.append(keys.chunk(end.message_id, end.chunk_index))
            args += _write({"card": end.processor, "output.result": orjson.dumps(end.output)})
        for message_id, recent in changes.dropped.items():
            for key in keys.message_and_chunks(message_id, recent.chunk_count):
                script_keys.append(key)
                args += ("1", "", "", 0)
        return script_keys, args

    def _trim_to(self) -> int:
        """Number of the entry to trim up to; 0 while that would drop nothing."""
        state = self.state
        if state.processed_bytes - self._trimmed_bytes < _TRIM_BYTES:
            return 0
        self._trimmed_bytes = state.processed_bytes
        return state.processed

    def committed(self, version: int) -> None:
        """The commit was stored: build the next one on *version*."""
        self.state.version = version

    def older_keys(self) -> list[str]:
        """Keys of every message the head remembers."""
        return _keys_of(self.keys, self.state.recent)

    def _head_fields(self, now_ms: int) -> list[Arg]:
        state = self.state
        return [
            "seq",
            state.seq,
            "processed",
            state.processed,
            "processed_bytes",
            state.processed_bytes,
            "open",
            " ".join(state.messages),
            "messages",
            orjson.dumps([[mid, *recent] for mid, recent in state.recent.items()]),
            "log_first",
            state.log.first_seq,
            "log_half",
            state.log.half_seq,
            "log_half_bytes",
            state.log.half_bytes,
            "updated_ms",
            now_ms,
        ]

    def _news(self, message: MessageState) -> Fields:
        fields = _message_fields(message)
        before = self._stored.get(message.id)
        if message.status == "open":
            self._stored[message.id] = fields
        else:
            self._stored.pop(message.id, None)
        if before is None:
            return fields
        return {name: value for name, value in fields.items() if before[name] != value}


REAPER: Final = "reaper"
"""Producer id under which workers end the messages of dead producers."""


def _write(fields: Fields) -> list[Arg]:
    args: list[Arg] = ["0", "", "", 2 * len(fields)]
    for name, value in fields.items():
        args += (name, value)
    return args


def _message_fields(message: MessageState) -> Fields:
    open_chunks = {key: chunk.index for key, chunk in message.open_chunks.items()}
    return {
        "v": FORMAT,
        "status": message.status,
        "source": message.source,
        "role": message.role,
        "producer": message.producer,
        "mode": message.mode,
        "on_mismatch": message.on_mismatch,
        "metadata": orjson.dumps(message.metadata),
        "step": message.step,
        "step_open": int(message.step_open),
        "chunks": message.chunk_count,
        "open_chunks": orjson.dumps(open_chunks),
        "tool_calls": orjson.dumps({key: [*call] for key, call in message.tool_calls.items()}),
        "codec": orjson.dumps(message.codec.dump()),
        "finish_reason": message.finish_reason or "",
        "usage": orjson.dumps(message.usage),
        "failure": orjson.dumps(message.failure),
        "stop_reason": message.stop_reason or "",
        "annotations": orjson.dumps(message.annotations),
        "raw_chunks": message.raw_chunks,
        "raw_bytes": message.raw_bytes,
        "rejected": message.rejected,
        "skipped": message.codec.skipped,
        "ttft_ms": "" if message.ttft_ms is None else message.ttft_ms,
        "last_at_ms": message.last_at_ms,
    }


def _chunk_write(change: ChunkChange) -> list[Arg]:
    """One key's part of the commit: the segment that grows, and the fields around it."""
    chunk, text = change.chunk, "".join(change.texts)
    rewrite = change.fresh or change.reset
    if change.reset:
        chunk.segment = chunk.segment_length = 0
    last_length, odd_last = chunk.track.remembered()
    fields: Fields = {"status": chunk.status, "length": len(chunk.track.complete)}
    if rewrite:
        fields |= _constant_chunk_fields(chunk)
    if chunk.card is not None:
        fields |= _card_fields(chunk.card, change.outputs)
    if chunk.processor_failed:
        fields["processor_failed"] = 1
    if chunk.track.mode == "snapshot":
        fields |= {"last_length": last_length, "last": odd_last or ""}
    args: list[Arg] = ["1" if rewrite else "0"]
    if text:
        args += (f"text.{chunk.segment}", text.encode())
        chunk.segment_length += len(text)
        if chunk.segment_length >= SEGMENT_LENGTH:
            chunk.segment, chunk.segment_length = chunk.segment + 1, 0
    else:
        args += ("", "")
    args.append(2 * len(fields))
    for name, value in fields.items():
        args += (name, value)
    return args


def _card_fields(card: CardState, outputs: list[dict[str, Any]]) -> Fields:
    """Segments that change when *outputs* are added: an output costs the same however long the card."""
    fields: Fields = {}
    for output in outputs:
        card.tail = output if card.tail is None else merge_outputs(card.tail, output)
        spelled = orjson.dumps(card.tail)
        fields[f"output.{card.segment}"] = spelled
        fields["card"] = card.processor
        if len(spelled) >= OUTPUT_SEGMENT_BYTES:
            card.segment, card.tail = card.segment + 1, None
    return fields


def _constant_chunk_fields(chunk: ChunkState) -> Fields:
    return {
        "v": FORMAT,
        "kind": chunk.kind,
        "format": chunk.format,
        "tool_name": chunk.tool_name or "",
        "tool_call_id": chunk.tool_call_id or "",
        "processor": chunk.processor or "",
        "mode": chunk.track.mode,
    }


def _keys_of(keys: ChatKeys, recent: dict[str, Recent]) -> list[str]:
    return [
        key
        for message_id, entry in recent.items()
        for key in keys.message_and_chunks(message_id, entry.chunk_count)
    ]


# -- reading back --------------------------------------------------------------------------------


class Head(NamedTuple):
    """The head hash, read."""

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

    @classmethod
    def of(cls, fields: dict[str, bytes]) -> Head:
        """
        Read HGETALL's fields.

        Raises:
            FormatTooNew: A newer riverdelta wrote them.
        """
        _check_format(fields, "chat")
        messages = orjson.loads(fields.get("messages", b"[]"))
        return cls(
            epoch=_text(fields, "epoch"),
            seq=_int(fields, "seq"),
            version=_int(fields, "version"),
            processed=_int(fields, "processed"),
            processed_bytes=_int(fields, "processed_bytes"),
            pushed=_int(fields, "pushed"),
            term=_int(fields, "term"),
            owner=_text(fields, "owner"),
            claims=_int(fields, "claims"),
            open=_text(fields, "open").split(),
            recent={mid: Recent(count, producer) for mid, count, producer in messages},
            log=(
                _int(fields, "log_first", 1),
                _int(fields, "log_half", 1),
                _int(fields, "log_half_bytes"),
            ),
        )


async def read_head(executor: Executor, keys: ChatKeys) -> Head | None:
    """Read a chat's head; None: there is no such chat."""
    fields = scripts.as_hash(await executor.execute("HGETALL", keys.head))
    return Head.of(fields) if fields else None


async def load(
    executor: Executor,
    keys: ChatKeys,
    chat_id: str,
    *,
    log_max_bytes: int,
    registry: ProcessorRegistry,
) -> tuple[Head, HotChat] | None:
    """
    Load a chat for its owner: each open chunk's stored text is taken up once, silently.

    Only the owner writes what is read here, so several reads see one state; None: no such chat.
    """
    head = await read_head(executor, keys)
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
    hot = HotChat(state, head.term, keys, registry)
    for message_id in head.open:
        message = await _load_message(executor, keys, message_id, registry)
        if message is not None:
            hot.adopt(message)
    return head, hot


async def _load_message(
    executor: Executor, keys: ChatKeys, message_id: str, registry: ProcessorRegistry
) -> MessageState | None:
    fields = scripts.as_hash(await executor.execute("HGETALL", keys.message(message_id)))
    if "source" not in fields:
        return None
    _check_format(fields, "message")
    codec = make_codec(_text(fields, "source"))
    codec.load(orjson.loads(fields["codec"]))
    message = MessageState(
        id=message_id,
        source=_text(fields, "source"),
        codec=codec,
        producer=_text(fields, "producer"),
        role=_text(fields, "role"),
        mode=_text(fields, "mode"),  # type: ignore[arg-type]  # written by _message_fields
        on_mismatch=_text(fields, "on_mismatch"),  # type: ignore[arg-type]  # as above
        metadata=orjson.loads(fields["metadata"]),
        step=_int(fields, "step"),
        step_open=bool(_int(fields, "step_open")),
        chunk_count=_int(fields, "chunks"),
        tool_calls={
            call_id: ToolCall(*call) for call_id, call in orjson.loads(fields["tool_calls"]).items()
        },
        finish_reason=_text(fields, "finish_reason") or None,  # type: ignore[arg-type]  # as above
        usage=orjson.loads(fields["usage"]),
        failure=orjson.loads(fields["failure"]),
        annotations=orjson.loads(fields["annotations"]),
        raw_chunks=_int(fields, "raw_chunks"),
        raw_bytes=_int(fields, "raw_bytes"),
        rejected=_int(fields, "rejected"),
        ttft_ms=int(fields["ttft_ms"]) if fields["ttft_ms"] else None,
        last_at_ms=_int(fields, "last_at_ms"),
    )
    for key, index in orjson.loads(fields["open_chunks"]).items():
        stored = scripts.as_hash(await executor.execute("HGETALL", keys.chunk(message_id, index)))
        chunk = message.open_chunks[key] = _chunk_state(message, index, stored)
        chunk.parser = make_parser(chunk, registry)
    await _load_cards(executor, keys, message)
    return message


async def _load_cards(executor: Executor, keys: ChatKeys, message: MessageState) -> None:
    """Take up the cards of calls whose result may still come."""
    still_open = {chunk.index for chunk in message.open_chunks.values()}
    for call_id, call in message.tool_calls.items():
        if call.chunk_index not in still_open:
            flat = await executor.execute("HGETALL", keys.chunk(message.id, call.chunk_index))
            fields = scripts.as_hash(flat)
            card = _card(fields)
            if card is not None and "output.result" not in fields:
                message.cards[call_id] = card


def _chunk_state(message: MessageState, index: int, fields: dict[str, bytes]) -> ChunkState:
    _check_format(fields, "chunk")
    track = TextTrack(_text(fields, "mode"), message.on_mismatch)  # type: ignore[arg-type]  # as above
    segments = _segments(fields)
    text = "".join(segments)
    track.restore(text, _int(fields, "last_length"), _text(fields, "last") or None)
    full = bool(segments) and len(segments[-1]) >= SEGMENT_LENGTH
    return ChunkState(
        id=f"{message.id}.{index}",
        index=index,
        kind=_text(fields, "kind"),  # type: ignore[arg-type]  # as above
        format=_text(fields, "format"),  # type: ignore[arg-type]  # as above
        tool_name=_text(fields, "tool_name") or None,
        tool_call_id=_text(fields, "tool_call_id") or None,
        processor=_text(fields, "processor") or None,
        track=track,
        card=_card_state(fields),
        processor_failed=bool(_int(fields, "processor_failed")),
        segment=max(0, len(segments) - (0 if full else 1)),
        segment_length=0 if full or not segments else len(segments[-1]),
    )


def _card_state(fields: dict[str, bytes]) -> CardState | None:
    card = _card(fields)
    if card is None:
        return None
    last = len(_output_segments(fields)) - 1
    spelled = fields[f"output.{last}"]
    if len(spelled) >= OUTPUT_SEGMENT_BYTES:
        return CardState(_text(fields, "card"), card, last + 1)
    return CardState(_text(fields, "card"), card, last, orjson.loads(spelled))


def _card(fields: dict[str, bytes]) -> dict[str, Any] | None:
    """Put a chunk's card together; None: it has none."""
    card: dict[str, Any] | None = None
    for name in [*_output_segments(fields), "output.result"]:
        if name in fields:
            card = reduce_output(card, orjson.loads(fields[name]))
    return card


def _output_segments(fields: dict[str, bytes]) -> list[str]:
    count = sum(1 for name in fields if name.startswith("output.") and name != "output.result")
    return [f"output.{index}" for index in range(count)]


async def read_snapshot(executor: Executor, keys: ChatKeys, chat_id: str, now_ms: int) -> Event:
    """Make the snapshot event of a chat, as of one seq; an empty one where there is no log yet."""
    names = await executor.execute("HGET", keys.head, "messages")
    while True:
        listed = {mid: Recent(n, producer) for mid, n, producer in orjson.loads(names or b"[]")}
        head, *rest = await scripts.snapshot(executor, keys, _keys_of(keys, listed))
        if head.get("messages") == names:
            break
        names = head.get("messages")  # a message or chunk began in between: ask for it, too
    if "epoch" not in head:
        return empty_snapshot(chat_id, now_ms)
    _check_format(head, "chat")
    messages = []
    for message_id, (count, _) in listed.items():
        message, chunks, rest = rest[0], rest[1 : 1 + count], rest[1 + count :]
        if message:
            messages.append(_snapshot_message(message_id, message, chunks))
    return Event(
        encode_event(
            seq=_int(head, "seq"),
            epoch=_text(head, "epoch"),
            chat=chat_id,
            message=None,
            chunk=None,
            type_="snapshot",
            ts_ms=now_ms,
            data={"messages": messages},
        )
    )


def _snapshot_message(
    message_id: str, fields: dict[str, bytes], chunks: list[dict[str, bytes]]
) -> SnapshotMessage:
    status = _text(fields, "status")
    return SnapshotMessage(
        message=message_id,
        role=_text(fields, "role"),
        status=status,  # type: ignore[typeddict-item]  # written by _message_fields
        finish_reason=_text(fields, "finish_reason") or None if status == "completed" else None,  # type: ignore[typeddict-item]  # as above
        usage=orjson.loads(fields["usage"]) if status == "completed" else None,
        error=orjson.loads(fields["failure"]) if status == "failed" else None,
        stop_reason=_text(fields, "stop_reason") if status == "stopped" else None,
        annotations=orjson.loads(fields["annotations"]),
        chunks=[
            _snapshot_chunk(f"{message_id}.{index}", chunk) for index, chunk in enumerate(chunks)
        ],
    )


def _snapshot_chunk(chunk_id: str, fields: dict[str, bytes]) -> SnapshotChunk:
    return SnapshotChunk(
        chunk=chunk_id,
        kind=_text(fields, "kind"),  # type: ignore[typeddict-item]  # written by _chunk_write
        format=_text(fields, "format"),  # type: ignore[typeddict-item]  # as above
        status=_text(fields, "status"),  # type: ignore[typeddict-item]  # as above
        text="".join(_segments(fields)),
        tool_name=_text(fields, "tool_name") or None,
        tool_call_id=_text(fields, "tool_call_id") or None,
        outputs={} if (card := _card(fields)) is None else {_text(fields, "card"): card},
    )


def _segments(fields: dict[str, bytes]) -> list[str]:
    count = sum(1 for name in fields if name.startswith("text."))
    return [fields[f"text.{index}"].decode() for index in range(count)]


def _check_format(fields: dict[str, bytes], what: str) -> None:
    found = _int(fields, "v", FORMAT)
    if found > FORMAT:
        message = f"this {what} is stored in format {found}, this riverdelta reads up to {FORMAT}: upgrade"
        raise FormatTooNew(message)


def _text(fields: dict[str, bytes], name: str) -> str:
    return fields.get(name, b"").decode()


def _int(fields: dict[str, bytes], name: str, default: int = 0) -> int:
    value = fields.get(name)
    return default if not value else int(value)


def describe(fields: dict[str, bytes]) -> dict[str, Any]:
    """Fields of any hash above, for people: numbers and JSON read, the rest as text."""
    described: dict[str, Any] = {}
    for name, value in fields.items():
        try:
            described[name] = orjson.loads(value)
        except orjson.JSONDecodeError:
            described[name] = value.decode(errors="replace")
    return described
