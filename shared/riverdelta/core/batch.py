"""
Collect what one batch of entries will write.

Events get their numbers here. Neighbouring deltas of one chunk are merged into one event, and the merged
text is parsed for patches and cards.
"""

from __future__ import annotations

from typing import Any, Final

from riverdelta.core.changes import CardEnd, Changes, ChunkChange
from riverdelta.core.equip import encode_card
from riverdelta.core.events import (
    ChunkDelta,
    ChunkOutput,
    ChunkPatch,
    ChunkReset,
    EventType,
    ProcessorFailed,
    ResetReason,
    encode_event,
)
from riverdelta.core.state import CardState, ChatState, ChunkState, MessageState

_PARSED_AT_ONCE: Final = 16 * 1024
"""
Code points of a text that are parsed in one step: so one event has some thousand patches at most, and
neither making it nor reading it holds an interpreter for long.
"""


class Batch:
    """
    Collects the changes of one batch at a time.

    Args:
        state: The chat whose log the events go on; its ``seq`` moves with them.
    """

    def __init__(self, state: ChatState) -> None:
        self._state = state
        self.changes = Changes(first_seq=state.seq + 1)
        self._now_ms = 0
        self._message_id = ""
        self._chunk: ChunkState | None = None
        self._offset = 0
        self._texts: list[str] = []
        self._broken: dict[str, str] = {}

    def begin(self, now_ms: int) -> None:
        """Start a batch; *now_ms* becomes the ``ts`` of its events."""
        self.changes = Changes(first_seq=self._state.seq + 1)
        self._now_ms = now_ms
        self._broken = {}

    def end(self) -> Changes:
        """Return the changes of the batch."""
        self._flush()
        return self.changes

    def add_text(self, message: MessageState, chunk: ChunkState, text: str) -> None:
        """Add new text of a chunk; `ChunkState.text` includes it already."""
        if chunk is not self._chunk:
            self._flush()
            if message.ttft_ms is None:
                message.ttft_ms = message.last_at_ms
            self._message_id, self._chunk = message.id, chunk
            self._offset = len(chunk.text) - len(text)
        self._texts.append(text)

    def reset(self, message: MessageState, chunk: ChunkState, reason: ResetReason) -> None:
        """Void all text of *chunk* so far, and its card."""
        self._flush()
        change = self.change(chunk)
        change.reset = True
        change.texts.clear()
        change.outputs.clear()
        of_chunk = (message.id, chunk.index)
        ends = self.changes.card_ends
        ends[:] = [end for end in ends if (end.message_id, end.chunk_index) != of_chunk]
        chunk.card = None
        if chunk.parser is not None:
            chunk.parser.add("", reset=True)
        self.emit("chunk.reset", message.id, chunk.id, ChunkReset(reason=reason))

    def finish_text(self, message_id: str, chunk: ChunkState) -> None:
        """End the text of *chunk*, so that its parser returns the rest."""
        self._flush()
        self._parse(message_id, chunk, "", done=True)

    def add_output(
        self, message_id: str, chunk: ChunkState, processor: str, output: dict[str, Any]
    ) -> None:
        """Add to the card of an open chunk; ignored where another processor began the card."""
        self._flush()
        if chunk.card is None:
            chunk.card = CardState(processor, output)
        if chunk.card.processor != processor:
            return
        chunk.card.latest = output
        self.change(chunk).outputs.append(output)
        event = ChunkOutput(processor=processor, output=output)
        self.emit("chunk.output", message_id, chunk.id, event)

    def end_card(self, end: CardEnd) -> None:
        """Complete the card of a chunk that has ended."""
        self.changes.card_ends.append(end)
        chunk_id = f"{end.message_id}.{end.chunk_index}"
        event = ChunkOutput(processor=end.processor, output=end.output)
        self.emit("chunk.output", end.message_id, chunk_id, event)

    def change(self, chunk: ChunkState) -> ChunkChange:
        """Mark *chunk* as changed, and return its changes in this batch so far."""
        change = self.changes.chunks.get(chunk.id)
        if change is None:
            change = self.changes.chunks[chunk.id] = ChunkChange(chunk)
        return change

    def processor_failed(self, message_id: str, chunk_id: str, processor: str, code: str) -> None:
        """Emit that a processor failed for a chunk."""
        if code == "exception":
            self._broken.setdefault(message_id, f"processor {processor} raised at chunk {chunk_id}")
        event = ProcessorFailed(processor=processor, code=code)
        self.emit("processor.failed", message_id, chunk_id, event)

    def pop_broken(self) -> dict[str, str]:
        """Parse the merged text, then return which processors raised since the last call, by message."""
        self._flush()
        broken, self._broken = self._broken, {}
        return broken

    def emit(
        self,
        type_: EventType,
        message_id: str,
        chunk_id: str | None,
        data: Any,  # one of the TypedDicts of events.py
    ) -> None:
        """Append the next event to the log, behind the delta that is being merged."""
        if self._chunk is not None:
            self._flush()
        state = self._state
        state.seq += 1
        event = encode_event(
            seq=state.seq,
            epoch=state.epoch,
            chat=state.chat,
            message=message_id,
            chunk=chunk_id,
            type_=type_,
            ts_ms=self._now_ms,
            data=data,
        )
        state.log.add(state.seq, len(event))
        self.changes.events.append(event)

    def _flush(self) -> None:
        if self._chunk is None:
            return
        chunk, texts = self._chunk, self._texts
        self._chunk, self._texts = None, []
        text = "".join(texts)
        self.change(chunk).texts.append(text)
        delta = ChunkDelta(offset=self._offset, text=text)
        self.emit("chunk.delta", self._message_id, chunk.id, delta)
        self._parse(self._message_id, chunk, text)

    def _parse(self, message_id: str, chunk: ChunkState, text: str, *, done: bool = False) -> None:
        """Parse *text* and emit its patches and card parts."""
        last = max(0, len(text) - 1) // _PARSED_AT_ONCE * _PARSED_AT_ONCE
        for at in range(0, last, _PARSED_AT_ONCE):
            self._parse_slice(message_id, chunk, text[at : at + _PARSED_AT_ONCE])
        self._parse_slice(message_id, chunk, text[last:], done=done)

    def _parse_slice(
        self, message_id: str, chunk: ChunkState, text: str, *, done: bool = False
    ) -> None:
        if chunk.parser is None:
            return
        parsed = chunk.parser.add(text, done=done)
        if parsed.patches:
            patches = ChunkPatch(patches=[(p.path, p.op, p.value) for p in parsed.patches])
            self.emit("chunk.patch", message_id, chunk.id, patches)
        if parsed.output is not None:
            processor = chunk.parser.processor_type or ""
            self.add_output(message_id, chunk, processor, encode_card(parsed.output))
        if parsed.failure is not None:
            chunk.processor_failed = True
            self.change(chunk)
            self.processor_failed(message_id, chunk.id, parsed.failure.processor, "exception")
        if parsed.json_error is not None:
            self.processor_failed(message_id, chunk.id, "json", "invalid_json")
