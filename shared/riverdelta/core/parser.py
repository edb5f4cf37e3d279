"""
Connect text, JSON and processors: new text of a chunk goes in, patches and card parts come out.

`ChunkParser` parses one chunk whose text the fold tracks; `complete_card` takes the result of a tool.
`riverdelta.streaming_parser` parses many chunks and tracks their text itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from riverdelta.core.json_stream import JsonStream, JsonStreamError, Patch
from riverdelta.core.processors.base import (
    Card,
    ChunkText,
    Completes,
    Processor,
    ProcessorRegistry,
    ToolResult,
)


class ProcessorFailure(NamedTuple):
    """A processor raised *error*. It is disabled for the chunk; everything else goes on."""

    processor: str
    error: Exception


class Parsed(NamedTuple):
    """
    What a piece of a chunk gave.

    Attributes:
        patches: Changes of the JSON value.
        output: The new part of the card.
        failure: The processor's exception; at most once per chunk.
        json_error: The text stopped being JSON (or was cut off: `ChunkParser.add` with *done*); at most
            once between resets.
    """

    patches: list[Patch]
    output: Card | None = None
    failure: ProcessorFailure | None = None
    json_error: JsonStreamError | None = None


class ChunkParser:
    """
    Parses one chunk. Not thread-safe.

    To continue a chunk after a crash, make a new parser, `add` the stored text once and ignore the result:
    from then on it returns what the old one would have returned.

    Args:
        registry: Makes the processor.
        chunk_id, tool_name, tool_call_id: Of the chunk.
        processor_type: The processor that the chunk asked for; None: the tool's, if there is one.
        read_text: Returns all text of the chunk, for processors that need it.
        is_json: Whether the text should be JSON; otherwise there are no patches.
        disabled: The processor has failed before.
    """

    __slots__ = (
        "_asked",
        "_chunk_id",
        "_is_json",
        "_json",
        "_json_open",
        "_length",
        "_processor",
        "_processor_type",
        "_read_text",
        "_registry",
        "_tool_call_id",
        "_tool_name",
        "_type",
        "processor_type",
    )

    def __init__(
        self,
        registry: ProcessorRegistry,
        chunk_id: str,
        *,
        read_text: Callable[[], str],
        processor_type: str | None = None,
        tool_name: str | None = None,
        tool_call_id: str | None = None,
        is_json: bool = True,
        disabled: bool = False,
    ) -> None:
        self._registry = registry
        self._chunk_id = chunk_id
        self._tool_name = tool_name
        self._tool_call_id = tool_call_id
        self._read_text = read_text
        self._is_json = is_json
        self._asked = processor_type is not None
        self._type = None if disabled else registry.type_for(processor_type, tool_name)
        self.processor_type: str | None = None
        """Type of the active processor; None: there is none, it refused the chunk, or it failed."""
        self._restart()

    def _restart(self) -> None:
        self.processor_type = self._type
        self._json = JsonStream()
        self._json_open = self._is_json
        self._length = 0
        """Code points of the text that were parsed: the chunk's own text may be ahead of them."""
        self._processor: Processor | None = None

    @property
    def value(self) -> Any:
        """The JSON value so far; a live object."""
        return self._json.value

    def add(self, delta: str, *, reset: bool = False, done: bool = False) -> Parsed:
        """
        Parse new text.

        Args:
            delta: New text, as the tracker returned it; "" changes nothing.
            reset: All earlier text is void: JSON and processor start over with *delta*.
            done: The text is complete.
        """
        if reset:
            self._restart()
        self._length += len(delta)
        patches, json_error = self._read(delta, done=done)
        if self.processor_type is None or not (delta or done):
            return Parsed(patches, None, None, json_error)
        output, failure = self._process(delta, patches, done=done)
        return Parsed(patches, output, failure, json_error)

    def _read(self, delta: str, *, done: bool) -> tuple[list[Patch], JsonStreamError | None]:
        if not self._json_open:
            return [], None
        patches: list[Patch] = []
        try:
            patches = self._json.feed(delta)
            if done:
                self._json_open = False
                patches += self._json.close()
        except JsonStreamError as error:
            self._json_open = False
            return patches + error.patches, error
        return patches, None

    def _process(
        self, delta: str, patches: list[Patch], *, done: bool
    ) -> tuple[Card | None, ProcessorFailure | None]:
        value = self._json.value
        processor_type = self.processor_type or ""
        try:
            processor = self._processor
            if processor is None:
                processor = self._first(value, patches)
                if processor is None:
                    return None, None
            chunk = ChunkText(
                self._chunk_id,
                self._tool_name,
                self._tool_call_id,
                delta,
                value,
                patches,
                self._json.complete,
                done,
                self._text_so_far,
            )
            return processor.process(chunk), None
        except Exception as error:  # noqa: BLE001  # whatever a processor does, the text goes on
            self._processor = self.processor_type = self._type = None
            return None, ProcessorFailure(processor_type, error)

    def _text_so_far(self) -> str:
        return self._read_text()[: self._length]

    def _first(self, value: Any, patches: list[Patch]) -> Processor | None:
        """Make the processor, once it can decide whether it wants the chunk."""
        if self._json_open and not patches:
            return None  # white space, or the start of a number: no value yet
        processor = self._registry.for_chunk(self.processor_type, self._tool_name)
        tool_name = None if self._asked else self._tool_name
        if processor is None or not processor.can_process(tool_name, value):
            self.processor_type = None
            return None
        self._processor = processor
        return processor


class Completed(NamedTuple):
    """The card that a tool's result completed. *processor*: type of the one that was called, if any."""

    processor: str | None
    output: Card | None = None
    failure: ProcessorFailure | None = None


def complete_card(
    registry: ProcessorRegistry, result: ToolResult, processor_type: str | None = None
) -> Completed:
    """
    Let the processor of a tool call finish its card.

    Args:
        registry: Makes the processor.
        result: The tool's result.
        processor_type: The processor that the call asked for; None: the tool's.
    """
    found = registry.type_for(processor_type, result.tool_name)
    if found is None:
        return Completed(None)
    try:
        processor: object = registry.for_chunk(found, result.tool_name)
        output = processor.complete(result) if isinstance(processor, Completes) else None
    except Exception as error:  # noqa: BLE001  # as in ChunkParser
        return Completed(found, None, ProcessorFailure(found, error))
    return Completed(found, output)
