"""Source `bedrock-converse`: the events of Amazon Bedrock's ConverseStream, as JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from riverdelta.core.codecs.json_text import object_or_empty, spell
from riverdelta.core.codecs.pieces import (
    ChunkStart,
    CodecState,
    FinishReason,
    Kind,
    Piece,
    Rejected,
    StepEnd,
    StepFail,
)
from riverdelta.core.codecs.provider import (
    EMPTY_JSON,
    ProviderCodec,
    text_or_empty,
    text_or_none,
)
from riverdelta.core.codecs.usage import BEDROCK_ENDS, bedrock_usage

Slot = tuple[str, Kind]
"""An index, as text, and what is written there: a block never changes its kind."""


class _Block(NamedTuple):
    """An open chunk; a call's start, so that the same start again is known."""

    key: str
    start: tuple[str | None, str | None] | None = None


_CUT = frozenset({"length", "content_filter", "refusal", "error"})
"""An end that may have cut the last call before its input began."""


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

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        taken = False
        for name, body in _events(document):
            taken |= _HANDLERS[name](self, body, out)
        failure = _exception(document)
        if failure is not None:
            self._fail_step(failure, out)
            taken = True
        elif self._stop is not None and self._usage:
            self._finish_step(out)
        self.skipped += not taken

    # -- events ----------------------------------------------------------------------------------

    def _message_start(self, event: dict[str, Any], out: list[Piece]) -> bool:
        if self._in_step:
            if not self._blocks and self._stop is None:
                return False  # said twice
            self._finish_step(out)
        self._begin_step(event.get("model"), out)
        return True

    def _block_start(self, event: dict[str, Any], out: list[Piece]) -> bool:
        start = _object(event.get("start"))
        index = _index(event)
        call, result = start.get("toolUse"), start.get("toolResult")
        self._need_step(out)
        if type(call) is dict:
            self._begin_call(index, call, out)
        elif type(result) is dict:
            self._end_stopped(out)
            self._end_slot((index, "tool_result"), out)
            key = self._new_slot((index, "tool_result"))
            self._open[key] = ""
            call_id = text_or_none(result.get("toolUseId"))
            out.append(ChunkStart(key, "tool_result", "text", None, call_id))
        else:
            return not start  # of text; an image is not taken
        return True

    def _begin_call(self, index: str, call: dict[str, Any], out: list[Piece]) -> None:
        slot: Slot = (index, "tool_call")
        name, call_id = text_or_none(call.get("name")), text_or_none(call.get("toolUseId"))
        open_block = self._slots.get(slot)
        if open_block and open_block.start == (name, call_id) and slot not in self._stopped:
            return  # the same start again
        self._end_stopped(out)
        self._end_slot(slot, out)
        key = self._new_slot(slot, (name, call_id))
        value = call.get("input")
        self._open[key] = (value if type(value) is str else spell(value)) if value else EMPTY_JSON
        out.append(ChunkStart(key, "tool_call", "json", name, call_id))

    def _block_delta(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index, delta = _index(event), _object(event.get("delta"))
        taken = self._text(index, "text", delta.get("text"), out)
        reasoning = delta.get("reasoningContent")
        if type(reasoning) is dict:
            reasoning = reasoning.get("text")  # else a signature, or what is encrypted
        taken |= self._text(index, "reasoning", reasoning, out)
        call = delta.get("toolUse")
        if type(call) is dict:
            taken |= self._input(index, call.get("input"), out)
        results = delta.get("toolResult")
        for result in results if type(results) is list else ([] if results is None else [results]):
            taken |= self._result(index, result, out)
        return taken

    def _text(self, index: str, kind: Kind, text: Any, out: list[Piece]) -> bool:
        if type(text) is not str:
            return False
        if text:
            self._need_step(out)
            self._end_stopped(out, but=index)
            self._say(self._key_of((index, kind)), kind, text, out)
        return True

    def _input(self, index: str, value: Any, out: list[Piece]) -> bool:
        text = spell(value) if type(value) is dict else value
        if type(text) is not str:
            return False
        slot: Slot = (index, "tool_call")
        if slot not in self._slots:
            calls = [slot for slot in self._slots if slot[1] == "tool_call"]
            if len(calls) != 1:
                if text:
                    out.append(Rejected("input_without_call", "tool input that belongs to no call"))
                return False
            slot = calls[0]
        self._add(self._slots[slot].key, text, out)
        return True

    def _result(self, index: str, result: Any, out: list[Piece]) -> bool:
        result = _object(result)
        text = result.get("text")
        if text is None and result.get("json") is not None:
            text = spell(result["json"])
        if type(text) is not str:
            return False
        if text:
            self._need_step(out)
            self._say(self._key_of((index, "tool_result")), "tool_result", text, out)
        return True

    def _block_stop(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index = _index(event)
        for slot in [slot for slot in self._slots if slot[0] == index]:
            if slot[1] != "tool_call":
                self._end_slot(slot, out)
            elif slot not in self._stopped:
                self._stopped.append(slot)
        return self._in_step

    def _message_stop(self, event: dict[str, Any], out: list[Piece]) -> bool:
        if not self._in_step:
            self._begin_step(None, out)
        self._stop = text_or_none(event.get("stopReason")) or self._stop or ""
        self._end_blocks(out)
        return True

    def _metadata(self, event: dict[str, Any], out: list[Piece]) -> bool:
        del out
        self.skipped += bool(event.get("trace"))
        if not self._in_step:
            return False
        self._usage = object_or_empty(event.get("usage")) or self._usage
        return True

    def _whole(self, output: dict[str, Any], out: list[Piece]) -> bool:
        """Take the message of a Converse call that was not streamed."""
        content = _object(output.get("message")).get("content")
        self._need_step(out)
        for index, block in enumerate(content if type(content) is list else ()):
            if type(block) is not dict or not self._whole_block(index, block, out):
                self.skipped += 1
        return True

    def _whole_block(self, index: int, block: dict[str, Any], out: list[Piece]) -> bool:
        event: dict[str, Any] = {"contentBlockIndex": index}
        call, result = _object(block.get("toolUse")), _object(block.get("toolResult"))
        reasoning = _object(_object(block.get("reasoningContent")).get("reasoningText"))
        cited = _object(block.get("citationsContent")).get("content")
        texts = [block, *(cited if type(cited) is list else ())]
        taken = False
        if call or result:
            taken = self._block_start({**event, "start": block}, out)
            if result:
                delta = {"toolResult": result.get("content")}
                self._block_delta({**event, "delta": delta}, out)
        taken |= self._text(str(index), "reasoning", reasoning.get("text"), out)
        for text in texts:
            taken |= self._text(str(index), "text", _object(text).get("text"), out)
        self._block_stop(event, out)
        return taken

    # -- blocks ----------------------------------------------------------------------------------

    def _need_step(self, out: list[Piece]) -> None:
        """Begin a step, if content comes outside of one; a start that is missing is none."""
        if self._in_step and self._stop is not None:
            self._finish_step(out)
        if not self._in_step:
            self._begin_step(None, out)

    def _key_of(self, slot: Slot) -> str:
        block = self._slots.get(slot)
        return self._new_slot(slot) if block is None else block.key

    def _new_slot(self, slot: Slot, start: tuple[str | None, str | None] | None = None) -> str:
        self._slots[slot] = _Block(str(self._blocks), start)
        self._blocks += 1
        return self._slots[slot].key

    def _end_slot(self, slot: Slot, out: list[Piece]) -> None:
        block = self._slots.pop(slot, None)
        if block is not None:
            self._close(block.key, out)

    def _end_stopped(self, out: list[Piece], *, but: str | None = None) -> None:
        """Something follows: the calls whose blocks stopped are whole."""
        for slot in [slot for slot in self._stopped if slot[0] != but]:
            self._stopped.remove(slot)
            self._end_slot(slot, out)

    def _reason(self) -> FinishReason | None:
        return BEDROCK_ENDS.get(self._stop.lower(), "other") if self._stop else None

    def _end_blocks(self, out: list[Piece]) -> None:
        if self._reason() != "error":  # else the calls fail with the step
            self._close_all(out, cut=self._stop is None or self._reason() in _CUT)
            self._slots.clear()
            self._stopped.clear()

    def _finish_step(self, out: list[Piece]) -> None:
        self._end_blocks(out)
        word, reason = self._stop or None, self._reason()
        end: StepEnd | StepFail
        if word is not None and reason == "error":
            end = StepFail(word, "")
        else:
            end = StepEnd(reason, word, bedrock_usage(self._usage) if self._usage else None)
        self._end_step(end, out)

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


_Handler = Callable[[BedrockConverseCodec, dict[str, Any], list[Piece]], bool]

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


def _events(document: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """List the events in a raw chunk with their bodies; one that is bare is known by its fields."""
    named = [(name, document[name]) for name in _HANDLERS if type(document.get(name)) is dict]
    if named and named[0][0] != "output":
        return named
    kind = document.get("type")
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


def _exception(document: dict[str, Any]) -> dict[str, Any] | None:
    """Find a failure in a raw chunk: an exception event, the body of an error, a bare message."""
    for name, value in document.items():
        if name.endswith("Exception") and type(value) in (dict, str):
            return {"code": name, "message": _message(value)}
    error = document.get("error") or document.get("Error")
    if error:
        code = _object(error).get("code") or _object(error).get("Code")
        return {"code": code, "message": _message(error)}
    if not _events(document) and _message(document):
        kind = text_or_empty(document.get("__type")).rpartition("#")[2]
        return {"code": kind, "message": _message(document)}
    return None


def _message(failure: Any) -> str:
    if type(failure) is str:
        return failure
    names = ("message", "Message", "originalMessage")
    return next((text for name in names if (text := text_or_none(_object(failure).get(name)))), "")


def _index(event: dict[str, Any]) -> str:
    """Name a block by its index; a missing or odd one is a name, too."""
    return str(event.get("contentBlockIndex"))


def _object(value: Any) -> dict[str, Any]:
    return value if type(value) is dict else {}
