"""Raw chunks of source ``openai-chat``, for replies that no model writes. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

import orjson

MODEL: Final = "scripted"

_WORD: Final = re.compile(r"\s*\S+\s*")
_ARGUMENT_CHARS: Final = 8
"""About one token of JSON."""


class Step:
    """
    One provider call, as a provider would have streamed it. Each method returns raw chunks.

    Args:
        step_id: Unique among the calls of its message.
    """

    def __init__(self, step_id: str) -> None:
        self._id = step_id
        self._calls = 0

    def reasoning(self, text: str) -> Iterator[dict[str, Any]]:
        """Stream reasoning, word by word."""
        return (self._chunk({"reasoning_content": word}) for word in words(text))

    def text(self, text: str) -> Iterator[dict[str, Any]]:
        """Stream text, word by word."""
        return (self._chunk({"content": word}) for word in words(text))

    def call(self, call_id: str, tool_name: str, arguments: Any) -> Iterator[dict[str, Any]]:
        """Stream a tool call, its arguments a few characters at a time."""
        index, self._calls = self._calls, self._calls + 1
        function: dict[str, Any] = {"name": tool_name, "arguments": ""}
        start = {"index": index, "id": call_id, "type": "function", "function": function}
        yield self._chunk({"tool_calls": [start]})
        encoded = orjson.dumps(arguments).decode()
        for at in range(0, len(encoded), _ARGUMENT_CHARS):
            more = {"index": index, "function": {"arguments": encoded[at : at + _ARGUMENT_CHARS]}}
            yield self._chunk({"tool_calls": [more]})

    def end(self) -> Iterator[dict[str, Any]]:
        """End with the finish reason."""
        yield self._chunk({}, "tool_calls" if self._calls else "stop")

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
        return {
            "id": self._id,
            "object": "chat.completion.chunk",
            "model": MODEL,
            "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
        }


def words(text: str) -> list[str]:
    """Cut *text* into words, each with the white space around it; they join to *text*."""
    return _WORD.findall(text) or ([text] if text else [])
