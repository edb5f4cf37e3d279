"""What the fold needs of parsers and cards."""

from __future__ import annotations

from typing import Any

from riverdelta.core.outputs import Output
from riverdelta.core.parser import ChunkParser
from riverdelta.core.processors import Card, ProcessorRegistry
from riverdelta.core.state import ChunkState


def make_parser(chunk: ChunkState, registry: ProcessorRegistry) -> ChunkParser | None:
    """
    Make what parses *chunk*; None where nobody would read it: plain text without a processor.

    A chunk that was taken over has text already: it is parsed once, silently.
    """
    if chunk.format != "json" and registry.type_for(chunk.processor, chunk.tool_name) is None:
        return None
    track = chunk.track
    parser = ChunkParser(
        registry,
        chunk.id,
        read_text=lambda: track.complete,
        processor_type=chunk.processor,
        tool_name=chunk.tool_name,
        tool_call_id=chunk.tool_call_id,
        is_json=chunk.format == "json",
        disabled=chunk.processor_failed,
    )
    if track.complete:
        parser.add(track.complete)
    return parser


def wire(card: Card) -> dict[str, Any]:
    """Spell a card, or a part of one, as events carry it."""
    return card.wire() if isinstance(card, Output) else card
