"""
The interface of processors, their input, and the registry that makes one for each chunk.

A processor turns a chunk, usually the arguments of a tool call, into a card (`outputs`) while the
chunk is still arriving. Rules, so that a card survives the death of its worker:

- The state depends only on the text of the chunk, not on how it was split: after a crash a new
  processor is fed the whole text once, its output is discarded, and it continues from there.
- It reads only what is new (`ChunkText.delta`, `ChunkText.patches`), and all of the text or value once,
  at the end.
- For a shape that it does not know, it returns None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from riverdelta.core.json_stream import Patch
from riverdelta.core.outputs import Output

Card: TypeAlias = Output | dict[str, Any]
"""A model, or plain JSON that follows the rules of `outputs`."""


@dataclass(slots=True)
class ChunkText:
    """
    A chunk as its processor sees it on each update. Valid during the call only.

    Attributes:
        chunk_id, tool_name, tool_call_id: As in the event chunk.started.
        delta: The new text; may be empty when *done*.
        value: The JSON value of the text so far, a live object: keep no reference to a string in it, or
            the next update must copy it. None: nothing yet, or not JSON.
        patches: New changes of *value*, in order.
        complete: *value* is whole: its last patch is in *patches* now, or was before.
        done: The text has ended. If *complete* is false, a JSON text was cut off or is not JSON.
        read_text: Returns all text so far. Expensive for a long text; most processors never need it.
    """

    chunk_id: str
    tool_name: str | None
    tool_call_id: str | None
    delta: str
    value: Any
    patches: Sequence[Patch]
    complete: bool
    done: bool
    read_text: Callable[[], str]

    @property
    def complete_text(self) -> str:
        """All text so far, *delta* included."""
        return self.read_text()

    @property
    def card_id(self) -> str:
        """Id of the card that is made of this chunk."""
        return self.tool_call_id or self.chunk_id


@dataclass(slots=True)
class ToolResult:
    """
    The result of a tool.

    Attributes:
        tool_name, tool_call_id: Of the call.
        content: A string, or any JSON value.
        card: The reduced outputs of the call's chunk, if there are any.
    """

    tool_name: str | None
    tool_call_id: str
    content: Any
    card: Mapping[str, Any] | None = None


class Processor(Protocol):
    """Makes the card of one chunk; a new processor is made for each chunk."""

    def can_process(self, tool_name: str | None, value: Any) -> bool:
        """
        Return whether to process this chunk; called once, before the first `process`.

        Args:
            tool_name: The called tool; None where the processor was requested by type.
            value: The chunk's JSON value so far; None: null, or the text is not JSON.
        """
        ...

    def process(self, chunk: ChunkText) -> Card | None:
        """Process an update, and return the new part of the card, if any."""
        ...


@runtime_checkable
class Completes(Protocol):
    """A processor that also finishes the card with the tool's result."""

    def complete(self, result: ToolResult) -> Card | None:
        """
        Return the finished card; None: the result changes nothing.

        Called on a new processor: the answer must depend on *result* alone.
        """
        ...


Factory: TypeAlias = Callable[[], Processor]


class ProcessorRegistry:
    """Maps processor types to factories, and tools to processor types."""

    def __init__(self) -> None:
        self._factories: dict[str, Factory] = {}
        self._types: dict[str, str] = {}

    def register(self, processor_type: str, factory: Factory, tools: Iterable[str] = ()) -> None:
        """
        Add a processor. It replaces an earlier one of the same type, and takes over the given tools.

        Args:
            processor_type: Its name in events, and in raw chunks that request it.
            factory: Makes a new processor for one chunk.
            tools: Tools whose arguments it gets without a request.
        """
        self._factories[processor_type] = factory
        self._types |= dict.fromkeys(tools, processor_type)

    def type_for(self, processor_type: str | None, tool_name: str | None) -> str | None:
        """Return the type for a chunk: the requested one, else that of the tool; None: there is none."""
        if processor_type is not None:
            return processor_type if processor_type in self._factories else None
        return None if tool_name is None else self._types.get(tool_name)

    def for_chunk(self, processor_type: str | None, tool_name: str | None) -> Processor | None:
        """Make the processor of a chunk; None: there is none, or its type is unknown."""
        found = self.type_for(processor_type, tool_name)
        return None if found is None else self._factories[found]()


class ObjectProcessor:
    """
    Base of processors for tool arguments that are a JSON object.

    Args:
        tools: Names of the tools.
    """

    def __init__(self, tools: Iterable[str] = ()) -> None:
        self.tools = frozenset(tools)

    def can_process(self, tool_name: str | None, value: Any) -> bool:
        """Accept objects; where a tool is named, only of the known tools."""
        return isinstance(value, dict) and (tool_name is None or tool_name in self.tools)


def string_at(value: Any, path: Iterable[str | int]) -> str:
    """Return the string at *path* in *value*; "" where there is none. Never raises."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return ""
    return value if isinstance(value, str) else ""
