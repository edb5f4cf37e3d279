"""
Match the chunks of a retried provider call with the chunks that readers already have.

The open step stays open, under its number. Each chunk of the retried call continues the next chunk of the
step that is like it; `core.stitch` decides how its text goes on. `Message.restart` in
`broker.producer.message` documents the effect for readers.
"""

from __future__ import annotations

from riverdelta.core.chunks import Chunks
from riverdelta.core.codecs.pieces import ChunkPiece, ChunkStart
from riverdelta.core.events import Failure
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.state import ChunkState, MessageState, RetriedCall, RetriedChunk
from riverdelta.core.stitch import OnOverlap, Stitcher
from riverdelta.core.tracker import TextTrack

_SUPERSEDED = Failure(code="superseded", detail="the retried call did not repeat this chunk")


class RetriedCalls:
    """
    Applies retried provider calls to the chunks of one chat, for its fold.

    Args:
        chunks: Changes the chunks.
        pipeline: Makes codecs.
    """

    def __init__(self, chunks: Chunks, pipeline: Pipeline) -> None:
        self._chunks = chunks
        self._pipeline = pipeline

    def begin(self, message: MessageState, rule: OnOverlap) -> None:
        """Begin a retried call: nothing more comes of the call before."""
        if rule == "append":
            for piece in message.codec.release():
                self.apply(message, piece)
        self.abandon(message)
        message.skipped += message.codec.skipped
        message.codec = self._pipeline.codec(message.source, message.mode, message.on_mismatch)
        if message.step_open:
            self._set_aside(message, rule)
        elif message.failure is not None and rule != "append":
            # The failed step is over: the retried call is a new step, and its chunks replace these.
            self._withdraw(message, message.closed)
            message.closed = []

    def _set_aside(self, message: MessageState, rule: OnOverlap) -> None:
        """Set the step's chunks aside, for the retried call to continue."""
        left = list(message.open_chunks.items())
        message.open_chunks.clear()
        if rule == "stitch":
            left = sorted([*left, *message.closed], key=_index)
            message.closed = []
        elif rule == "reset":
            gone, message.closed = message.closed, []
            if message.source == "chunks":  # the agent's finished work stays
                said = {key for key, _ in left}
                message.closed = [item for item in gone if item[0] not in said]
                gone = [item for item in gone if item[0] in said]
            self._withdraw(message, gone)
            for _, chunk in left:
                if chunk.text:
                    self._chunks.void(message, chunk)
                chunk.filter = self._chunks.new_filter(chunk.format)
                self._chunks.mark_changed(chunk)
        message.retried_call = RetriedCall(rule, unmatched=left)

    def apply(self, message: MessageState, piece: ChunkPiece) -> None:
        """Apply *piece*; a chunk that begins may continue one that readers have."""
        if type(piece) is ChunkStart:
            piece = self._chunks.filtered_start(piece)
            if self._resume(message, piece):
                return
        self._chunks.apply(message, piece)

    def _resume(self, message: MessageState, start: ChunkStart) -> bool:
        retry = message.retried_call
        if retry is None:
            return False
        by_key = message.source == "chunks"  # the producer chose the keys: equal key, same chunk
        for at, (key, chunk) in enumerate(retry.unmatched):
            if _is_like(chunk, start, message) and (key == start.key or not by_key):
                del retry.unmatched[at]
                message.open_chunks[start.key] = chunk
                self._continue(message, chunk, start, retry.rule)
                return True
        return False

    def _continue(
        self, message: MessageState, chunk: ChunkState, start: ChunkStart, rule: OnOverlap
    ) -> None:
        _remember_call(message, chunk, start)
        self._chunks.mark_changed(chunk)
        if rule == "append" and chunk.track.mode == "append":
            return
        delivered = chunk.text
        chunk.shown = TextTrack("append", "emit")
        chunk.shown.restore(delivered, len(delivered), None)
        chunk.track = TextTrack(chunk.track.mode, chunk.track.on_mismatch)
        if rule == "append":
            return  # the text continues, and so does its filter
        chunk.filter = self._chunks.new_filter(chunk.format)
        ended = chunk.status != "open"
        if delivered or ended:
            chunk.retried = RetriedChunk(Stitcher(delivered, ended=ended), start.tool_call_id)

    def abandon(self, message: MessageState) -> None:
        """End the retried call early: readers keep what they have, and held-back text is dropped."""
        retry, message.retried_call = message.retried_call, None
        for key, chunk in list(message.open_chunks.items()):
            if chunk.retried is not None:
                chunk.retried = None
                chunk.filter = self._chunks.new_filter(chunk.format)
                self._chunks.mark_changed(chunk)
            if chunk.status != "open":
                message.closed.append((key, message.open_chunks.pop(key)))
        for key, chunk in [] if retry is None else retry.unmatched:
            if chunk.status == "open":
                message.open_chunks[chunk.id if key in message.open_chunks else key] = chunk
            else:
                message.closed.append((key, chunk))
        message.closed.sort(key=_index)

    def finish(self, message: MessageState) -> None:
        """End the step, and void the chunks that its last call did not repeat."""
        retry = message.retried_call
        if retry is None or not retry.begun or retry.rule == "append":
            self.abandon(message)
            return
        message.retried_call = None
        left = retry.unmatched
        if message.source == "chunks":  # keep finished work that was not repeated
            said = {*message.open_chunks, *(key for key, _ in message.closed)}
            left = [(key, chunk) for key, chunk in left if chunk.status == "open" or key in said]
        self._withdraw(message, left)
        for _, chunk in left:
            if chunk.status == "open":
                self._chunks.fail(message, chunk, _SUPERSEDED)

    def _withdraw(self, message: MessageState, chunks: list[tuple[str, ChunkState]]) -> None:
        for _, chunk in chunks:
            self._chunks.withdraw(message, chunk)


def _index(item: tuple[str, ChunkState]) -> int:
    return item[1].index


def _is_like(chunk: ChunkState, start: ChunkStart, message: MessageState) -> bool:
    """Whether readers would see no difference between both, except for the id of a call."""
    return (
        (chunk.kind, chunk.format, chunk.section) == (start.kind, start.format, start.section)
        and (chunk.tool_name, chunk.processor) == (start.tool_name, start.processor)
        and chunk.track.mode == (start.mode or message.mode)
    )


def _remember_call(message: MessageState, chunk: ChunkState, start: ChunkStart) -> None:
    """Map the new id of a repeated tool call to its old one, so that its result finds the chunk."""
    call_id = start.tool_call_id
    if start.kind == "tool_call" and call_id and chunk.tool_call_id not in (None, call_id):
        message.call_aliases[call_id] = chunk.tool_call_id
