"""Source `openai-responses`: the events of OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from riverdelta.core.codecs import responses_calls as calls
from riverdelta.core.codecs.delivered import Sent
from riverdelta.core.codecs.json_text import object_or_empty
from riverdelta.core.codecs.pieces import CodecState, Kind, Piece
from riverdelta.core.codecs.provider import ProviderCodec
from riverdelta.core.codecs.responses_calls import CallItem
from riverdelta.core.codecs.texts import text_or_empty, text_or_none
from riverdelta.core.codecs.usage import finish_reason, openai_responses_usage

PART_BREAK = "\n\n"
"""Stands between the parts of one reasoning item."""


class _Channel(NamedTuple):
    """One kind of text inside an item, in numbered parts."""

    name: str
    kind: Kind
    part: str
    """The event's field with the part's number."""
    full: str
    """The `.done` event's field with the full text."""


_TEXT = _Channel("text", "text", "content_index", "text")
_REFUSAL = _Channel("refusal", "refusal", "content_index", "refusal")
_REASONING = _Channel("reasoning", "reasoning", "content_index", "text")
_SUMMARY = _Channel("summary", "reasoning", "summary_index", "text")

_DELTAS: Mapping[str, _Channel] = {
    "response.output_text.delta": _TEXT,
    "response.refusal.delta": _REFUSAL,
    "response.reasoning_text.delta": _REASONING,
    "response.reasoning_summary_text.delta": _SUMMARY,
}
_DONES: Mapping[str, _Channel] = {
    "response.output_text.done": _TEXT,
    "response.refusal.done": _REFUSAL,
    "response.reasoning_text.done": _REASONING,
    "response.reasoning_summary_text.done": _SUMMARY,
}
_PARTS: Mapping[str, _Channel] = {
    "output_text": _TEXT,
    "refusal": _REFUSAL,
    "reasoning_text": _REASONING,
    "summary_text": _SUMMARY,
}
"""Type of a part in a finished item → its channel."""

_CALL_DELTAS = frozenset(
    {
        "response.function_call_arguments.delta",
        "response.mcp_call_arguments.delta",
        "response.custom_tool_call_input.delta",
        "response.code_interpreter_call_code.delta",
    }
)
_CALL_DONES: Mapping[str, str] = {
    "response.function_call_arguments.done": "arguments",
    "response.mcp_call_arguments.done": "arguments",
    "response.custom_tool_call_input.done": "input",
    "response.code_interpreter_call_code.done": "code",
}
_SPELLED = ("apply_patch_call", "shell_call")


class OpenAIResponsesCodec(ProviderCodec):
    """
    A step per response, a chunk per content part of a message and per call.

    The summary of a reasoning item is one chunk, its parts joined by a blank line, and so is its
    full reasoning.

    Texts that come again in full (`.done`, the finished item) add only what the deltas left out.
    Items are told apart by `output_index`. A call's deltas count once its item was announced
    with a name; without that, the finished item gives it whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self._id: str | None = None
        self._called = False
        self._items: dict[int, CallItem] = {}
        self._done: set[int] = set()
        self._sent = Sent()

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        kind = document.get("type")
        if type(kind) is not str:
            if document.get("error"):
                self._fail_step(document["error"], out)
            else:
                self.skipped += 1
            return
        channel = _DELTAS.get(kind)
        if self._failed and kind != "response.created":
            taken = False
        elif channel is not None:
            taken = self._text_delta(channel, document, out)
        elif kind in _CALL_DELTAS:
            taken = self._call_delta(document, out)
        elif kind in _HANDLERS:
            taken = _HANDLERS[kind](self, document, out)
        else:
            taken = False
        self.skipped += not taken

    # --- text ---

    def _text_delta(self, channel: _Channel, event: dict[str, Any], out: list[Piece]) -> bool:
        index, text = event.get("output_index"), event.get("delta")
        if type(index) is not int or type(text) is not str or index in self._done:
            return False
        track = self._begin_part(channel, index, event.get(channel.part), text, out)
        self._sent.note(track, text)
        self._say(_chunk_of(channel, track), channel.kind, text, out)
        return True

    def _text_done(self, event: dict[str, Any], out: list[Piece]) -> bool:
        channel = _DONES[event["type"]]
        return self._full(
            channel,
            event.get("output_index"),
            event.get(channel.part),
            event.get(channel.full),
            out,
        )

    def _full(self, channel: _Channel, index: Any, part: Any, full: Any, out: list[Piece]) -> bool:
        """Take a text that is known in full now."""
        if type(index) is not int or type(full) is not str or index in self._done:
            return False
        track = self._begin_part(channel, index, part, full, out)
        self._say(_chunk_of(channel, track), channel.kind, self._sent.rest(track, full), out)
        return True

    def _begin_part(
        self, channel: _Channel, index: int, part: Any, text: str, out: list[Piece]
    ) -> str:
        """Name the track of a part; a later part of a reasoning item begins with a break."""
        self._need_step(None, out)
        track = f"{index}:{channel.name}:{part if type(part) is int else 0}"
        if channel.kind == "reasoning" and text and track not in self._sent:
            chunk = _chunk_of(channel, track)
            if chunk in self._open:
                self._say(chunk, "reasoning", PART_BREAK, out)
        return track

    def _part_done(self, event: dict[str, Any], out: list[Piece]) -> bool:
        part, index = event.get("part"), event.get("output_index")
        channel = _PARTS.get(str(part.get("type"))) if type(part) is dict else None
        if channel is None or type(part) is not dict:
            return False
        number = event.get(channel.part)
        taken = self._full(channel, index, number, part.get(channel.full), out)
        if channel.kind != "reasoning":
            self._close(f"{index}:{channel.name}:{number if type(number) is int else 0}", out)
        return taken

    # --- calls ---

    def _call_delta(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index, text = event.get("output_index"), event.get("delta")
        call = self._call_at(index)
        if call is None or call.kind in _SPELLED or type(text) is not str:
            return False
        self._sent.note(f"{index}:call", text)
        self._add(f"{index}:call", text, out)
        return True

    def _call_done(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index, full = event.get("output_index"), event.get(_CALL_DONES[event["type"]])
        call = self._call_at(index)
        if call is None or call.kind in _SPELLED or type(full) is not str:
            return False
        self._add(f"{index}:call", self._sent.rest(f"{index}:call", full), out)
        return True

    def _patch(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index = event.get("output_index")
        call, track = self._call_at(index), f"{index}:call"
        ended = event["type"].endswith(".done")
        text = event.get("diff" if ended else "delta")
        if call is None or call.kind != "apply_patch_call" or type(text) is not str:
            return False
        if not (call.begun or call.prefix):
            return True  # what stands before the diff is not known: the finished item has it all
        if ended:
            text = self._sent.rest(track, text)
        else:
            self._sent.note(track, text)
        if text:
            self._add(track, calls.patch_text(call, text), out)
        return True

    def _command(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index, number = event.get("output_index"), event.get("command_index")
        call = self._call_at(index)
        text = event.get("delta" if event["type"].endswith(".delta") else "command")
        if call is None or call.kind != "shell_call" or type(text) is not str:
            return False
        if type(number) is not int or not 0 <= number <= call.commands:
            return False
        track = f"{index}:call:{number}"
        if event["type"].endswith(".delta"):
            self._sent.note(track, text)
        else:
            text = self._sent.rest(track, text)
        spelled = calls.command_text(call, number, text)
        if event["type"].endswith(".done"):
            spelled += calls.end_command(call, number)
        self._add(f"{index}:call", spelled, out)
        return True

    def _call_at(self, index: Any) -> CallItem | None:
        return self._items.get(index) if type(index) is int else None

    def _new_call(self, index: int, item: dict[str, Any], out: list[Piece]) -> CallItem:
        kind = text_or_empty(item.get("type"))
        form = calls.STREAMED[kind].format if kind in calls.STREAMED else "json"
        key = f"{index}:call"
        call = self._items[index] = CallItem(kind, text_or_none(item.get("id")))
        self._called = self._called or kind in calls.RUN_BY_CLIENT
        self._begin_call(key, calls.tool_name(item), calls.call_id(item), out, form=form)
        return call

    # --- items ---

    def _item_added(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index, item = event.get("output_index"), event.get("item")
        if type(index) is not int or type(item) is not dict:
            return False
        if index in self._done or index in self._items:
            return False
        self._need_step(None, out)
        kind = text_or_empty(item.get("type"))
        streamed = calls.STREAMED.get(kind)
        if streamed is None:
            return kind in ("message", "reasoning")
        if streamed.name is None and not item.get("name"):
            return False
        call = self._new_call(index, item, out)
        if kind == "apply_patch_call":
            calls.begin_patch(call, item.get("operation"))
        elif kind != "shell_call":
            text = text_or_empty(item.get(streamed.field))
            self._add(f"{index}:call", self._sent.rest(f"{index}:call", text), out)
        return True

    def _item_done(self, event: dict[str, Any], out: list[Piece]) -> bool:
        index, item = event.get("output_index"), event.get("item")
        if type(index) is not int or type(item) is not dict or index in self._done:
            return False
        return self._take_item(index, item, out)

    def _take_item(self, index: int, item: dict[str, Any], out: list[Piece]) -> bool:
        """Take an item that is known in full, and end its chunks."""
        self._need_step(None, out)
        kind = text_or_empty(item.get("type"))
        taken = True
        if kind == "message":
            self._take_parts(index, item.get("content"), out)
        elif kind == "reasoning":
            self._take_parts(index, item.get("summary"), out)
            self._take_parts(index, item.get("content"), out)
        elif calls.is_call(kind):
            self._take_call(index, kind, item, out)
        else:
            taken = False
        cut = item.get("status") == "incomplete"
        mine = f"{index}:"
        for key in [key for key in self._open if key.startswith(mine)]:
            self._close(key, out, cut=cut)
        self._sent.forget(mine)
        self._items.pop(index, None)
        self._done.add(index)
        return taken

    def _take_parts(self, index: int, parts: Any, out: list[Piece]) -> None:
        for number, part in enumerate(parts if type(parts) is list else ()):
            channel = _PARTS.get(str(part.get("type"))) if type(part) is dict else None
            if channel is not None:
                self._full(channel, index, number, part.get(channel.full), out)
            else:
                self.skipped += 1

    def _take_call(self, index: int, kind: str, item: dict[str, Any], out: list[Piece]) -> None:
        call = self._items.get(index) or self._new_call(index, item, out)
        track = f"{index}:call"
        if kind == "apply_patch_call":
            text = calls.end_patch(call, item.get("operation"), track, self._sent)
        elif kind == "shell_call":
            text = calls.end_shell(call, item.get("action"), track, self._sent)
        elif kind in calls.STREAMED:
            full = text_or_empty(item.get(calls.STREAMED[kind].field))
            text = self._sent.rest(track, full)
        else:
            text = calls.whole_arguments(item)
        self._add(track, text, out)

    # --- responses ---

    def _need_step(self, model: Any, out: list[Piece]) -> None:
        if not self._in_step:
            self._begin_step(model, out)

    def _created(self, event: dict[str, Any], out: list[Piece]) -> bool:
        response = event.get("response")
        response = response if type(response) is dict else {}
        response_id = text_or_none(response.get("id"))
        if self._in_step and self._id in (None, response_id):
            self._id = response_id
            return False
        if self._in_step:
            self._finish_step(out)
        self._id = response_id
        self._need_step(response.get("model"), out)
        return True

    def _ended(self, event: dict[str, Any], out: list[Piece]) -> bool:
        response = event.get("response")
        response = response if type(response) is dict else {}
        if not self._in_step and self._id is not None and self._id == response.get("id"):
            return False  # it ended before
        self._id = text_or_none(response.get("id"))
        self._need_step(response.get("model"), out)
        self._take_missing(response.get("output"), out)
        word = event["type"].removeprefix("response.")
        details = response.get("incomplete_details")
        if word != "completed" and type(details) is dict:
            word = text_or_none(details.get("reason")) or word
        reason = finish_reason(word)
        if reason == "stop" and self._called:
            reason = "tool_calls"
        usage = object_or_empty(response.get("usage"))
        self._end_step(reason, word, openai_responses_usage(usage) if usage else None, out)
        return True

    def _take_missing(self, output: Any, out: list[Piece]) -> None:
        """Take from a finished response the items that were not finished, or never came."""
        items = [item for item in output if type(item) is dict] if type(output) is list else []
        for index, call in list(self._items.items()):
            for item in items:
                if call.item_id is not None and call.item_id == item.get("id"):
                    self._take_item(index, item, out)
                    break
        if not self._done and not self._open:
            for index, item in enumerate(items):
                self._take_item(index, item, out)

    def _error(self, event: dict[str, Any], out: list[Piece]) -> bool:
        self._fail_step(event.get("error") or {**event, "type": None}, out)
        return True

    def _response_failed(self, event: dict[str, Any], out: list[Piece]) -> bool:
        response = event.get("response")
        response = response if type(response) is dict else {}
        self._need_step(response.get("model"), out)
        self._fail_step(response.get("error"), out)
        return True

    def _finish_step(self, out: list[Piece]) -> None:
        self._end_step(None, None, None, out)

    def _forget_step(self) -> None:
        self._called = False
        self._items.clear()
        self._done.clear()
        self._sent.clear()

    def _dump_step(self) -> CodecState:
        return {
            "id": self._id,
            "called": self._called,
            "items": [[index, *call.dump()] for index, call in self._items.items()],
            "done": sorted(self._done),
            "sent": self._sent.dump(),
        }

    def _load_step(self, state: CodecState) -> None:
        self._id = state["id"]
        self._called = state["called"]
        self._items = {index: CallItem.load(call) for index, *call in state["items"]}
        self._done = set(state["done"])
        self._sent.load(state["sent"])


def _chunk_of(channel: _Channel, track: str) -> str:
    """Name the chunk of a part: its own, or that of all the item's reasoning."""
    return track.rpartition(":")[0] if channel.kind == "reasoning" else track


_Handler = Callable[[OpenAIResponsesCodec, dict[str, Any], list[Piece]], bool]

# ruff: noqa: SLF001 - the table belongs to the class; it stands below because it names its methods
_HANDLERS: Mapping[str, _Handler] = {
    **dict.fromkeys(_DONES, OpenAIResponsesCodec._text_done),
    **dict.fromkeys(_CALL_DONES, OpenAIResponsesCodec._call_done),
    "response.content_part.done": OpenAIResponsesCodec._part_done,
    "response.reasoning_summary_part.done": OpenAIResponsesCodec._part_done,
    "response.apply_patch_call_operation_diff.delta": OpenAIResponsesCodec._patch,
    "response.apply_patch_call_operation_diff.done": OpenAIResponsesCodec._patch,
    "response.shell_call_command.added": OpenAIResponsesCodec._command,
    "response.shell_call_command.delta": OpenAIResponsesCodec._command,
    "response.shell_call_command.done": OpenAIResponsesCodec._command,
    "response.output_item.added": OpenAIResponsesCodec._item_added,
    "response.output_item.done": OpenAIResponsesCodec._item_done,
    "response.created": OpenAIResponsesCodec._created,
    "response.completed": OpenAIResponsesCodec._ended,
    "response.incomplete": OpenAIResponsesCodec._ended,
    "response.cancelled": OpenAIResponsesCodec._ended,
    "response.failed": OpenAIResponsesCodec._response_failed,
    "error": OpenAIResponsesCodec._error,
}
