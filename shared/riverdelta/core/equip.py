"""Create the filter and the parser of a chunk."""

from __future__ import annotations

from typing import Any

from riverdelta.core.codecs.pieces import Format
from riverdelta.core.filters import StreamFilter, json_filter
from riverdelta.core.outputs import Output
from riverdelta.core.parser import ChunkParser
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.processors import Card, ProcessorRegistry
from riverdelta.core.state import ChunkState
from riverdelta.core.tracker import TextTrack


def equip(chunk: ChunkState, pipeline: Pipeline) -> None:
    """Give a chunk its filter and parser, when it begins and when a new owner loads it."""
    if chunk.filter is None:
        text = chunk.text
        restart_filter(chunk, pipeline)
        if chunk.shown is not None and text:  # sent before there was a filter: readers keep it
            chunk.shown.restore(text, len(text), None)
    chunk.parser = _make_parser(chunk, pipeline.processors)


def restart_filter(chunk: ChunkState, pipeline: Pipeline) -> None:
    """Give a chunk a filter in its first state."""
    made = new_filter(chunk.format, pipeline)
    if made is not None:
        chunk.filter = made
        chunk.shown = TextTrack("append", "emit")


def new_filter(format_: Format, pipeline: Pipeline) -> StreamFilter | None:
    """Make a filter in its first state, for text of that format; None: text is not filtered."""
    if pipeline.stream_filter is None:
        return None
    made = pipeline.stream_filter()
    return json_filter(made) if format_ == "json" else made


def _make_parser(chunk: ChunkState, registry: ProcessorRegistry) -> ChunkParser | None:
    """
    Make the parser of *chunk*; None for plain text without a processor, which nothing would read.

    A chunk that was loaded from Redis has text already: it is parsed once, without output.
    """
    # A tool's processor reads the arguments of calls only; results carry the same tool name.
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


def encode_card(card: Card) -> dict[str, Any]:
    """Encode a card, or a part of one, as events carry it."""
    return card.wire() if isinstance(card, Output) else card
