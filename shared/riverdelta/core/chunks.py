"""Open chunks of messages: how each begins, grows and ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from riverdelta.core.batch import Batch
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkPiece,
    ChunkStart,
    Format,
    ProcessorFail,
    Text,
)
from riverdelta.core.equip import equip, new_filter
from riverdelta.core.events import (
    ChunkCompleted,
    ChunkStarted,
    Failure,
    ResetReason,
    section_data,
)
from riverdelta.core.filters import StreamFilter
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.state import (
    ChatState,
    ChunkState,
    Entry,
    FinishedCard,
    MessageState,
    Recent,
    ToolCall,
)
from riverdelta.core.tracker import Delta, TextTrack

_KEPT_CHUNKS: Final = 64
_KEPT_LENGTH: Final = 1 << 20
"""
Ended chunks of source ``chunks`` kept for a retried call: how many, and how many code points in all.

This source has one step, the whole message, and an agent may run for hours. A provider's call is bounded by
the provider.
"""


class Chunks:
    """
    Apply pieces to the chunks of one chat, for its fold.

    Args:
        state: The chat.
        batch: Collects the events for readers and the changes for Redis.
        pipeline: Filters and processors of chunks.
    """

    def __init__(self, state: ChatState, batch: Batch, pipeline: Pipeline) -> None:
        self._state = state
        self._batch = batch
        self._pipeline = pipeline

    def apply(self, message: MessageState, piece: ChunkPiece) -> None:
        """Apply one piece that a codec returned."""
        match piece:
            case Text(key, text):
                self.add(message, key, text)
            case ChunkStart():
                self.start(message, piece)
            case ChunkEnd(key):
                self.end(message, key)
            case ChunkFail(key, code, detail):
                self.end(message, key, Failure(code=code, detail=detail))
            case ProcessorFail(key, processor, code):
                chunk_id = message.open_chunks[key].id
                self._batch.processor_failed(message.id, chunk_id, processor, code)

    def start(self, message: MessageState, start: ChunkStart) -> ChunkState:
        """Begin a chunk under the key that its codec uses."""
        index = message.chunk_count
        call_id = start.tool_call_id
        if call_id and start.kind == "tool_call":
            message.call_aliases.pop(call_id, None)  # a new call, not a repeated one
        elif call_id:
            call_id = message.call_aliases.get(call_id, call_id)
        chunk = ChunkState(
            id=f"{message.id}.{index}",
            index=index,
            kind=start.kind,
            format=start.format,
            tool_name=start.tool_name,
            tool_call_id=call_id,
            processor=start.processor,
            section=start.section,
            track=TextTrack(start.mode or message.mode, message.on_mismatch),
        )
        equip(chunk, self._pipeline)
        message.chunk_count += 1
        message.open_chunks[start.key] = chunk
        if start.kind == "tool_call" and call_id and start.tool_name:
            message.tool_calls[call_id] = ToolCall(start.tool_name, index, start.processor)
        self._state.recent[message.id] = Recent(message.chunk_count, message.producer)
        self._batch.change(chunk).fresh = True
        started = ChunkStarted(
            kind=chunk.kind,
            format=chunk.format,
            index=index,
            tool_name=chunk.tool_name,
            tool_call_id=chunk.tool_call_id,
            section=section_data(chunk.section),
        )
        self._batch.emit("chunk.started", message.id, chunk.id, started)
        return chunk

    def open_at(self, message: MessageState, index: int) -> ChunkState | None:
        """Find an open chunk by its index; None: it has ended."""
        left = (
            []
            if message.retried_call is None
            else [chunk for _, chunk in message.retried_call.unmatched]
        )
        chunks = [*message.open_chunks.values(), *left]
        return next((c for c in chunks if c.index == index and c.status == "open"), None)

    def end(self, message: MessageState, key: str, failure: Failure | None = None) -> None:
        """
        End an open chunk. Text that was held back goes out first.

        Args:
            message: The message of the chunk.
            key: The key that the codec uses for it.
            failure: Why it is incomplete. None: it is complete.
        """
        self._show_rest(message, key)
        chunk = message.open_chunks.pop(key)
        if chunk.status == "open" and failure is None:
            self._complete(message, chunk)
        elif chunk.status == "open" and failure is not None:
            self.fail(message, chunk, failure)
        else:
            self._batch.change(chunk)  # ended before; the retried call repeated it exactly
        self._remember(message, key, chunk)

    def _complete(self, message: MessageState, chunk: ChunkState) -> None:
        self._batch.finish_text(message.id, chunk)
        card = (
            None if chunk.processor_failed else chunk.card
        )  # a failed processor leaves an unfinished card
        call_id = chunk.tool_call_id or ""
        call = message.tool_calls.get(call_id)
        if card is not None and call is not None and call.chunk_index == chunk.index:
            message.cards[call_id] = FinishedCard(card.processor, card.latest)
        chunk.status = "completed"
        self._batch.change(chunk)
        completed = ChunkCompleted(length=len(chunk.text))
        self._batch.emit("chunk.completed", message.id, chunk.id, completed)

    def fail_all(self, message: MessageState, failure: Failure) -> None:
        """Fail every open chunk of a message. None of them may be waiting for a retried call."""
        for key, chunk in message.open_chunks.items():
            self._show_rest(message, key)
            self.fail(message, chunk, failure)
            self._remember(message, key, chunk)
        message.open_chunks.clear()

    def fail(self, message: MessageState, chunk: ChunkState, failure: Failure) -> None:
        """End a chunk that stays incomplete."""
        chunk.status = "failed"
        self._batch.change(chunk)
        self._batch.emit("chunk.failed", message.id, chunk.id, failure)

    def _remember(self, message: MessageState, key: str, chunk: ChunkState) -> None:
        """Keep an ended chunk while its provider call may still be retried."""
        chunk.parser = None
        if chunk.shown is not None:
            chunk.track = TextTrack(chunk.track.mode, chunk.track.on_mismatch)
        if message.step_open:
            message.closed.append((key, chunk))
            if message.source == "chunks":
                _forget_oldest(message.closed)

    def add_whole(self, message: MessageState, start: ChunkStart, text: str) -> str:
        """
        Add a whole chunk that the producer made itself, outside any provider call.

        Returns:
            The text that readers get for *text*.
        """
        self.start(message, start)
        self.add(message, start.key, text)
        self._show_rest(message, start.key)
        chunk = message.open_chunks.pop(start.key)
        self._complete(message, chunk)
        return chunk.text

    def add_run(
        self, message: MessageState, key: str, texts: Sequence[str], entries: Sequence[Entry]
    ) -> None:
        """Add one text per entry: increments are joined, snapshots are added one by one."""
        if message.open_chunks[key].track.mode == "append":
            texts, entries = ["".join(texts)], (entries[0], entries[-1])
        for text, entry in zip(texts, entries, strict=False):
            message.last_at_ms = entry.at_ms  # the first text sets the message's time to first text
            self.add(message, key, text)
        message.last_at_ms = entries[-1].at_ms

    def add(self, message: MessageState, key: str, text: str) -> None:
        """Add a text to an open chunk: an increment or a snapshot, as its mode says."""
        chunk = message.open_chunks[key]
        if chunk.shown is not None:
            self._add_split(message, key, chunk, text)
            return
        text, reset = chunk.track.add(text)
        if reset:
            self._batch.reset(message, chunk, "mismatch")
        if text:
            self._batch.add_text(message, chunk, text)

    def _add_split(self, message: MessageState, key: str, chunk: ChunkState, text: str) -> None:
        """Add a text whose output differs from its input: filtered, or of a retried call."""
        if chunk.track.mode == "snapshot":  # increments are not kept twice
            text, reset = chunk.track.add(text)
            if reset:
                chunk.filter = self.new_filter(chunk.format)
                if chunk.retried is not None:
                    chunk.retried.stitcher.restart()
                else:
                    self.void(message, chunk, "mismatch")
        if chunk.filter is not None and text:
            text = chunk.filter.feed(text)
        self._batch.change(chunk)  # the held-back text must be stored
        self._pass_on(message, key, chunk, text)

    def _show_rest(self, message: MessageState, key: str) -> None:
        """Flush the filter and the stitcher of a chunk that ends."""
        chunk = message.open_chunks[key]
        if chunk.filter is not None:
            rest, chunk.filter = chunk.filter.finish(), None
            self._pass_on(message, key, chunk, rest)
        if chunk.retried is not None:
            self._settle(message, key, chunk, chunk.retried.stitcher.finish())

    def _pass_on(self, message: MessageState, key: str, chunk: ChunkState, text: str) -> None:
        if text and chunk.retried is not None:
            self._settle(message, key, chunk, chunk.retried.stitcher.add(text))
        else:
            self._show(message, chunk, text)

    # -- chunks of a retried call ----------------------------------------------------------------

    def _settle(self, message: MessageState, key: str, chunk: ChunkState, delta: Delta) -> None:
        """Apply the decision of a stitcher; does nothing while it still holds the text."""
        if chunk.retried is None or not chunk.retried.stitcher.settled:
            return
        call_id, chunk.retried = chunk.retried.tool_call_id, None
        if delta.reset and chunk.status == "open":
            self.void(message, chunk)
        elif delta.reset:
            chunk = self._begin_instead(message, key, chunk, call_id)
        self._show(message, chunk, delta.text)

    def _begin_instead(
        self, message: MessageState, key: str, old: ChunkState, call_id: str | None
    ) -> ChunkState:
        """Void an ended chunk that the retried call did not repeat; a new chunk takes its place."""
        self.withdraw(message, old)
        start = ChunkStart(
            key,
            old.kind,
            old.format,
            old.tool_name,
            call_id,
            old.processor,
            old.track.mode,
            old.section,
        )
        chunk = self.start(message, start)
        chunk.track, chunk.filter, chunk.shown = old.track, old.filter, TextTrack("append", "emit")
        old.track, old.filter = TextTrack(old.track.mode, old.track.on_mismatch), None
        return chunk

    def withdraw(self, message: MessageState, chunk: ChunkState) -> None:
        """Void a chunk that will not go on, and forget its tool call."""
        if chunk.text:
            self.void(message, chunk)
        if chunk.kind == "tool_call" and chunk.tool_call_id is not None:
            message.tool_calls.pop(chunk.tool_call_id, None)
            message.cards.pop(chunk.tool_call_id, None)

    def void(
        self, message: MessageState, chunk: ChunkState, reason: ResetReason = "restarted"
    ) -> None:
        """Void all text that readers have of a chunk."""
        self._batch.reset(message, chunk, reason)
        if chunk.shown is not None:
            chunk.shown = TextTrack("append", "emit")
        else:
            chunk.track = TextTrack(chunk.track.mode, chunk.track.on_mismatch)

    def mark_changed(self, chunk: ChunkState) -> None:
        """Mark a chunk as changed, so that it is written."""
        self._batch.change(chunk)

    def filtered_start(self, start: ChunkStart) -> ChunkStart:
        """Filter the info of a section and the name of a tool: the model wrote them, too."""
        if start.section is not None:
            section = start.section._replace(info=self.filtered(start.section.info))
            start = start._replace(section=section)
        if start.tool_name is not None:
            start = start._replace(tool_name=self.filtered(start.tool_name))
        return start

    def filtered(self, text: str) -> str:
        """Filter a whole text that is no chunk's: a model's name, a reason, a failure's words."""
        text_filter = self.new_filter()
        if text_filter is None:
            return text
        return text_filter.feed(text) + text_filter.finish()

    def filtered_value(self, value: Any) -> Any:
        """Filter the strings of a JSON value, keys, too."""
        if self._pipeline.stream_filter is None:
            return value
        match value:
            case str():
                return self.filtered(value)
            case list():
                return [self.filtered_value(item) for item in value]
            case dict():
                return {
                    self.filtered(key): self.filtered_value(item) for key, item in value.items()
                }
        return value

    def new_filter(self, format_: Format = "text") -> StreamFilter | None:
        """Make a filter in its first state, for text of that format; None: the pipeline has no filter."""
        return new_filter(format_, self._pipeline)

    def _show(self, message: MessageState, chunk: ChunkState, text: str) -> None:
        if not text:
            return
        if chunk.shown is not None:
            chunk.shown.add(text)
        self._batch.add_text(message, chunk, text)


def _forget_oldest(closed: list[tuple[str, ChunkState]]) -> None:
    """Keep *closed* within its bounds. Readers keep the chunks that are forgotten here."""
    length = sum(len(chunk.text) for _, chunk in closed)
    while len(closed) > _KEPT_CHUNKS or length > _KEPT_LENGTH:
        _, oldest = closed.pop(0)
        length -= len(oldest.text)
