"""The chunks of open messages: how each begins, gets its text, and ends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from riverdelta.core.batch import Draft
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkFail,
    ChunkPiece,
    ChunkStart,
    ProcessorFail,
    Text,
)
from riverdelta.core.equip import equip
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
How many ended chunks of source ``chunks`` are kept for a restart, and their code points.

Its one step is the whole message: an agent may run for hours. A provider's call has a bound of its own.
"""


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
            case ChunkFail(key, code, detail):
                self.end(message, key, Failure(code=code, detail=detail))
            case ProcessorFail(key, processor, code):
                chunk_id = message.open_chunks[key].id
                self._draft.processor_failed(message.id, chunk_id, processor, code)

    def start(self, message: MessageState, start: ChunkStart) -> ChunkState:
        """Begin a chunk under its codec's key."""
        index = message.chunk_count
        call_id = start.tool_call_id
        if call_id and start.kind == "tool_call":
            message.call_aliases.pop(call_id, None)  # a call of its own
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
        return chunk

    def open_at(self, message: MessageState, index: int) -> ChunkState | None:
        """Find a chunk that has not ended, by its number; None: it has."""
        left = [] if message.retry is None else [chunk for _, chunk in message.retry.left]
        chunks = [*message.open_chunks.values(), *left]
        return next((c for c in chunks if c.index == index and c.status == "open"), None)

    def end(self, message: MessageState, key: str, failure: Failure | None = None) -> None:
        """
        End an open chunk: whatever was held back of it goes out first.

        Args:
            message: Whose chunk it is.
            key: The codec's name for it.
            failure: Why it is not whole. None: it is, and completes.
        """
        self._show_rest(message, key)
        chunk = message.open_chunks.pop(key)
        if chunk.status == "open" and failure is None:
            self._complete(message, chunk)
        elif chunk.status == "open" and failure is not None:
            self.fail(message, chunk, failure)
        else:
            self._draft.change(chunk)  # it ended before, and was the same again
        self._remember(message, key, chunk)

    def _complete(self, message: MessageState, chunk: ChunkState) -> None:
        self._draft.finish_text(message.id, chunk)
        card = None if chunk.processor_failed else chunk.card  # what it left there is unfinished
        call_id = chunk.tool_call_id or ""
        call = message.tool_calls.get(call_id)
        if card is not None and call is not None and call.chunk_index == chunk.index:
            message.cards[call_id] = FinishedCard(card.processor, card.latest)
        chunk.status = "completed"
        self._draft.change(chunk)
        completed = ChunkCompleted(length=len(chunk.text))
        self._draft.emit("chunk.completed", message.id, chunk.id, completed)

    def fail_all(self, message: MessageState, failure: Failure) -> None:
        """Fail every open chunk of a message, none of which is being said again."""
        for key, chunk in message.open_chunks.items():
            self._show_rest(message, key)
            self.fail(message, chunk, failure)
            self._remember(message, key, chunk)
        message.open_chunks.clear()

    def fail(self, message: MessageState, chunk: ChunkState, failure: Failure) -> None:
        """End a chunk that will not be whole."""
        chunk.status = "failed"
        self._draft.change(chunk)
        self._draft.emit("chunk.failed", message.id, chunk.id, failure)

    def _remember(self, message: MessageState, key: str, chunk: ChunkState) -> None:
        """Keep a chunk that has ended while its provider call may still be made again."""
        chunk.parser = None
        if chunk.shown is not None:
            chunk.track = TextTrack(chunk.track.mode, chunk.track.on_mismatch)
        if message.step_open:
            message.closed.append((key, chunk))
            if message.source == "chunks":
                _forget_oldest(message.closed)

    def add_whole(self, message: MessageState, start: ChunkStart, text: str) -> str:
        """
        Add a chunk of the producer's own: all of it at once, and no part of a provider call.

        Returns:
            What readers get of *text*.
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
        if chunk.shown is not None:
            self._add_split(message, key, chunk, text)
            return
        text, reset = chunk.track.add(text)
        if reset:
            self._draft.reset(message, chunk, "mismatch")
        if text:
            self._draft.add_text(message, chunk, text)

    def _add_split(self, message: MessageState, key: str, chunk: ChunkState, text: str) -> None:
        """Add a text that does not go out as it comes in."""
        if chunk.track.mode == "snapshot":  # increments need not be kept twice
            text, reset = chunk.track.add(text)
            if reset:
                chunk.filter = self.new_filter()
                if chunk.retake is not None:
                    chunk.retake.stitcher.restart()
                else:
                    self.void(message, chunk, "mismatch")
        if chunk.filter is not None and text:
            text = chunk.filter.feed(text)
        self._draft.change(chunk)  # what is held back has to be written down
        self._pass_on(message, key, chunk, text)

    def _show_rest(self, message: MessageState, key: str) -> None:
        """The chunk ends: what was held back of it is judged, and goes out."""
        chunk = message.open_chunks[key]
        if chunk.filter is not None:
            rest, chunk.filter = chunk.filter.finish(), None
            self._pass_on(message, key, chunk, rest)
        if chunk.retake is not None:
            self._settle(message, key, chunk, chunk.retake.stitcher.finish())

    def _pass_on(self, message: MessageState, key: str, chunk: ChunkState, text: str) -> None:
        if text and chunk.retake is not None:
            self._settle(message, key, chunk, chunk.retake.stitcher.add(text))
        else:
            self._show(message, chunk, text)

    # -- chunks of a call that is made again -----------------------------------------------------

    def _settle(self, message: MessageState, key: str, chunk: ChunkState, delta: Delta) -> None:
        """Do what a stitcher said; nothing while it holds the text."""
        if chunk.retake is None or not chunk.retake.stitcher.settled:
            return
        call_id, chunk.retake = chunk.retake.tool_call_id, None
        if delta.reset and chunk.status == "open":
            self.void(message, chunk)
        elif delta.reset:
            chunk = self._begin_instead(message, key, chunk, call_id)
        self._show(message, chunk, delta.text)

    def _begin_instead(
        self, message: MessageState, key: str, old: ChunkState, call_id: str | None
    ) -> ChunkState:
        """Void a chunk that has ended and is not the same again: another takes its place."""
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
        """Take back what readers have of a chunk that will not go on, and the call that it was."""
        if chunk.text:
            self.void(message, chunk)
        if chunk.kind == "tool_call" and chunk.tool_call_id is not None:
            message.tool_calls.pop(chunk.tool_call_id, None)
            message.cards.pop(chunk.tool_call_id, None)

    def void(
        self, message: MessageState, chunk: ChunkState, reason: ResetReason = "restarted"
    ) -> None:
        """All that readers have of a chunk is void."""
        self._draft.reset(message, chunk, reason)
        if chunk.shown is not None:
            chunk.shown = TextTrack("append", "emit")
        else:
            chunk.track = TextTrack(chunk.track.mode, chunk.track.on_mismatch)

    def note(self, chunk: ChunkState) -> None:
        """Have a chunk written down."""
        self._draft.change(chunk)

    def hide(self, start: ChunkStart) -> ChunkStart:
        """Give what readers may know of a part that begins: its info is text of the reply, too."""
        text_filter = None if start.section is None else self.new_filter()
        if start.section is None or text_filter is None:
            return start
        info = text_filter.feed(start.section.info) + text_filter.finish()
        return start._replace(section=start.section._replace(info=info))

    def new_filter(self) -> StreamFilter | None:
        """Make a filter that has seen nothing; None: there are none."""
        make = self._pipeline.stream_filter
        return None if make is None else make()

    def _show(self, message: MessageState, chunk: ChunkState, text: str) -> None:
        if not text:
            return
        if chunk.shown is not None:
            chunk.shown.add(text)
        self._draft.add_text(message, chunk, text)


def _forget_oldest(closed: list[tuple[str, ChunkState]]) -> None:
    """Bound *closed*; what is forgotten stays with readers."""
    length = sum(len(chunk.text) for _, chunk in closed)
    while len(closed) > _KEPT_CHUNKS or length > _KEPT_LENGTH:
        _, oldest = closed.pop(0)
        length -= len(oldest.text)
