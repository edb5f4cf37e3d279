"""
Encode the chunks of a message as the AI SDK's client wants them: it fails on parts that do not fit.

Pure. Cards are data parts, ``data-<processor>``, under the chunk's id: the client replaces the one that
it has. A whole card at each token would cost the square of its size, so a growing card is sent when it
has grown by an eighth.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import orjson

from riverdelta.core.outputs import reduce_output

Part = dict[str, Any]

_UNNAMED_TOOL: Final = "tool"
_LEAST_GROWTH_CHARS: Final = 128
_GROWTH: Final = 8
"""A growing card is sent again when it has grown by one part in this many."""
_NO_JSON: Final = "The arguments of this call are not valid JSON"
_CUT_OFF: Final = "This call was cut off"


class Chunk:
    """
    A chunk. This base class gives parts for its card only.

    Each method returns the parts to send.

    Attributes:
        id: Chunk id.
        text: Its text as far as the client has it.
        ended: Whether its end was sent.
    """

    def __init__(self, chunk_id: str) -> None:
        self.id = chunk_id
        self.text = ""
        self.ended = False
        self._card: dict[str, Any] | None = None
        self._unsent: Part | None = None
        self._sent_chars = 0
        self._grown_chars = 0

    def start(self) -> Iterator[Part]:
        """Begin the chunk."""
        yield from ()

    def add(self, text: str) -> Iterator[Part]:
        """Add new text."""
        self.text += text
        yield from self._added(text)

    def reset(self) -> Iterator[Part]:
        """Empty the chunk. The client keeps a chunk that has ended: no part can take it back."""
        self.text, self._card, self._unsent = "", None, None
        if not self.ended:
            yield from self._restarted()

    def end(self, *, failed: bool) -> Iterator[Part]:
        """End the chunk."""
        self.ended = True
        if self._unsent is not None:
            yield self._take_unsent()
        yield from self._ended(failed=failed)

    def show(self, processor: str, output: dict[str, Any]) -> Iterator[Part]:
        """Update its card; a tool's result may do so after the chunk's end, too."""
        card = reduce_output(self._card, output)
        if card == self._card:
            return
        self._card = card
        self._unsent = {"type": f"data-{processor}", "id": self.id, "data": card}
        self._grown_chars += _new_chars(output)
        enough = max(_LEAST_GROWTH_CHARS, self._sent_chars // _GROWTH)
        if card.get("status") != "loading" or self.ended or self._grown_chars >= enough:
            yield self._take_unsent()

    def _take_unsent(self) -> Part:
        part = self._unsent or {}
        self._sent_chars, self._grown_chars = self._sent_chars + self._grown_chars, 0
        self._unsent = None
        return part

    def _added(self, text: str) -> Iterator[Part]:  # noqa: ARG002  # for the subclasses
        yield from ()

    def _restarted(self) -> Iterator[Part]:
        yield from ()

    def _ended(self, *, failed: bool) -> Iterator[Part]:  # noqa: ARG002  # for the subclasses
        yield from ()


class TextChunk(Chunk):
    """Text or reasoning. No part can take text back: after a reset, a new part begins."""

    def __init__(self, chunk_id: str, name: str) -> None:
        super().__init__(chunk_id)
        self._name = name
        self._part_id = chunk_id
        self._resets = 0

    def start(self) -> Iterator[Part]:
        """Begin the chunk."""
        yield {"type": f"{self._name}-start", "id": self._part_id}

    def _added(self, text: str) -> Iterator[Part]:
        yield {"type": f"{self._name}-delta", "id": self._part_id, "delta": text}

    def _restarted(self) -> Iterator[Part]:
        yield from self._ended(failed=False)
        self._resets += 1
        self._part_id = f"{self.id}:{self._resets}"
        yield from self.start()

    def _ended(self, *, failed: bool) -> Iterator[Part]:  # noqa: ARG002  # the message says so
        yield {"type": f"{self._name}-end", "id": self._part_id}


class ToolCallChunk(Chunk):
    """The arguments of a tool call."""

    def __init__(
        self, chunk_id: str, call_id: str, tool_name: str | None, *, is_json: bool
    ) -> None:
        super().__init__(chunk_id)
        self._is_json = is_json
        self._call_id = call_id
        self._tool_name = tool_name or _UNNAMED_TOOL

    def start(self) -> Iterator[Part]:
        """Begin the call; if sent again, the client drops the arguments that it has."""
        part = self._part("tool-input-start")
        yield part if self._is_json else {**part, "inputEncoding": "text"}

    def _added(self, text: str) -> Iterator[Part]:
        yield {
            "type": "tool-input-delta",
            "toolCallId": self._call_id,
            "inputTextDelta": text,
        }

    def _restarted(self) -> Iterator[Part]:
        yield from self.start()

    def _ended(self, *, failed: bool) -> Iterator[Part]:
        if failed:
            yield self._error(_CUT_OFF)
            return
        try:
            value = orjson.loads(self.text) if self._is_json else self.text
        except orjson.JSONDecodeError:
            yield self._error(_NO_JSON)
        else:
            yield {**self._part("tool-input-available"), "input": value}

    def _part(self, type_: str) -> Part:
        return {"type": type_, "toolCallId": self._call_id, "toolName": self._tool_name}

    def _error(self, text: str) -> Part:
        return {**self._part("tool-input-error"), "input": self.text, "errorText": text}


class ToolResultChunk(Chunk):
    """A tool's result; the client gets it whole."""

    def __init__(self, chunk_id: str, call_id: str, *, is_json: bool) -> None:
        super().__init__(chunk_id)
        self._is_json = is_json
        self._call_id = call_id

    def _ended(self, *, failed: bool) -> Iterator[Part]:
        part = {"toolCallId": self._call_id}
        if failed:
            yield {"type": "tool-output-error", **part, "errorText": _CUT_OFF}
            return
        try:
            output = orjson.loads(self.text) if self._is_json else self.text
        except orjson.JSONDecodeError:  # a filter has hidden some of it
            output = self.text
        yield {"type": "tool-output-available", **part, "output": output}


def _new_chars(output: Any) -> int:
    """Count the new characters of a card: its texts in ``<name>_chunk``, and its patches."""
    if not isinstance(output, dict):
        return 0
    count = len(orjson.dumps(output["patches"])) if output.get("patches") else 0
    for name, value in output.items():
        is_text = name.endswith("_chunk") and isinstance(value, str)
        count += len(value) if is_text else _new_chars(value)
    return count
