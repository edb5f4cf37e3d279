"""The chunks of open messages: how each begins, gets its text, and ends."""

from __future__ import annotations

from collections.abc import Sequence

from riverdelta.core.cards import equip, restart_filter
from riverdelta.core.codecs.pieces import ChunkEnd, ChunkPiece, ChunkStart, ProcessorFail, Text
from riverdelta.core.draft import Draft
from riverdelta.core.events import ChunkCompleted, ChunkStarted, Failure, section_data
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.state import ChatState, ChunkState, Entry, MessageState, Recent, ToolCall
from riverdelta.core.tracker import TextTrack


class Chunks:
    """
    Moves the chunks of one chat on, for its fold.

    Args:
        state: The chat.
        draft: Takes what readers and Redis have to be told.
        pipeline: Filters and processors of chunks.
    """

    def __init__(self, state: ChatState, draft: Draft, pipeline: Pipeline) -> None:
        self._state = state
        self._draft = draft
        self._pipeline = pipeline

    def take(self, message: MessageState, piece: ChunkPiece) -> None:
        """Do what *piece* says."""
        match piece:
            case Text(key, text):
                self.add(message, key, text)
            case ChunkStart():
                self.start(message, piece)
            case ChunkEnd(key):
                self.end(message, key)
            case ProcessorFail(key, processor, code):
                chunk_id = message.open_chunks[key].id
                self._draft.processor_failed(message.id, chunk_id, processor, code)

    def start(self, message: MessageState, start: ChunkStart) -> None:
        """Begin a chunk under its codec's key."""
        index = message.chunk_count
        chunk = ChunkState(
            id=f"{message.id}.{index}",
            index=index,
            kind=start.kind,
            format=start.format,
            tool_name=start.tool_name,
            tool_call_id=start.tool_call_id,
            processor=start.processor,
            section=start.section,
            track=TextTrack(start.mode or message.mode, message.on_mismatch),
        )
        equip(chunk, self._pipeline)
        message.chunk_count += 1
        message.open_chunks[start.key] = chunk
        if start.kind == "tool_call" and start.tool_call_id and start.tool_name:
            call = ToolCall(start.tool_name, index, start.processor)
            message.tool_calls[start.tool_call_id] = call
        self._state.recent[message.id] = Recent(message.chunk_count, message.producer)
        self._draft.change(chunk).fresh = True
        started = ChunkStarted(
            kind=chunk.kind,
            format=chunk.format,
            index=index,
            tool_name=chunk.tool_name,
            tool_call_id=chunk.tool_call_id,
            section=section_data(chunk.section),
        )
        self._draft.emit("chunk.started", message.id, chunk.id, started)

    def end(self, message: MessageState, key: str) -> None:
        """Complete an open chunk: whatever was held back of it goes out first."""
        chunk = message.open_chunks.pop(key)
        self._show_rest(message, chunk)
        self._draft.finish_text(message.id, chunk)
        if chunk.card is not None and chunk.tool_call_id in message.tool_calls:
            message.cards[chunk.tool_call_id] = chunk.card.latest
        chunk.status = "completed"
        self._draft.change(chunk)
        completed = ChunkCompleted(length=len(chunk.text))
        self._draft.emit("chunk.completed", message.id, chunk.id, completed)

    def fail_all(self, message: MessageState, failure: Failure) -> None:
        """Fail every open chunk of a message."""
        for chunk in message.open_chunks.values():
            self._show_rest(message, chunk)
            chunk.status = "failed"
            self._draft.change(chunk)
            self._draft.emit("chunk.failed", message.id, chunk.id, failure)
        message.open_chunks.clear()

    def add_run(
        self, message: MessageState, key: str, texts: Sequence[str], entries: Sequence[Entry]
    ) -> None:
        """Add a run of texts, one of each entry: increments at once, texts so far one by one."""
        if message.open_chunks[key].track.mode == "append":
            texts, entries = ["".join(texts)], (entries[0], entries[-1])
        for text, entry in zip(texts, entries, strict=False):
            message.last_at_ms = entry.at_ms  # the first text may be the first of all
            self.add(message, key, text)
        message.last_at_ms = entries[-1].at_ms

    def add(self, message: MessageState, key: str, text: str) -> None:
        """Add a text to an open chunk: an increment, or all of it so far."""
        chunk = message.open_chunks[key]
        text, reset = chunk.track.add(text)
        if reset:
            restart_filter(chunk, self._pipeline)
            self._draft.reset(message, chunk)
        if chunk.filter is not None and text:
            text = chunk.filter.feed(text)
            self._draft.change(chunk)  # what it holds back has to be written down
        self._show(message, chunk, text)

    def _show(self, message: MessageState, chunk: ChunkState, text: str) -> None:
        if not text:
            return
        if chunk.shown is not None:
            chunk.shown.add(text)
        self._draft.add_text(message, chunk, text)

    def _show_rest(self, message: MessageState, chunk: ChunkState) -> None:
        """The chunk ends: what its filter held back is judged, and goes out."""
        if chunk.filter is not None:
            self._show(message, chunk, chunk.filter.finish())
            chunk.filter = None
