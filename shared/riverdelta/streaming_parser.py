"""Track and parse many chunks at once: each piece of text gives its delta and the new part of its card."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from riverdelta.cards import builtin_processors
from riverdelta.core.parser import ChunkParser, ProcessorFailure
from riverdelta.core.processors import Card, Factory, ProcessorRegistry
from riverdelta.core.tracker import ChunkTracker, Mode, OnMismatch


class StreamingParser:
    """
    Tracks and parses many chunks at once. Safe from several threads.

    State is kept per chunk id until `clear_chunk`; ids never mix. The processor of a chunk is chosen when
    its id is first seen.

    Args:
        registry: None: the built-in processors.
        mode: ``"append"``: chunks are increments. ``"snapshot"``: each is all text so far.
        on_mismatch: As for `ChunkTracker`; after a ``"reset"`` JSON and processor start over.

    Raises:
        ValueError: An unknown *mode* or *on_mismatch*; a caller bug.
    """

    def __init__(
        self,
        registry: ProcessorRegistry | None = None,
        mode: Mode = "snapshot",
        on_mismatch: OnMismatch = "emit",
    ) -> None:
        self._registry = builtin_processors() if registry is None else registry
        self._tracker = ChunkTracker(mode, on_mismatch)
        self._parsers: dict[str, ChunkParser] = {}
        self._failures: dict[str, ProcessorFailure] = {}
        self._lock = threading.Lock()

    def process_chunk(
        self,
        chunk_id: str,
        chunk: str,
        processor_type: str | None = None,
        *,
        tool_name: str | None = None,
        tool_call_id: str | None = None,
        done: bool = False,
    ) -> Card | None:
        """Like `process_chunk_with_tracking`, without the delta."""
        output, _ = self.process_chunk_with_tracking(
            chunk_id,
            chunk,
            processor_type,
            tool_name=tool_name,
            tool_call_id=tool_call_id,
            done=done,
        )
        return output

    def process_chunk_with_tracking(
        self,
        chunk_id: str,
        chunk: str,
        processor_type: str | None = None,
        *,
        tool_name: str | None = None,
        tool_call_id: str | None = None,
        done: bool = False,
    ) -> tuple[Card | None, str]:
        """
        Process a chunk, and return the new part of its card and its new text.

        An exception of a processor is not raised: see `get_failure`.

        Args:
            chunk_id: Id of the text; also used as *tool_call_id* where that is not given.
            chunk: An increment or a snapshot, as the mode says.
            processor_type: An unknown one gives no output; None: the one for *tool_name*.
            tool_name: The tool whose arguments these are.
            tool_call_id: Id of the call, used in ids of cards.
            done: The text is complete. A complete JSON value ends a card without it.
        """
        with self._lock:
            parser = self._parsers.get(chunk_id)
            if parser is None:
                parser = self._parsers[chunk_id] = ChunkParser(
                    self._registry,
                    chunk_id,
                    read_text=lambda: self._tracker.get_complete_text(chunk_id) or "",
                    processor_type=processor_type,
                    tool_name=tool_name,
                    tool_call_id=tool_call_id,
                )
            delta, reset = self._tracker.add(chunk_id, chunk)
            if not reset and (parser.processor_type is None or not (delta or done)):
                return None, delta
            parsed = parser.add(delta, reset=reset, done=done)
            if parsed.failure is not None:
                self._failures[chunk_id] = parsed.failure
            return parsed.output, delta

    def get_complete_text(self, chunk_id: str) -> str | None:
        """Return all text of *chunk_id*: None if it was never seen, "" after an empty first chunk."""
        return self._tracker.get_complete_text(chunk_id)

    def get_failure(self, chunk_id: str) -> ProcessorFailure | None:
        """Return the exception that disabled the processor of *chunk_id*; None: there was none."""
        with self._lock:
            return self._failures.get(chunk_id)

    def clear_chunk(self, chunk_id: str) -> None:
        """Forget *chunk_id*; an unknown id is no error."""
        with self._lock:
            self._tracker.clear_chunk(chunk_id)
            self._parsers.pop(chunk_id, None)
            self._failures.pop(chunk_id, None)

    def register_processor(
        self, processor_type: str, factory: Factory, tools: Iterable[str] = ()
    ) -> None:
        """Add a processor, used for chunk ids that are first seen from now on."""
        self._registry.register(processor_type, factory, tools)
