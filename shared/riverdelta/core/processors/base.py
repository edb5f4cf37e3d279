"""
What a processor is, what it sees, and the registry that makes one for each chunk.

A processor turns a chunk, most often the arguments of a tool call, into a card (`outputs`) while the
chunk is still arriving. Rules for one that survives the death of its worker:

- Its state is a function of what it has seen of the chunk, however that was cut: after a crash a fresh
  one is fed the whole text once, its output is thrown away, and it goes on from there.
- It reads what is new (`ChunkText.delta`, `ChunkText.patches`), never all of the text or value again,
  except once, at the end.
- A shape that it does not know gives None.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias, runtime_checkable

from riverdelta.core.json_stream import Patch
from riverdelta.core.outputs import Output

Card: TypeAlias = Output | dict[str, Any]
"""What a processor returns: a model, or plain JSON that follows the rules of `outputs`."""


@dataclass(slots=True)
class ChunkText:
    """
    A chunk as a processor sees it, each time that something is new. Valid during the call only.

    Attributes:
        chunk_id, tool_name, tool_call_id: As in the event chunk.started.
        delta: The new text; may be empty when *done*.
        value: What is certain of the JSON value that the text spells, alive: keep no reference to a
            string in it, the next piece would have to copy it. None: nothing yet, or no JSON.
        patches: What is new of *value*, in order.
        complete: *value* is whole: its last patch is in *patches* now, or was before.
        done: Nothing more comes. Without *complete*, a JSON text was cut off, or is none.
        read_text: Reads all text so far; a long text is not free, most processors never ask.
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
        """The id of the card that is made of this chunk."""
        return self.tool_call_id or self.chunk_id


@dataclass(slots=True)
class ToolResult:
    """
    What a tool answered.

    Attributes:
        tool_name, tool_call_id: Of the call.
        content: A string, or any JSON value.
        card: The reduced outputs of the call's chunk, if it has any.
    """

    tool_name: str | None
    tool_call_id: str
    content: Any
    card: Mapping[str, Any] | None = None


class Processor(Protocol):
    """Makes the card of one chunk; a new one is made for each."""

    def can_process(self, tool_name: str | None, value: Any) -> bool:
        """
        Say whether this is a chunk for this processor; asked once, before the first `process`.

        Args:
            tool_name: The tool that is called; None where the processor was asked for by type, not
                found by tool.
            value: The chunk's JSON value as far as it is certain; None: null, or the text is no JSON.
        """
        ...

    def process(self, chunk: ChunkText) -> Card | None:
        """Take what is new, and return what readers should get of it, if anything."""
        ...


@runtime_checkable
class Completes(Protocol):
    """A processor that also says how a tool's result ends the card."""

    def complete(self, result: ToolResult) -> Card | None:
        """
        Return the finished card; None: the result changes nothing.

        Called on a processor that has seen nothing: the answer depends on *result* alone.
        """
        ...


Factory: TypeAlias = Callable[[], Processor]


class ProcessorRegistry:
    """Knows the processors by type, and which tools' arguments each one gets."""

    def __init__(self) -> None:
        self._factories: dict[str, Factory] = {}
        self._types: dict[str, str] = {}

    def register(self, processor_type: str, factory: Factory, tools: Iterable[str] = ()) -> None:
        """
        Add a processor; one that is already there under *processor_type* or a tool gives way.

        Args:
            processor_type: Its name in events, and in raw chunks that ask for it.
            factory: Makes a fresh one, for one chunk.
            tools: Names of tools whose arguments it gets unasked.
        """
        self._factories[processor_type] = factory
        self._types |= dict.fromkeys(tools, processor_type)

    def type_for(self, processor_type: str | None, tool_name: str | None) -> str | None:
        """Name the processor of a chunk: the one asked for, else the tool's; None: there is none."""
        if processor_type is not None:
            return processor_type if processor_type in self._factories else None
        return None if tool_name is None else self._types.get(tool_name)

    def for_chunk(self, processor_type: str | None, tool_name: str | None) -> Processor | None:
        """Make the processor of a chunk; None: there is none, or its type is unknown."""
        found = self.type_for(processor_type, tool_name)
        return None if found is None else self._factories[found]()


class ObjectProcessor:
    """
    Base of processors that read the arguments of tools: a JSON object.

    Args:
        tools: Names of those tools.
    """

    def __init__(self, tools: Iterable[str] = ()) -> None:
        self.tools = frozenset(tools)

    def can_process(self, tool_name: str | None, value: Any) -> bool:
        """Take objects, of the known tools where one is named."""
        return isinstance(value, dict) and (tool_name is None or tool_name in self.tools)


def string_at(value: Any, path: Iterable[str | int]) -> str:
    """Look up the string at *path* in *value*; "" where there is none. Never raises."""
    for step in path:
        if isinstance(value, dict) and isinstance(step, str):
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int) and step < len(value):
            value = value[step]
        else:
            return ""
    return value if isinstance(value, str) else ""
