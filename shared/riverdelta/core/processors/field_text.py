"""`field_text`: stream one string field of a tool call as text of the reply itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from riverdelta.core.outputs import ResponseText
from riverdelta.core.processors.base import ChunkText
from riverdelta.core.processors.string_field import StringField

FIELDS: Final[Mapping[str, str]] = {
    "done": "final_response",
    "message_user_clarifying_question": "text",
}


class FieldTextProcessor:
    """
    Streams the field that belongs to the tool; for an unknown tool, the first known field with text.

    Args:
        fields: Tool name → field, for your own tools.
    """

    def __init__(self, fields: Mapping[str, str] = FIELDS) -> None:
        self._fields = fields
        self._field: StringField | None = None
        self._finished = False

    def can_process(self, tool_name: str | None, value: Any) -> bool:
        """Accept objects; where a tool is named, only of the known tools."""
        return isinstance(value, dict) and (tool_name is None or tool_name in self._fields)

    def process(self, chunk: ChunkText) -> ResponseText | None:
        """Return the new text of the field; all of it at the end."""
        if self._finished:
            return None
        field = self._field
        if field is None:
            own = self._fields.get(chunk.tool_name or "")
            field = self._field = StringField(self._fields.values() if own is None else (own,))
        new = field.read(chunk.patches)
        if chunk.complete or chunk.done:
            self._finished = True
            if not field.found:
                return None
            return ResponseText(
                id=chunk.card_id,
                message=field.text(chunk.value),
                status="completed" if chunk.complete else "failed",
            )
        if new is None:
            return None
        return ResponseText(
            id=chunk.card_id, message=new.full, message_chunk=new.chunk, status="loading"
        )
