"""`json`: a card with the JSON value of any chunk, sent as patches."""

from __future__ import annotations

from typing import Any

from riverdelta.core.outputs import JsonOutput
from riverdelta.core.processors.base import ChunkText


class JsonProcessor:
    """Forwards the patches; the finished card has the value, or the part of it that arrived."""

    def __init__(self) -> None:
        self._began = False
        self._finished = False

    def can_process(self, tool_name: str | None, value: Any) -> bool:  # noqa: ARG002  # the protocol's
        """Accept any value of any tool."""
        return True

    def process(self, chunk: ChunkText) -> JsonOutput | None:
        """Return the new patches; the value at the end."""
        if self._finished:
            return None
        self._began = self._began or bool(chunk.patches)
        if chunk.complete or chunk.done:
            self._finished = True
            status = "completed" if chunk.complete else "failed"
            if not self._began:
                return None
            return JsonOutput(id=chunk.card_id, value=chunk.value, status=status)
        if not chunk.patches:
            return None
        return JsonOutput(id=chunk.card_id, patches=list(chunk.patches), status="loading")
