"""Feeds processors as the parser does, and reduces what they give as readers do."""

from collections.abc import Iterable, Sequence
from typing import Any

from riverdelta.cards import builtin_processors
from riverdelta.core.outputs import Output, reduce_output
from riverdelta.core.parser import ChunkParser
from riverdelta.core.processors import Card, ProcessorRegistry

CALL = "call-1"
REGISTRY = builtin_processors()


def chunk_parser(
    text: list[str],
    tool_name: str | None,
    processor_type: str | None = None,
    registry: ProcessorRegistry = REGISTRY,
) -> ChunkParser:
    """A parser of tool arguments; *text* is where the caller keeps what it has fed."""
    return ChunkParser(
        registry,
        "m.0",
        read_text=lambda: "".join(text),
        tool_name=tool_name,
        tool_call_id=CALL,
        processor_type=processor_type,
    )


def outputs_of(
    tool_name: str | None,
    pieces: Iterable[str],
    processor_type: str | None = None,
    registry: ProcessorRegistry = REGISTRY,
) -> list[dict[str, Any]]:
    """Every output of a chunk that arrives in *pieces* and then ends."""
    text: list[str] = []
    parser = chunk_parser(text, tool_name, processor_type, registry)
    given = []
    for piece in pieces:
        text.append(piece)
        given.append(parser.add(piece))
    given.append(parser.add("", done=True))
    assert [parsed.failure for parsed in given if parsed.failure] == []
    return [wire(parsed.output) for parsed in given if parsed.output is not None]


def wire(output: Card) -> dict[str, Any]:
    return output.wire() if isinstance(output, Output) else output


def reduced(outputs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    card: dict[str, Any] | None = None
    for output in outputs:
        card = reduce_output(card, output)
    assert card is not None
    return card


def every(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]
