"""Source `anthropic`: the events of the Messages API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

from riverdelta.core.codecs.failures import find_failure
from riverdelta.core.codecs.json_text import encode, object_or_empty
from riverdelta.core.codecs.old_states import upgrade_anthropic
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkStart,
    CodecState,
    Kind,
    Piece,
    Text,
)
from riverdelta.core.codecs.provider import OpenChunk, ProviderCodec
from riverdelta.core.codecs.texts import (
    find_usage,
    id_or_none,
    index_or_none,
    object_of,
    objects_of,
    text_of,
    text_or_empty,
    text_or_none,
)
from riverdelta.core.codecs.usage import (
    anthropic_usage,
    finish_reason,
    finish_word,
    merge_anthropic_usage,
)

_CALLS = frozenset({"tool_use", "server_tool_use", "mcp_tool_use"})
_RESULT = "_tool_result"
_REFUSAL_KEY = "refusal"

_TEXTS: Mapping[str, Kind] = {"text": "text", "thinking": "reasoning"}
"""Type of a block that is text → its kind; the field with its text has the type's name."""

_DELTAS: Mapping[str, tuple[str, Kind]] = {
    "text_delta": ("text", "text"),
    "thinking_delta": ("thinking", "reasoning"),
    "input_json_delta": ("partial_json", "tool_call"),
}
"""Type of a delta → the field with its text, and what it goes on with."""

_BEDROCK_METRICS = "amazon-bedrock-invocationMetrics"
"""Where Bedrock counts tokens in its own way."""

_QUIET = frozenset({"ping", "signature_delta", "citations_delta", "redacted_thinking"})
"""Known to carry nothing for a reader."""


class _Block:
    """
    A content block that has begun, and may still get deltas.

    Attributes:
        key: Of its chunk.
        index: The provider's; None: it gave none.
        kind: What its start said it is; None: nothing known.
        call_id, name: Of a call.
        first: Checksum of the text in its start, to know the same start when it comes again.
        stopped: Its end was said. A call whose input is not whole waits for the rest nevertheless.
        passed: And another block has begun since: nothing was cut inside this one.
    """

    __slots__ = ("call_id", "first", "index", "key", "kind", "name", "passed", "stopped")

    def __init__(self, key: str, index: int | None, kind: Kind | None) -> None:
        self.key = key
        self.index = index
        self.kind = kind
        self.call_id: str | None = None
        self.name: str | None = None
        self.first = 0
        self.stopped = False
        self.passed = False

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values."""
        return [
            self.key,
            self.index,
            self.kind,
            self.call_id,
            self.first,
            self.stopped,
            self.passed,
            self.name,
        ]

    @classmethod
    def load(cls, state: list[Any]) -> _Block:
        """Undo `dump`."""
        block = cls(*state[:3])
        block.call_id, block.first, block.stopped, block.passed, block.name = state[3:]
        return block


class AnthropicCodec(ProviderCodec):
    """
    A step per message, a chunk per content block.

    A text or thinking block begins with its first text, so that a block which only carries a
    signature is none.

    A block is found by its index and its type; if the index is missing or no number, the newest
    block that fits is taken. A delta for another kind of text than its block's opens another chunk,
    and input goes to a call or nowhere.

    A call ends where its block does if its input is whole by then. Else the rest may still come, and
    the end of the message says whether it was cut. A call that has its input in its start and gets
    no deltas says it where it ends. The explanation of a refusal is a chunk of its own kind. Usage
    is merged as Anthropic's SDK does.
    """

    def __init__(self) -> None:
        super().__init__()
        self._id: str | None = None
        self._over: str | None = None
        """Id of the message that ended last."""
        self._stop: str | None = None
        self._usage: dict[str, Any] | None = None
        self._refused = False
        self._blocks: list[_Block] = []
        self._begun = 0
        """Blocks of the step so far."""

    def _more(self, document: Any) -> str | None:
        """Take more of an open block; see `ProviderCodec._more`."""
        try:
            delta, index = document["delta"], document["index"]
            if (
                document["type"] != "content_block_delta"
                or len(document) != 3
                or len(delta) != 2
                or type(index) is not int
            ):
                return None
            field, kind = _DELTAS[delta["type"]]
            text = delta[field]
        except (KeyError, TypeError):
            return None  # not that shape
        if type(text) is not str or not text:
            return None
        block = self._block_at(index)
        chunk = None if block is None else self._open.get(block.key)
        if block is None or chunk is None or chunk.kind != kind:
            return None
        if kind == "tool_call" and (block.kind != kind or not chunk.feed_more(text)):
            return None
        self._more_key = block.key
        return text

    def _knows(self, event: str) -> bool:
        return event in _HANDLERS

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        failure = find_failure(document)
        if failure is not None:
            self._fail(failure, out)
            return
        kind = document.get("type")
        if type(kind) is not str or not kind:
            kind = self._event if self._event in _HANDLERS else _type_of(document)
        handler = _HANDLERS.get(kind)
        if handler is not None:
            handler(self, document, out)
        else:
            self._skip(kind, lost=kind not in _QUIET)

    # --- messages ---

    def _message_start(self, event: dict[str, Any], out: list[Piece]) -> None:
        message = object_of(event.get("message"))
        message_id = text_or_none(message.get("id"))
        if self._in_step:
            if message_id == self._id or self._id is None:
                self._id = message_id
                self._usage = self._usage or object_or_empty(message.get("usage")) or None
                self._skip("message_start", lost=False)  # some gateways send it twice
                return
            self._finish_step(out)
        self._id = message_id
        self._usage = object_or_empty(message.get("usage")) or None
        self._begin_step(message.get("model"), out)
        for index, block in enumerate(objects_of(message.get("content"))):
            self._block_start({"index": index, "content_block": block}, out)

    def _message(self, message: dict[str, Any], out: list[Piece]) -> None:
        """Take a whole message that came where a stream was asked for."""
        message_id = text_or_none(message.get("id"))
        known = (self._id if self._shown else None) if self._in_step else self._over
        if message_id is not None and message_id == known:
            self._skip("message", lost=False)  # some repeat it behind its own stream
            return
        self._message_start({"message": {**message, "content": None}}, out)
        if type(message.get("content")) is str:
            self._say("0", "text", message["content"], out)
        for index, block in enumerate(objects_of(message.get("content"))):
            self._block_start({"index": index, "content_block": block}, out)
            self._block_stop({"index": index}, out)
        self._message_delta({"delta": message, "usage": message.get("usage")}, out)
        self._message_stop(message, out)

    def _message_delta(self, event: dict[str, Any], out: list[Piece]) -> None:
        if not self._in_step:
            self._skip("message_delta", lost=False)
            return
        delta = object_of(event.get("delta"))
        self._stop = finish_word(delta.get("stop_reason")) or self._stop
        self._usage = merge_anthropic_usage(self._usage, find_usage(event, delta))
        details = delta.get("stop_details")
        if self._stop == "refusal" and type(details) is dict and not self._refused:
            explanation = text_or_empty(details.get("explanation"))
            if explanation:
                self._refused = self._shown = True
                out.append(ChunkStart(_REFUSAL_KEY, "refusal"))
                out.append(Text(_REFUSAL_KEY, explanation))
                out.append(ChunkEnd(_REFUSAL_KEY))

    def _message_stop(self, event: dict[str, Any], out: list[Piece]) -> None:
        if not self._in_step:
            self._skip("message_stop", lost=False)
            return
        self._usage = merge_anthropic_usage(self._usage, event.get("usage"))
        self._usage = self._usage or object_or_empty(event.get(_BEDROCK_METRICS)) or None
        self._end(out, cut=False)

    # --- blocks ---

    def _block_start(self, event: dict[str, Any], out: list[Piece]) -> None:
        block = event.get("content_block")
        if type(block) is not dict or not self._need_step(out):
            self._skip("content_block_start")
            return
        index = index_or_none(event.get("index"))
        kind = _kind_of(block)
        is_call = kind == "tool_call"
        call_id = id_or_none(block.get("id")) if is_call else None
        name = text_or_none(block.get("name")) if is_call else None
        first = text_of(block) if kind in ("text", "reasoning") else ""
        old = self._block_at(index)
        if old is not None and index is not None and not old.stopped:
            if self._starts_again(old, kind, call_id, name):
                if first and crc32(first.encode("utf-8", "replace")) != old.first:
                    self._say(old.key, kind or "text", first, out)
                return  # the same start again, as some say it before each delta
            self._end_block(old, out, cut=True)
        for before in self._blocks:
            before.passed = before.stopped
        new = self._new_block(index, kind)
        new.call_id, new.name = call_id, name
        new.first = crc32(first.encode("utf-8", "replace"))
        if kind == "tool_call":
            value = block.get("input")
            unsaid = value if type(value) is str else encode(value) if value else ""
            self._begin_call(new.key, name, call_id, out, unsaid=unsaid)
        elif kind == "tool_result":
            self._begin_result(new.key, text_or_empty(block.get("type")), block, out)
        elif first:
            self._say(new.key, kind or "text", first, out)
        elif kind is None:
            what = text_or_empty(block.get("type"))
            self._skip(what, lost=what not in _QUIET)

    def _starts_again(
        self, old: _Block, kind: Kind | None, call_id: str | None, name: str | None
    ) -> bool:
        """Whether a start on the index of *old*, which is open, is its own start once more."""
        if kind == "tool_result" or (old.kind, old.call_id, old.name) != (kind, call_id, name):
            return False
        return kind != "tool_call" or call_id is not None or not self._is_whole(old.key)

    def _begin_result(self, key: str, kind: str, block: dict[str, Any], out: list[Piece]) -> None:
        content = encode(block.get("content"))
        name = text_or_none(kind.removesuffix(_RESULT))
        call_id = text_or_none(block.get("tool_use_id"))
        self._open[key] = OpenChunk("tool_result")
        self._shown = True
        out.append(ChunkStart(key, "tool_result", "json", name, call_id))
        out.append(Text(key, content))

    def _block_delta(self, event: dict[str, Any], out: list[Piece]) -> None:
        delta = event.get("delta")
        if type(delta) is not dict:
            delta = {"text": delta} if type(delta) is str else {}
        name = text_or_empty(delta.get("type"))
        index = index_or_none(event.get("index"))
        if "partial_json" in delta and name in ("", "input_json_delta"):
            self._input(index, delta["partial_json"], out)
            return
        for field, kind in _TEXTS.items():
            text = text_of(delta.get(field))
            if text and self._need_step(out):
                self._say(self._text_block(index, kind).key, kind, text, out)
                return
            if field in delta and not delta[field]:
                return  # an empty delta has nothing
        self._skip(name or "content_block_delta", lost=name not in _QUIET)

    def _input(self, index: int | None, value: Any, out: list[Piece]) -> None:
        """Add to the input of a call. There may be none that could take it."""
        text = value if type(value) is str else encode(value) if value else ""
        call = self._call_for(index)
        if call is not None:
            self._add(call.key, text, out)
        elif text or type(value) is not str:
            self._skip("input_json_delta")

    def _block_stop(self, event: dict[str, Any], out: list[Piece]) -> None:
        index = index_or_none(event.get("index"))
        block = self._block_at(index)
        if block is None and index is None:
            block = next((block for block in reversed(self._blocks) if not block.stopped), None)
        if block is not None:
            self._end_block(block, out)
        elif not self._in_step:
            self._skip("content_block_stop", lost=False)

    def _end_block(self, block: _Block, out: list[Piece], *, cut: bool = False) -> None:
        """
        End the chunks of a block.

        A call whose input is not whole waits for the rest, unless it was *cut*: another block took its
        place before its stop, and with it the input that may still have come.
        """
        for key in [
            key for key in self._open if key == block.key or key.startswith(f"{block.key}:")
        ]:
            chunk = self._open[key]
            waits = chunk.kind == "tool_call" and not chunk.unsaid and not self._is_whole(key)
            if waits and not cut:
                block.stopped = True
            else:
                self._close(key, out, cut=cut and waits)
        if not block.stopped:
            self._blocks.remove(block)

    def _block_at(self, index: int | None) -> _Block | None:
        """Find the newest block of an index."""
        if index is not None:
            for block in reversed(self._blocks):
                if block.index == index:
                    return block
        return None

    def _text_block(self, index: int | None, kind: Kind) -> _Block:
        """Find the block that a text goes to, or begin one."""
        block = self._block_at(index)
        if block is None and index is None and self._blocks:
            fits = [block for block in self._blocks if block.kind in (kind, None)]
            block = fits[-1] if fits else self._blocks[-1]
        return block or self._new_block(index, kind)

    def _call_for(self, index: int | None) -> _Block | None:
        """Find the call that input goes to: that of the index, else the newest that waits for it."""
        block = self._block_at(index)
        if block is not None and (block.kind == "tool_call" or self._may_be_call(block)):
            return block
        for block in reversed(self._blocks):
            if block.kind == "tool_call" and not self._is_whole(block.key):
                return block
        return None

    def _may_be_call(self, block: _Block) -> bool:
        """Whether the block's chunk is open, and of a kind that the state of a version before left out."""
        return block.key in self._open and self._open[block.key].kind is None

    def _new_block(self, index: int | None, kind: Kind | None) -> _Block:
        key = "n" if index is None else str(index)
        if any(block.key == key for block in self._blocks):
            key = f"{key}.{self._begun}"
        self._begun += 1
        block = _Block(key, index, kind)
        self._blocks.append(block)
        return block

    # --- steps ---

    def _need_step(self, out: list[Piece]) -> bool:
        """Begin a step for content whose message was not announced; False: it is old."""
        if not self._in_step:
            if self._failed:
                return False
            self._begin_step(None, out)
        return True

    def _waits(self) -> bool:
        return self._stop is not None

    def _finish_step(self, out: list[Piece]) -> None:
        self._end(out, cut=self._stop is None)

    def _end(self, out: list[Piece], *, cut: bool) -> None:
        for block in self._blocks:
            if block.passed:
                self._close(block.key, out)
        reason = finish_reason(self._stop)
        # A cut message has only the usage of its start: a count of tokens that never came.
        usage = anthropic_usage(self._usage) if self._usage and not cut else None
        self._end_step(reason, self._stop, usage, out)

    def _forget_step(self) -> None:
        self._over, self._id = self._id, None
        self._stop = None
        self._usage = None
        self._refused = False
        self._blocks.clear()
        self._begun = 0

    def _upgrade(self, state: CodecState) -> CodecState:
        return upgrade_anthropic(state)

    def _dump_step(self) -> CodecState:
        return {
            "id": self._id,
            "over": self._over,
            "stop": self._stop,
            "usage": self._usage,
            "refused": self._refused,
            "blocks": [block.dump() for block in self._blocks],
            "begun": self._begun,
        }

    def _load_step(self, state: CodecState) -> None:
        self._id = state["id"]
        self._over = state["over"]
        self._stop = state["stop"]
        self._usage = state["usage"]
        self._refused = state["refused"]
        self._blocks = [_Block.load(block) for block in state["blocks"]]
        self._begun = state["begun"]


def _kind_of(block: dict[str, Any]) -> Kind | None:
    """Return the kind of a block: by its type, else by its fields."""
    name = text_or_empty(block.get("type"))
    if name in _TEXTS:
        return _TEXTS[name]
    if name in _CALLS or name.endswith("_tool_use"):
        return "tool_call"
    if name.endswith(_RESULT):
        return "tool_result"
    if "input" in block and "name" in block:
        return "tool_call"
    for field, kind in _TEXTS.items():
        if type(block.get(field)) is str:
            return kind
    return None


def _type_of(document: dict[str, Any]) -> str:
    """Return the type of an event without one, by its fields."""
    delta = object_of(document.get("delta"))
    if "content_block" in document:
        return "content_block_start"
    if "stop_reason" in delta:
        return "message_delta"
    if delta:
        return "content_block_delta"
    if type(document.get("message")) is dict:
        return "message_start"
    if document.get("role") == "assistant" and "content" in document:
        return "message"
    return ""


_Handler = Callable[[AnthropicCodec, dict[str, Any], list[Piece]], None]

# ruff: noqa: SLF001 - the table belongs to the class; it stands below because it names its methods
_HANDLERS: Mapping[str, _Handler] = {
    "message_start": AnthropicCodec._message_start,
    "content_block_start": AnthropicCodec._block_start,
    "content_block_delta": AnthropicCodec._block_delta,
    "content_block_stop": AnthropicCodec._block_stop,
    "message_delta": AnthropicCodec._message_delta,
    "message_stop": AnthropicCodec._message_stop,
    "message": AnthropicCodec._message,
}
