"""
A provider call that is made again: which chunk of it says again which chunk that readers have.

The step that was under way stays open, under its number. Each chunk of the new attempt takes up the next
chunk of the step that is like it; `core.stitch` decides how its text goes on. `Message.restart` in
`broker.producer.message` says what comes of that for readers.
"""

from __future__ import annotations

from riverdelta.core.chunks import Chunks
from riverdelta.core.codecs.pieces import ChunkPiece, ChunkStart
from riverdelta.core.events import Failure
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.state import ChunkState, MessageState, Retake, Retry
from riverdelta.core.stitch import OnOverlap, Stitcher
from riverdelta.core.tracker import TextTrack

_SUPERSEDED = Failure(code="superseded", detail="the call that was made again did not say this")


class Restarts:
    """
    Moves the chunks of one chat over the restarts of their calls, for its fold.

    Args:
        chunks: Does what is to be done to a chunk.
        pipeline: Makes codecs.
    """

    def __init__(self, chunks: Chunks, pipeline: Pipeline) -> None:
        self._chunks = chunks
        self._pipeline = pipeline

    def begin(self, message: MessageState, rule: OnOverlap) -> None:
        """The producer makes its call anew: nothing more comes of the one before."""
        if rule == "append":
            for piece in message.codec.release():
                self.take(message, piece)
        self.give_up(message)
        message.skipped += message.codec.skipped
        message.codec = self._pipeline.codec(message.source, message.mode, message.on_mismatch)
        if message.step_open:
            self._leave(message, rule)
        elif message.failure is not None and rule != "append":
            # These chunks have ended: the call that is made now is a step of its own.
            self._withdraw(message, message.closed)
            message.closed = []

    def _leave(self, message: MessageState, rule: OnOverlap) -> None:
        """Set the step's chunks aside, for the new attempt to take up."""
        left = list(message.open_chunks.items())
        message.open_chunks.clear()
        if rule == "stitch":
            left = sorted([*left, *message.closed], key=_index)
            message.closed = []
        elif rule == "reset":
            gone, message.closed = message.closed, []
            if message.source == "chunks":  # what was done stays
                said = {key for key, _ in left}
                message.closed = [item for item in gone if item[0] not in said]
                gone = [item for item in gone if item[0] in said]
            self._withdraw(message, gone)
            for _, chunk in left:
                if chunk.text:
                    self._chunks.void(message, chunk)
                chunk.filter = self._chunks.new_filter()
                self._chunks.note(chunk)
        message.retry = Retry(rule, left=left)

    def take(self, message: MessageState, piece: ChunkPiece) -> None:
        """Do what *piece* says: a chunk that begins may go on with one that readers have."""
        if type(piece) is ChunkStart:
            piece = self._chunks.hide(piece)
            if self._resume(message, piece):
                return
        self._chunks.take(message, piece)

    def _resume(self, message: MessageState, start: ChunkStart) -> bool:
        retry = message.retry
        if retry is None:
            return False
        by_key = message.source == "chunks"  # its names are the producer's own
        for at, (key, chunk) in enumerate(retry.left):
            if _is_like(chunk, start, message) and (key == start.key or not by_key):
                del retry.left[at]
                message.open_chunks[start.key] = chunk
                self._take_up(message, chunk, start, retry.rule)
                return True
        return False

    def _take_up(
        self, message: MessageState, chunk: ChunkState, start: ChunkStart, rule: OnOverlap
    ) -> None:
        _remember_call(message, chunk, start)
        self._chunks.note(chunk)
        if rule == "append" and chunk.track.mode == "append":
            return
        delivered = chunk.text
        chunk.shown = TextTrack("append", "emit")
        chunk.shown.restore(delivered, len(delivered), None)
        chunk.track = TextTrack(chunk.track.mode, chunk.track.on_mismatch)
        if rule == "append":
            return  # the text goes on: so does its filter
        chunk.filter = self._chunks.new_filter()
        ended = chunk.status != "open"
        if delivered or ended:
            chunk.retake = Retake(Stitcher(delivered, ended=ended), start.tool_call_id)

    def give_up(self, message: MessageState) -> None:
        """No more comes of the attempt: readers keep what they have, and what is held is dropped."""
        retry, message.retry = message.retry, None
        for key, chunk in list(message.open_chunks.items()):
            if chunk.retake is not None:
                chunk.retake = None
                chunk.filter = self._chunks.new_filter()
                self._chunks.note(chunk)
            if chunk.status != "open":
                message.closed.append((key, message.open_chunks.pop(key)))
        for key, chunk in [] if retry is None else retry.left:
            if chunk.status == "open":
                message.open_chunks[chunk.id if key in message.open_chunks else key] = chunk
            else:
                message.closed.append((key, chunk))
        message.closed.sort(key=_index)

    def finish(self, message: MessageState) -> None:
        """The step ends: what its last attempt did not say is void."""
        retry = message.retry
        if retry is None or not retry.begun or retry.rule == "append":
            self.give_up(message)
            return
        message.retry = None
        left = retry.left
        if message.source == "chunks":  # what was done stays, but for parts of what was said again
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
    """Whether readers would be told the same of both, but for the id of a call."""
    return (
        (chunk.kind, chunk.format, chunk.section) == (start.kind, start.format, start.section)
        and (chunk.tool_name, chunk.processor) == (start.tool_name, start.processor)
        and chunk.track.mode == (start.mode or message.mode)
    )


def _remember_call(message: MessageState, chunk: ChunkState, start: ChunkStart) -> None:
    """Have the result of a call find its chunk, though the provider gave the call another id."""
    call_id = start.tool_call_id
    if start.kind == "tool_call" and call_id and chunk.tool_call_id not in (None, call_id):
        message.call_aliases[call_id] = chunk.tool_call_id
