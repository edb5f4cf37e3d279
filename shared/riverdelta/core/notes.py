"""Filter annotations, also those whose texts arrive in parts. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from riverdelta.core.chunks import Chunks
from riverdelta.core.equip import new_filter
from riverdelta.core.events import Annotated
from riverdelta.core.filters import StreamFilter
from riverdelta.core.pipeline import Pipeline
from riverdelta.core.state import MessageState

_PART: Final = "_chunk"
"""End of the names of fields that have a part of a text: ``title_chunk`` of ``title``."""


class Notes:
    """
    Filters the annotations of messages.

    The parts of a text are one text to its filter, until the whole text comes: a secret that is split over
    two annotations is found, too.

    Args:
        chunks: Filter whole texts.
        pipeline: Has the filter.
    """

    def __init__(self, chunks: Chunks, pipeline: Pipeline) -> None:
        self._chunks = chunks
        self._pipeline = pipeline

    def filtered(self, message: MessageState, name: str, data: Any) -> Annotated:
        """Filter an annotation of *message*: its name, and *data*, any JSON value."""
        shown_name = self._chunks.filtered(name)
        if self._pipeline.stream_filter is None or not isinstance(data, dict):
            return Annotated(name=shown_name, data=self._chunks.filtered_value(data))
        parts = {key for key, value in data.items() if _is_part(key, value)}
        if not parts:
            message.note_filters.pop(name, None)  # the whole text replaces its parts
        shown = {}
        for key, value in data.items():
            is_whole = data.get(key.removesuffix(_PART)) is not None
            shown[self._chunks.filtered(key)] = (
                self._part(message, name, key, value, last=is_whole)
                if key in parts
                else self._chunks.filtered_value(value)
            )
        return Annotated(name=shown_name, data=shown)

    def rest(self, message: MessageState) -> Iterator[Annotated]:
        """End the texts whose whole never came; return what was held back of them."""
        for name, filters in message.note_filters.items():
            rest = {key: text for key, of_key in filters.items() if (text := of_key.finish())}
            if rest:
                yield Annotated(name=self._chunks.filtered(name), data=rest)
        message.note_filters = {}

    def _part(self, message: MessageState, name: str, key: str, text: str, *, last: bool) -> str:
        filters = message.note_filters.setdefault(name, {})
        text_filter = filters.get(key) or new_filter("text", self._pipeline)
        if text_filter is None:
            return text
        filters[key] = text_filter
        shown = text_filter.feed(text)
        return shown + filters.pop(key).finish() if last else shown


def _is_part(key: str, value: Any) -> bool:
    return key.endswith(_PART) and key != _PART and isinstance(value, str)


def dump_note_filters(message: MessageState) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the states of a message's filters of annotations, as JSON."""
    return {
        name: {key: of_key.dump() for key, of_key in filters.items()}
        for name, filters in message.note_filters.items()
    }


def load_note_filters(
    stored: dict[str, dict[str, dict[str, Any]]], pipeline: Pipeline
) -> dict[str, dict[str, StreamFilter]]:
    """Undo `dump_note_filters`; without a filter in the pipeline there is nothing to continue."""
    loaded: dict[str, dict[str, StreamFilter]] = {}
    for name, states in stored.items():
        for key, state in states.items():
            made = new_filter("text", pipeline)
            if made is not None:
                if state:
                    made.load(state)
                loaded.setdefault(name, {})[key] = made
    return loaded
