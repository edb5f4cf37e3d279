"""Source `bedrock-converse`: the events of Amazon Bedrock's ConverseStream, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from riverdelta.core.codecs.failures import find_failure, step_fail
from riverdelta.core.codecs.json_text import encode, object_or_empty
from riverdelta.core.codecs.pieces import (
    ChunkStart,
    CodecState,
    FinishReason,
    Kind,
    Piece,
    StepFail,
)
from riverdelta.core.codecs.provider import WHOLE_ENDS, OpenChunk, ProviderCodec
from riverdelta.core.codecs.texts import object_of, objects_of, text_of, text_or_none
from riverdelta.core.codecs.usage import bedrock_usage, finish_reason, finish_word

Slot = tuple[str, Kind]
"""An index, as text, and what is written there: a block never changes its kind."""


_EXCEPTION = "Exception"

_QUIET = frozenset({"signature", "redactedContent", "citation"})
"""Members of deltas that are known to carry nothing for a reader."""


_PLAIN = frozenset({"contentBlockIndex", "delta", "p"})
"""Fields of a delta that only goes on with its block; `p` is padding."""


class _Block(NamedTuple):
    """An open chunk; a call's start, so that the same start again is known."""

    key: str
    start: tuple[str | None, str | None] | None = None


class BedrockConverseCodec(ProviderCodec):
    """
    A step per message, a chunk per content block.

    A text or reasoning block begins with its first text: the API sends no start for it. A delta of
    another kind at the index of an open block is a block of its own. A call stays open after its
    stop until something follows it: only then is it known that no limit cut it.

    The step ends when its stop and its metadata, with the usage, have come, in either order; or
    when the next message, or the producer's end, shows that no metadata comes. An event may come
    inside its name, as the SDKs give it, or bare, as it is on the wire.
    """

    def __init__(self) -> None:
        super().__init__()
        self._blocks = 0
        self._slots: dict[Slot, _Block] = {}
        self._stopped: list[Slot] = []
        """Calls whose block has stopped, and that nothing has followed yet."""
        self._stop: str | None = None
        self._usage: dict[str, Any] = {}

    def _more(self, document: Any) -> str | None:
        """Take more of an open block; see `ProviderCodec._more`."""
        try:
            event = document["contentBlockDelta"]
            ((field, text),) = event["delta"].items()
            if len(document) != 1 or not _PLAIN.issuperset(event):
                return None
            if field == "toolUse":
                ((name, text),) = text.items()
                kind: Kind = "tool_call"
            else:
                name, kind = field, "text"
        except (KeyError, TypeError, ValueError, AttributeError):
            return None  # not that shape
        block = self._slots.get((_index(event), kind))
        chunk = None if block is None else self._open.get(block.key)
        if (
            name != ("input" if kind == "tool_call" else "text")
            or type(text) is not str
            or not text
            or block is None
            or chunk is None
            or chunk.kind != kind
            or self._stop is not None
            or self._stopped
            or self._event.endswith(_EXCEPTION)
            or not chunk.feed_more(text)
        ):
            return None
        self._more_key = block.key
        return text

    def _knows(self, event: str) -> bool:
        return event in _HANDLERS or event.endswith(_EXCEPTION)

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        events = _events(document, self._event)
        for name, body in events:
            _HANDLERS[name](self, body, out)
        failure = _exception(document, self._event) or find_failure(document)
        if failure is not None:
            self._fail(failure, out)
        elif self._stop is not None and self._usage:
            self._finish_step(out)
        elif not events:
            self._skip(next(iter(document), ""))

    # -- events ----------------------------------------------------------------------------------

    def _message_start(self, event: dict[str, Any], out: list[Piece]) -> None:
        if self._in_step and not self._blocks and self._stop is None:
            self._skip("messageStart", lost=False)  # said twice
            return
        if self._in_step:
            self._finish_step(out)
        self._begin_step(event.get("model"), out)

    def _block_start(self, event: dict[str, Any], out: list[Piece]) -> None:
        index, start = _index(event), object_of(event.get("start"))
        call, result = start.get("toolUse"), start.get("toolResult")
        if not self._need_step(out):
            self._skip("contentBlockStart")
        elif type(call) is dict:
            self._call_start((index, "tool_call"), call, out)
        elif type(result) is dict:
            self._end_stopped(out)
            self._end_slot((index, "tool_result"), out)
            key = self._new_slot((index, "tool_result"))
            self._open[key] = OpenChunk("tool_result")
            self._shown = True
            call_id = text_or_none(result.get("toolUseId"))
            out.append(ChunkStart(key, "tool_result", "text", None, call_id))
        elif start:
            self._skip(next(iter(start)))

    def _call_start(self, slot: Slot, call: dict[str, Any], out: list[Piece]) -> None:
        name, call_id = text_or_none(call.get("name")), text_or_none(call.get("toolUseId"))
        block = self._slots.get(slot)
        if block and block.start == (name, call_id) and slot not in self._stopped:
            return  # the same start again
        self._end_stopped(out)
        self._end_slot(slot, out, cut=True)  # no stop came: its input may be lost
        value = call.get("input")
        unsaid = value if type(value) is str else encode(value) if value else ""
        key = self._new_slot(slot, (name, call_id))
        self._begin_call(key, name, call_id, out, unsaid=unsaid)

    def _block_delta(self, event: dict[str, Any], out: list[Piece]) -> None:
        index, delta = _index(event), object_of(event.get("delta"))
        call = delta.get("toolUse")
        reasoning = delta.get("reasoningContent")
        text = text_of(delta.get("text"))
        thought = text_of(reasoning) or text_of(object_of(reasoning).get("reasoningText"))
        results = objects_of(delta.get("toolResult"))
        if not (text or thought or call or results):
            held = object_of(reasoning) or delta
            if not any(held.values()):
                return  # an empty delta says nothing
            name = next(iter(held))
            self._skip(name, lost=name not in _QUIET)
        elif not self._need_step(out):
            self._skip("contentBlockDelta")
        else:
            self._text((index, "reasoning"), thought, out)
            self._text((index, "text"), text, out)
            if call:
                self._input(index, object_of(call).get("input"), out)
            for result in results:
                self._result((index, "tool_result"), object_of(result), out)

    def _text(self, slot: Slot, text: str, out: list[Piece]) -> None:
        if text:
            self._end_stopped(out, but=slot[0])
            self._say(self._key_of(slot), slot[1], text, out)

    def _input(self, index: str, value: Any, out: list[Piece]) -> None:
        """Add to the input of a call: that of the index, else the only one that is open."""
        text = value if type(value) is str else encode(value) if value else ""
        slot: Slot = (index, "tool_call")
        if slot not in self._slots:
            calls = [slot for slot in self._slots if slot[1] == "tool_call"]
            if len(calls) != 1:
                self._skip("toolUse", lost=bool(text))
                return
            slot = calls[0]
        self._add(self._slots[slot].key, text, out)

    def _result(self, slot: Slot, result: dict[str, Any], out: list[Piece]) -> None:
        value = result.get("json")
        text = text_of(result.get("text")) or ("" if value is None else encode(value))
        if text:
            self._say(self._key_of(slot), "tool_result", text, out)
        else:
            self._skip("toolResult", lost=bool(result))

    def _block_stop(self, event: dict[str, Any], out: list[Piece]) -> None:
        index = _index(event)
        for slot in [slot for slot in self._slots if slot[0] == index]:
            if slot[1] != "tool_call" or self._is_whole(self._slots[slot].key):
                self._end_slot(slot, out)
            elif slot not in self._stopped:
                self._stopped.append(slot)

    def _message_stop(self, event: dict[str, Any], out: list[Piece]) -> None:
        if not self._in_step:
            if self._failed:
                self._skip("messageStop", lost=False)
                return
            self._begin_step(None, out)
        self._stop = finish_word(event.get("stopReason")) or self._stop or ""
        self._close_all(out, cut=self._reason() not in WHOLE_ENDS)
        self._slots.clear()
        self._stopped.clear()

    def _metadata(self, event: dict[str, Any], out: list[Piece]) -> None:
        del out
        if event.get("trace"):
            self._skip("trace", lost=False)  # what a guardrail found: not for readers
        if self._in_step:
            self._usage = object_or_empty(event.get("usage")) or self._usage
        else:
            self._skip("metadata", lost=False)

    def _whole(self, output: dict[str, Any], out: list[Piece]) -> None:
        """Take the message of a Converse call that was not streamed."""
        if not self._need_step(out):
            self._skip("output")
            return
        for index, block in enumerate(objects_of(object_of(output.get("message")).get("content"))):
            if type(block) is dict:
                self._whole_block(index, block, out)
            else:
                self._skip("content")

    def _whole_block(self, index: int, block: dict[str, Any], out: list[Piece]) -> None:
        """Take a block as the start, the deltas and the stop that would have said the same."""
        at = {"contentBlockIndex": index}
        result = object_of(block.get("toolResult"))
        if result or block.get("toolUse"):
            self._block_start({**at, "start": block}, out)
            if result:
                self._block_delta({**at, "delta": {"toolResult": result.get("content")}}, out)
        else:
            reasoning = object_of(block.get("reasoningContent")).get("reasoningText")
            cited = object_of(block.get("citationsContent")).get("content")
            text = text_of(block.get("text")) or text_of(cited)
            if reasoning or text:
                block = {"reasoningContent": reasoning, "text": text}
            self._block_delta({**at, "delta": block}, out)
        self._block_stop(at, out)

    # -- blocks ----------------------------------------------------------------------------------

    def _need_step(self, out: list[Piece]) -> bool:
        """Begin a step for content that comes outside of one; False: it is old."""
        if self._in_step and self._stop is not None:
            self._finish_step(out)
        if not self._in_step:
            if self._failed:
                return False
            self._begin_step(None, out)
        return True

    def _key_of(self, slot: Slot) -> str:
        block = self._slots.get(slot)
        return self._new_slot(slot) if block is None else block.key

    def _new_slot(self, slot: Slot, start: tuple[str | None, str | None] | None = None) -> str:
        self._slots[slot] = _Block(str(self._blocks), start)
        self._blocks += 1
        return self._slots[slot].key

    def _end_slot(self, slot: Slot, out: list[Piece], *, cut: bool = False) -> None:
        block = self._slots.pop(slot, None)
        if block is not None:
            self._close(block.key, out, cut=cut)

    def _end_stopped(self, out: list[Piece], *, but: str | None = None) -> None:
        """Something follows: the calls whose blocks stopped without any input have none."""
        for slot in [slot for slot in self._stopped if slot[0] != but]:
            arguments = self._open[self._slots[slot].key].arguments
            if arguments is not None and not arguments.begun:
                self._stopped.remove(slot)
                self._end_slot(slot, out)

    def _reason(self) -> FinishReason | None:
        return finish_reason(self._stop or None)

    def _waits(self) -> bool:
        return self._stop is not None

    def _done_marker(self, out: list[Piece]) -> None:
        if self._in_step:
            self._finish_step(out)
        else:
            super()._done_marker(out)

    def _finish_step(self, out: list[Piece]) -> None:
        usage = bedrock_usage(self._usage) if self._usage else None
        self._end_step(self._reason(), self._stop or None, usage, out)

    # -- state -----------------------------------------------------------------------------------

    def _forget_step(self) -> None:
        self._blocks = 0
        self._slots.clear()
        self._stopped.clear()
        self._stop = None
        self._usage = {}

    def _dump_step(self) -> CodecState:
        return {
            "blocks": self._blocks,
            "slots": [[*slot, *block] for slot, block in self._slots.items()],
            "stopped": self._stopped,
            "stop": self._stop,
            "usage": self._usage,
        }

    def _load_step(self, state: CodecState) -> None:
        self._blocks = state["blocks"]
        self._slots = {
            (index, kind): _Block(key, start and (start[0], start[1]))
            for index, kind, key, start in state["slots"]
        }
        self._stopped = [(index, kind) for index, kind in state["stopped"]]
        self._stop = state["stop"]
        self._usage = state["usage"]


_Handler = Callable[[BedrockConverseCodec, dict[str, Any], list[Piece]], None]

# ruff: noqa: SLF001 - the table belongs to the class; it stands below because it names its methods
_HANDLERS: Mapping[str, _Handler] = {
    "messageStart": BedrockConverseCodec._message_start,
    "contentBlockStart": BedrockConverseCodec._block_start,
    "contentBlockDelta": BedrockConverseCodec._block_delta,
    "contentBlockStop": BedrockConverseCodec._block_stop,
    "output": BedrockConverseCodec._whole,
    "messageStop": BedrockConverseCodec._message_stop,
    "metadata": BedrockConverseCodec._metadata,
}
"""Member of the event union → what takes it, in the order of a message."""


def _events(document: dict[str, Any], event: str) -> list[tuple[str, dict[str, Any]]]:
    """List the events in a raw chunk with their bodies; one that is bare is known by its fields."""
    named = [(name, document[name]) for name in _HANDLERS if type(document.get(name)) is dict]
    if named and named[0][0] != "output":
        return named
    for kind in (document.get("type"), event):
        if type(kind) is str and kind in _HANDLERS:
            return [(kind, document)]
    bare = [name for field, name in _BLOCK_FIELDS if field in document][:1]
    if not bare:
        bare = [name for field, name in _END_FIELDS if field in document]
    if not bare and not named:
        bare = [name for field, name in _LAST_FIELDS if field in document][:1]
    return named + [(name, document) for name in bare]


_BLOCK_FIELDS = (("delta", "contentBlockDelta"), ("start", "contentBlockStart"))
_END_FIELDS = (("stopReason", "messageStop"), ("usage", "metadata"))
_LAST_FIELDS = (
    ("contentBlockIndex", "contentBlockStop"),
    ("metrics", "metadata"),
    ("role", "messageStart"),
)
"""Fields that only one event has, and which that is."""


def _exception(document: dict[str, Any], event: str) -> StepFail | None:
    """Find an exception event: under its name, or bare in a server-sent event of that name."""
    if event.endswith(_EXCEPTION):
        return StepFail(event, step_fail(document).detail)
    return None


def _index(event: dict[str, Any]) -> str:
    """Name a block by its index; a missing or odd one is a name, too."""
    return str(event.get("contentBlockIndex"))
