"""Source `anthropic`: the events of the Messages API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from riverdelta.core.codecs.json_text import object_or_empty, spell
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkStart,
    CodecState,
    Kind,
    Piece,
    StepEnd,
    Text,
)
from riverdelta.core.codecs.provider import (
    EMPTY_JSON,
    ProviderCodec,
    text_or_empty,
    text_or_none,
)
from riverdelta.core.codecs.usage import ANTHROPIC_ENDS, anthropic_usage, merge_anthropic_usage

_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_RESULT = "_tool_result"
_REFUSAL_KEY = "refusal"

_TEXTS: Mapping[str, tuple[Kind, str]] = {
    "text": ("text", "text"),
    "thinking": ("reasoning", "thinking"),
}
"""Type of a block that is text → its kind, and the field of the block with its first text."""

_DELTAS: Mapping[str, tuple[Kind, str]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("reasoning", "thinking"),
}


class AnthropicCodec(ProviderCodec):
    """
    A step per message, a chunk per content block.

    A text or thinking block begins with its first text, so that a block which only carries a
    signature is none.

    A tool call that has its input in its start and gets no deltas says it where it ends. The
    explanation of a refusal is a chunk of its own kind. Usage is merged as Anthropic's SDK does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._id: str | None = None
        self._stop: str | None = None
        self._usage: dict[str, Any] | None = None
        self._refused = False

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        kind = document.get("type")
        if kind == "content_block_delta":
            taken = self._block_delta(document, out)
        elif type(kind) is str and kind in _HANDLERS:
            taken = _HANDLERS[kind](self, document, out)
        else:
            taken = False
        self.skipped += not taken

    def _message_start(self, event: dict[str, Any], out: list[Piece]) -> bool:
        message = event.get("message")
        message = message if type(message) is dict else {}
        message_id = text_or_none(message.get("id"))
        if self._in_step:
            if message_id == self._id:
                return False  # some gateways say it twice
            self._finish_step(out)
        self._id = message_id
        self._usage = object_or_empty(message.get("usage")) or None
        self._begin_step(message.get("model"), out)
        return True

    def _block_start(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index, block = event.get("index"), event.get("content_block")
        if not self._in_step or type(index) is not int or type(block) is not dict:
            return False
        key, kind = str(index), text_or_empty(block.get("type"))
        if key in self._open:
            return False
        if kind in _TEXTS:
            shown, field = _TEXTS[kind]
            self._say(key, shown, text_or_empty(block.get(field)), out)
        elif kind in _CALLS:
            self._begin_call(key, block, out)
        elif kind.endswith(_RESULT):
            self._begin_result(key, kind, block, out)
        else:
            return False
        return True

    def _begin_call(self, key: str, block: dict[str, Any], out: list[Piece]) -> None:
        value = block.get("input")
        self._open[key] = spell(value) if value else EMPTY_JSON
        name, call_id = text_or_none(block.get("name")), text_or_none(block.get("id"))
        out.append(ChunkStart(key, "tool_call", "json", name, call_id))

    def _begin_result(self, key: str, kind: str, block: dict[str, Any], out: list[Piece]) -> None:
        content = spell(block.get("content"))
        name = text_or_none(kind.removesuffix(_RESULT))
        call_id = text_or_none(block.get("tool_use_id"))
        self._open[key] = ""
        out.append(ChunkStart(key, "tool_result", "json", name, call_id))
        out.append(Text(key, content))

    def _block_delta(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index, delta = event.get("index"), event.get("delta")
        if not self._in_step or type(index) is not int or type(delta) is not dict:
            return False
        kind = delta.get("type")
        key = str(index)
        if kind == "input_json_delta":
            text = delta.get("partial_json")
            if key not in self._open or type(text) is not str:
                return False
            self._add(key, text, out)
            return True
        if type(kind) is not str or kind not in _DELTAS:
            return False  # a signature, a citation, or nothing we know
        shown, field = _DELTAS[kind]
        self._say(key, shown, text_or_empty(delta.get(field)), out)
        return True

    def _block_stop(self, event: dict[str, Any], out: list[Piece]) -> bool:
        self._close(str(event.get("index")), out)
        return True

    def _message_delta(self, event: dict[str, Any], out: list[Piece]) -> bool:
        if not self._in_step:
            return False
        delta = event.get("delta")
        delta = delta if type(delta) is dict else {}
        self._stop = text_or_none(delta.get("stop_reason")) or self._stop
        self._usage = merge_anthropic_usage(self._usage, event.get("usage"))
        details = delta.get("stop_details")
        if self._stop == "refusal" and type(details) is dict and not self._refused:
            explanation = text_or_empty(details.get("explanation"))
            if explanation:
                self._refused = True
                out.append(ChunkStart(_REFUSAL_KEY, "refusal"))
                out.append(Text(_REFUSAL_KEY, explanation))
                out.append(ChunkEnd(_REFUSAL_KEY))
        return True

    def _message_stop(self, event: dict[str, Any], out: list[Piece]) -> bool:
        del event
        if not self._in_step:
            return False
        self._end(out, cut=False)
        return True

    def _error(self, event: dict[str, Any], out: list[Piece]) -> bool:
        self._fail_step(event.get("error"), out)
        return True

    def _finish_step(self, out: list[Piece]) -> None:
        self._end(out, cut=self._stop is None)

    def _end(self, out: list[Piece], *, cut: bool) -> None:
        self._close_all(out, cut=cut)
        reason = ANTHROPIC_ENDS.get(self._stop, "other") if self._stop else None
        # A cut message has only the usage of its start: a count of tokens that never came.
        usage = anthropic_usage(self._usage) if self._usage and not cut else None
        self._end_step(StepEnd(reason, self._stop, usage), out)

    def _forget_step(self) -> None:
        self._id = None
        self._stop = None
        self._usage = None
        self._refused = False

    def _dump_step(self) -> CodecState:
        return {
            "id": self._id,
            "stop": self._stop,
            "usage": self._usage,
            "refused": self._refused,
        }

    def _load_step(self, state: CodecState) -> None:
        self._id = state["id"]
        self._stop = state["stop"]
        self._usage = state["usage"]
        self._refused = state["refused"]


_Handler = Callable[[AnthropicCodec, dict[str, Any], list[Piece]], bool]

# ruff: noqa: SLF001 - the table belongs to the class; it stands below because it names its methods
_HANDLERS: Mapping[str, _Handler] = {
    "message_start": AnthropicCodec._message_start,
    "content_block_start": AnthropicCodec._block_start,
    "content_block_stop": AnthropicCodec._block_stop,
    "message_delta": AnthropicCodec._message_delta,
    "message_stop": AnthropicCodec._message_stop,
    "error": AnthropicCodec._error,
}
