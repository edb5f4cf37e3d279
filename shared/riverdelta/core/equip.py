"""What the fold needs of filters, parsers and cards."""

from __future__ import annotations

from typing import Any

from riverdelta.core.outputs import Output
from riverdelta.core.parser import ChunkParser
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.processors import Card, ProcessorRegistry
from riverdelta.core.state import ChunkState
from riverdelta.core.tracker import TextTrack


def equip(chunk: ChunkState, pipeline: Pipeline) -> None:
    """Give a chunk that begins, or was taken over, its filter and its parser."""
    if chunk.filter is None:
        text = chunk.text
        restart_filter(chunk, pipeline)
        if chunk.shown is not None and text:  # shown before there was a filter: it stays
            chunk.shown.restore(text, len(text), None)
    chunk.parser = _make_parser(chunk, pipeline.processors)


def restart_filter(chunk: ChunkState, pipeline: Pipeline) -> None:
    """Give a chunk a filter that has seen nothing."""
    if pipeline.stream_filter is not None:
        chunk.filter = pipeline.stream_filter()
        chunk.shown = TextTrack("append", "emit")


def _make_parser(chunk: ChunkState, registry: ProcessorRegistry) -> ChunkParser | None:
    """
    Make what parses *chunk*; None where nobody would read it: plain text without a processor.

    A chunk that was taken over has text already: it is parsed once, silently.
    """
    # A tool's processor reads the arguments of its calls; what the tool answers has their name, too.
    unasked = chunk.processor is None and chunk.kind != "tool_call"
    type_ = None if unasked else registry.type_for(chunk.processor, chunk.tool_name)
    if chunk.format != "json" and type_ is None:
        return None
    parser = ChunkParser(
        registry,
        chunk.id,
        read_text=lambda: chunk.text,
        processor_type=chunk.processor,
        tool_name=chunk.tool_name,
        tool_call_id=chunk.tool_call_id,
        is_json=chunk.format == "json",
        disabled=chunk.processor_failed or unasked,
    )
    if chunk.text:
        parser.add(chunk.text)
    return parser


def wire(card: Card) -> dict[str, Any]:
    """Spell a card, or a part of one, as events carry it."""
    return card.wire() if isinstance(card, Output) else card
