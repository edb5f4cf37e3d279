"""Source `openai-responses`: the events of OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from riverdelta.core.codecs import responses_calls as calls
from riverdelta.core.codecs.arguments import Arguments
from riverdelta.core.codecs.delivered import Sent
from riverdelta.core.codecs.failures import find_failure, step_fail
from riverdelta.core.codecs.items import Group, Item, ItemBook, group_of
from riverdelta.core.codecs.json_text import encode
from riverdelta.core.codecs.old_states import upgrade_responses
from riverdelta.core.codecs.pieces import CodecState, Kind, Piece
from riverdelta.core.codecs.provider import ProviderCodec
from riverdelta.core.codecs.responses_calls import CallItem
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
    """The field of the `.done` event, and of the finished part, with the full text."""
    group: Group


_TEXT = _Channel("text", "text", "content_index", "text", "message")
_TRANSCRIPT = _Channel("text", "text", "content_index", "transcript", "message")
_REFUSAL = _Channel("refusal", "refusal", "content_index", "refusal", "message")
_REASONING = _Channel("reasoning", "reasoning", "content_index", "text", "reasoning")
_SUMMARY = _Channel("summary", "reasoning", "summary_index", "text", "reasoning")

_CHANNELS: Mapping[str, _Channel] = {
    "response.output_text": _TEXT,
    "response.text": _TEXT,
    "response.audio.transcript": _TRANSCRIPT,
    "response.audio_transcript": _TRANSCRIPT,
    "response.output_audio_transcript": _TRANSCRIPT,
    "response.refusal": _REFUSAL,
    "response.reasoning_text": _REASONING,
    "response.reasoning": _REASONING,
    "response.reasoning_summary_text": _SUMMARY,
    "response.reasoning_summary": _SUMMARY,
}
_DELTAS: Mapping[str, _Channel] = {f"{name}.delta": _CHANNELS[name] for name in _CHANNELS}
_DONES: Mapping[str, _Channel] = {f"{name}.done": _CHANNELS[name] for name in _CHANNELS}
_PARTS: Mapping[str, _Channel] = {
    "output_text": _TEXT,
    "text": _TEXT,
    "output_audio": _TRANSCRIPT,
    "audio": _TRANSCRIPT,
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
_ENCODED = ("apply_patch_call", "shell_call")

_STATUSES = frozenset({"completed", "incomplete", "failed", "cancelled"})
"""What a response can end as."""

_QUIET = frozenset({"keepalive", "ping"})
"""Known to carry nothing for a reader; so are those that only tell how far a provider's own tool is."""
_QUIET_ENDS = (
    ".annotation.added",
    ".audio.delta",
    ".audio.done",
    ".completed",
    ".failed",
    ".generating",
    ".in_progress",
    ".interpreting",
    ".partial_image",
    ".searching",
)


_PLAIN = frozenset(
    {
        "content_index",
        "delta",
        "item_id",
        "logprobs",
        "obfuscation",
        "output_index",
        "sequence_number",
        "summary_index",
        "type",
    }
)
"""Fields of a delta that only goes on with its text."""


class _Same(NamedTuple):
    """The delta that came last, for as long as nothing else comes: what was decided for it holds."""

    kind: str
    item_id: Any
    output_index: int
    part_field: str
    part: Any
    key: str
    """Of its chunk."""
    tracks: tuple[str, ...]


class OpenAIResponsesCodec(ProviderCodec):
    """
    A step per response, a chunk per content part of a message and per call.

    The summary of a reasoning item is one chunk, its parts joined by a blank line, and so is its
    full reasoning.

    Texts that come again in full (`.done`, the finished item, the finished response) add only what
    was not said yet. Which item an event is about: see `items`. A call's deltas count once its item
    was announced with a name; without that, the finished item gives it whole. A call that is not whole
    when its item is finished waits for the response's end.

    The response inside the last event says how it ended, not the event's name.
    """

    def __init__(self) -> None:
        super().__init__()
        self._id: str | None = None
        self._called = False
        self._items = ItemBook()
        self._sent = Sent()
        self._same: _Same | None = None

    def _more(self, document: Any) -> str | None:
        """Take another delta like the last one; see `ProviderCodec._more`."""
        same = self._same
        if same is None:
            return None
        kind, item_id, output_index, part_field, same_part, key, tracks = same
        try:
            text, index = document["delta"], document["output_index"]
            part = document.get(part_field)
            if (
                document["type"] != kind
                or document.get("item_id") != item_id
                or index != output_index
                or type(index) is not int
                or part != same_part
                or type(part) is not type(same_part)
                or type(text) is not str
                or not text
                or not _PLAIN.issuperset(document)
            ):
                return None
        except (KeyError, TypeError, AttributeError):
            return None  # not that shape
        arguments = self._open[key].arguments
        if arguments is not None:
            if arguments.whole:
                return None  # these may be those of another call
            arguments.feed(text)
        self._sent.note_all(tracks, text)
        self._more_key = key
        return text

    def _note_same(
        self, event: dict[str, Any], part_field: str, key: str, tracks: tuple[str, ...]
    ) -> None:
        """Note what was decided for a delta, if another one can be compared with it."""
        kind, index = event.get("type"), event.get("output_index")
        item_id, part = event.get("item_id"), event.get(part_field)
        if (
            type(kind) is str
            and kind
            and type(index) is int
            and type(part) in (int, type(None))
            and type(event.get("delta")) is str
        ):
            self._same = _Same(kind, item_id, index, part_field, part, key, tracks)

    def _knows(self, event: str) -> bool:
        return event.startswith("response.")

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        self._same = None
        kind = text_or_empty(document.get("type"))
        if not kind and (self._event == "error" or self._knows(self._event)):
            kind = self._event
        if document.get("object") == "response" and "response" not in document:
            document, kind = {"type": kind, "response": document}, "response.completed"
        elif not kind and type(document.get("response")) is dict:
            kind = f"response.{text_or_empty(document['response'].get('status'))}"
        failure = find_failure(
            document if document.get("type") == kind else {**document, "type": kind}
        )
        if failure is None and kind == "response.error":
            failure = step_fail({**document, "type": None})
        if failure is not None:
            self._fail(failure, out)
        elif self._failed and not self._in_step and kind != "response.created":
            self._skip(kind, lost=False)
        elif kind in _DELTAS:
            self._text_delta(_DELTAS[kind], document, out)
        elif kind in _CALL_DELTAS:
            self._call_delta(document, out)
        elif kind in _HANDLERS:
            _HANDLERS[kind](self, {**document, "type": kind}, out)
        else:
            self._skip(kind, lost=kind not in _QUIET and not kind.endswith(_QUIET_ENDS))

    # --- text ---

    def _text_delta(self, channel: _Channel, event: dict[str, Any], out: list[Piece]) -> None:
        value = event.get("delta", event.get("text"))
        text = text_of(value)
        if not text:
            if value != "":
                self._skip(event.get("type") or self._event)
            return
        item = self._item_of(channel.group, event, out)
        track = self._begin_part(channel, item, event.get(channel.part), text, out)
        tracks = (track, f"{item.number}:{channel.name}")
        self._sent.note_all(tracks, text)
        key = _chunk_of(channel, track)
        self._say(key, channel.kind, text, out)
        if self._open[key].kind == channel.kind:
            self._note_same(event, channel.part, key, tracks)

    def _text_done(self, event: dict[str, Any], out: list[Piece]) -> None:
        channel = _DONES[event["type"]]
        self._take_full(channel, event, event.get(channel.full, event.get("text")), out)

    def _take_full(
        self, channel: _Channel, event: dict[str, Any], value: Any, out: list[Piece]
    ) -> Item | None:
        full = text_of(value)
        if not full:
            self._skip(event["type"], lost=False)
            return None
        item = self._item_of(channel.group, event, out)
        self._full(channel, item, event.get(channel.part), full, out)
        return item

    def _full(self, channel: _Channel, item: Item, part: Any, full: str, out: list[Piece]) -> None:
        """Take a text that is known in full now."""
        if self._sent.is_all(f"{item.number}:{channel.name}", full):
            return  # said already, perhaps under another number
        track = self._begin_part(channel, item, part, full, out)
        rest = self._sent.rest(track, full)
        self._sent.note(f"{item.number}:{channel.name}", rest)
        self._say(_chunk_of(channel, track), channel.kind, rest, out)

    def _begin_part(
        self, channel: _Channel, item: Item, part: Any, text: str, out: list[Piece]
    ) -> str:
        """Name the track of a part; a later part of a reasoning item begins with a break."""
        track = f"{item.number}:{channel.name}:{index_or_none(part) or 0}"
        if channel.kind == "reasoning" and text and track not in self._sent:
            chunk = _chunk_of(channel, track)
            if chunk in self._open:
                self._say(chunk, "reasoning", PART_BREAK, out)
        return track

    def _part_done(self, event: dict[str, Any], out: list[Piece]) -> None:
        part = object_of(event.get("part"))
        channel = _PARTS.get(text_or_empty(part.get("type")))
        if channel is None:
            self._skip(event["type"])
            return
        item = self._take_full(channel, event, part.get(channel.full), out)
        if item is not None and channel.kind != "reasoning":
            number = index_or_none(event.get(channel.part)) or 0
            self._close(f"{item.number}:{channel.name}:{number}", out)

    # --- calls ---

    def _call_delta(self, event: dict[str, Any], out: list[Piece]) -> None:
        item, value = self._call_of(event), event.get("delta")
        text = value if type(value) is str else encode(value) if type(value) is dict else ""
        key = "" if item is None else f"{item.number}:call"
        begins_again = text.lstrip()[:1] == "{" and self._is_whole(key)
        if (
            key not in self._open
            or begins_again
            or (value is not None and not text and value != "")
        ):
            self._skip(event.get("type") or self._event)
            return
        self._sent.note(key, text)
        self._add(key, text, out)
        self._note_same(event, "content_index", key, (key,))

    def _call_done(self, event: dict[str, Any], out: list[Piece]) -> None:
        item, value = self._call_of(event), event.get(_CALL_DONES[event["type"]])
        key = "" if item is None else f"{item.number}:call"
        if key not in self._open or type(value) not in (str, dict):
            self._skip(event["type"], lost=False)
            return
        self._add(key, self._sent.rest(key, value if type(value) is str else encode(value)), out)

    def _call_of(self, event: dict[str, Any], kind: str = "") -> Item | None:
        """Find the call that an event is about; *kind*: its arguments are encoded by us, of this type."""
        index = index_or_none(event.get("output_index"))
        item_id, call_id = id_or_none(event.get("item_id")), id_or_none(event.get("call_id"))
        item = self._items.of_delta("call", index, item_id, call_id)
        if item is None or item.call is None:
            return None
        fits = item.call.kind == kind if kind else item.call.kind not in _ENCODED
        return item if fits else None

    def _patch(self, event: dict[str, Any], out: list[Piece]) -> None:
        item = self._call_of(event, "apply_patch_call")
        ended = event["type"].endswith(".done")
        text = event.get("diff" if ended else "delta")
        if item is None or item.call is None or type(text) is not str:
            self._skip(event["type"])
            return
        if not (item.call.begun or item.call.prefix):
            return  # what stands before the diff is not known: the finished item has it all
        track = f"{item.number}:call"
        if ended:
            text = self._sent.rest(track, text)
        else:
            self._sent.note(track, text)
        if text and track in self._open:
            self._add(track, calls.patch_text(item.call, text), out)

    def _command(self, event: dict[str, Any], out: list[Piece]) -> None:
        item, number = self._call_of(event, "shell_call"), index_or_none(event.get("command_index"))
        text = event.get("delta" if event["type"].endswith(".delta") else "command")
        call = None if item is None else item.call
        known = number is not None and call is not None and 0 <= number <= call.commands
        if item is None or call is None or number is None or not known or type(text) is not str:
            self._skip(event["type"])
            return
        track = f"{item.number}:call:{number}"
        if event["type"].endswith(".delta"):
            self._sent.note(track, text)
        else:
            text = self._sent.rest(track, text)
        encoded = calls.command_text(call, number, text)
        if event["type"].endswith(".done"):
            encoded += calls.end_command(call, number)
        if f"{item.number}:call" in self._open:
            self._add(f"{item.number}:call", encoded, out)

    def _start_call(self, item: Item, data: dict[str, Any], out: list[Piece]) -> CallItem:
        kind = text_or_empty(data.get("type"))
        form = calls.STREAMED[kind].format if kind in calls.STREAMED else "json"
        name = calls.tool_name(data)
        item.call, item.call_id = CallItem(kind, name), id_or_none(data.get("call_id"))
        self._called = self._called or kind in calls.RUN_BY_CLIENT
        self._begin_call(f"{item.number}:call", name, calls.call_id(data), out, form=form)
        return item.call

    # --- items ---

    def _item_of(self, group: Group, event: dict[str, Any], out: list[Piece]) -> Item:
        """Find the item of a text, or begin it."""
        self._need_step(None, out)
        index, item_id = (
            index_or_none(event.get("output_index")),
            id_or_none(event.get("item_id")),
        )
        found = self._items.of_delta(group, index, item_id)
        return found or self._items.begin(group, index, item_id)

    def _item_added(self, event: dict[str, Any], out: list[Piece]) -> None:
        data, index = object_of(event.get("item")), index_or_none(event.get("output_index"))
        group = group_of(data)
        if group is None:
            kind = text_or_empty(data.get("type"))
            self._skip(kind or event["type"], lost=not kind.endswith("_output"))
            return
        self._need_step(None, out)
        item = self._items.of_item(group, index, data)
        if item is not None and not item.done and not (group == "call" and item.call is None):
            self._skip(event["type"], lost=False)  # the same start again
            return
        item_id = id_or_none(data.get("id"))
        if item is None or item.done:
            item = self._items.begin(group, index, item_id)
        if group == "call":
            self._call_added(item, data, out)
        else:
            self._take_texts(item, data, out)

    def _call_added(self, item: Item, data: dict[str, Any], out: list[Piece]) -> None:
        kind = text_or_empty(data.get("type"))
        streamed = calls.STREAMED.get(kind)
        item.call_id = id_or_none(data.get("call_id"))
        if streamed is None or (streamed.name is None and not data.get("name")):
            return  # it comes whole, when it is finished
        call = self._start_call(item, data, out)
        if kind == "apply_patch_call":
            calls.begin_patch(call, data.get("operation"))
        elif kind != "shell_call":
            self._first_arguments(item, _arguments(data.get(streamed.field)), out)

    def _first_arguments(self, item: Item, text: str, out: list[Piece]) -> None:
        """Take the arguments in a call's start; those that are whole stand back if deltas come."""
        key = f"{item.number}:call"
        chunk = self._open[key]
        if chunk.arguments is not None and text.strip() and Arguments.of(text).whole:
            chunk.unsaid = text
        else:
            self._add(key, self._sent.rest(key, text), out)

    def _part_added(self, event: dict[str, Any], out: list[Piece]) -> None:
        """Take the text that a part has from its start; most have none."""
        part = object_of(event.get("part"))
        channel = _PARTS.get(text_or_empty(part.get("type")))
        if channel is None or not text_of(part.get(channel.full)):
            self._skip(event["type"], lost=False)
        else:
            self._take_full(channel, event, part.get(channel.full), out)

    def _item_done(self, event: dict[str, Any], out: list[Piece]) -> None:
        data, index = object_of(event.get("item")), index_or_none(event.get("output_index"))
        group = group_of(data)
        if group is None:
            kind = text_or_empty(data.get("type"))
            self._skip(kind or event["type"], lost=not kind.endswith("_output"))
            return
        self._need_step(None, out)
        item = self._items.of_item(group, index, data)
        if item is None:
            item = self._items.begin(group, index, id_or_none(data.get("id")))
        self._take_item(item, data, out)

    def _take_item(self, item: Item, data: dict[str, Any], out: list[Piece]) -> None:
        """Take an item that is known in full, and end its chunks."""
        item.cut = data.get("status") == "incomplete"
        if item.group == "call":
            self._take_call(item, data, out)
        else:
            self._take_texts(item, data, out)
        item.done = True
        mine = f"{item.number}:"
        for key in [key for key in self._open if key.startswith(mine)]:
            if item.group != "call" or self._is_whole(key) or not self._is_json(item):
                self._close(key, out, cut=item.cut)

    def _is_json(self, item: Item) -> bool:
        chunk = self._open.get(f"{item.number}:call")
        return chunk is not None and chunk.arguments is not None

    def _take_texts(self, item: Item, data: dict[str, Any], out: list[Piece]) -> None:
        if item.group == "reasoning":
            self._take_parts(item, data.get("summary"), _SUMMARY, out)
            self._take_parts(item, data.get("content"), _REASONING, out)
        else:
            self._take_parts(item, data.get("content"), _TEXT, out)

    def _take_parts(self, item: Item, parts: Any, usual: _Channel, out: list[Piece]) -> None:
        found: list[tuple[_Channel, int, str]] = []
        parts = [parts] if type(parts) is str and parts else objects_of(parts)
        for number, part in enumerate(parts):
            channel = _channel_of(part, usual)
            text = "" if channel is None else text_of(part)
            if channel is None:
                self._skip(text_or_empty(object_of(part).get("type")) or "part")
            elif text:
                found.append((channel, number, text))
        for name in {channel.name for channel, _, _ in found}:
            joined = "".join(text for channel, _, text in found if channel.name == name)
            if self._sent.is_all(f"{item.number}:{name}", joined):
                found = [one for one in found if one[0].name != name]
        for channel, number, text in found:
            self._full(channel, item, number, text, out)

    def _take_call(self, item: Item, data: dict[str, Any], out: list[Piece]) -> None:
        kind = text_or_empty(data.get("type"))
        key = f"{item.number}:call"
        if item.call is None:
            self._start_call(item, data, out)
        if item.call is None or key not in self._open:
            return  # it is over
        if kind == "apply_patch_call":
            text = calls.end_patch(item.call, data.get("operation"), key, self._sent)
        elif kind == "shell_call":
            text = calls.end_shell(item.call, data.get("action"), key, self._sent)
        elif kind in calls.STREAMED:
            text = self._sent.rest(key, _arguments(data.get(calls.STREAMED[kind].field)))
        else:
            text = self._sent.rest(key, calls.whole_arguments(data))
        self._add(key, text, out)

    # --- responses ---

    def _need_step(self, model: Any, out: list[Piece]) -> None:
        if not self._in_step:
            self._begin_step(model, out)

    def _created(self, event: dict[str, Any], out: list[Piece]) -> None:
        response = object_of(event.get("response"))
        response_id = id_or_none(response.get("id"))
        again = self._id in (None, response_id) or event["type"] != "response.created"
        if self._in_step and again:
            self._id = self._id or response_id
            self._skip(event["type"], lost=False)
            return
        over = not self._in_step and self._id is not None and self._id == response_id
        if over and event["type"] != "response.created":
            self._skip(event["type"], lost=False)  # of a response that is over
            return
        if self._in_step:
            self._finish_step(out)
        self._id = response_id
        self._need_step(response.get("model"), out)
        for index, item in enumerate(objects_of(response.get("output"))):
            added = {"type": "response.output_item.added", "output_index": index, "item": item}
            self._item_added(added, out)

    def _ended(self, event: dict[str, Any], out: list[Piece]) -> None:
        response = object_of(event.get("response"))
        if not self._in_step and self._id is not None and self._id == response.get("id"):
            self._skip(event["type"], lost=False)  # it ended before
            return
        self._id = id_or_none(response.get("id"))
        self._need_step(response.get("model"), out)
        word = _end_of(event["type"], response)
        error = response.get("error")
        reason = finish_reason(word)
        self._take_output(response.get("output"), out)
        if error or word == "failed":
            self._fail_step(error or response.get("incomplete_details"), out)
            return
        for item in self._items:
            if item.cut:
                self._close(f"{item.number}:call", out, cut=True)
        if reason == "stop" and self._called:
            reason = "tool_calls"
        usage = find_usage(response, event)
        self._end_step(reason, word, openai_responses_usage(usage) if usage else None, out)

    def _take_output(self, output: Any, out: list[Piece]) -> None:
        """Take from a finished response each item, or rest of one, that was not said yet."""
        output = [data for data in objects_of(output) if type(data) is dict]
        items = [data for data in output if group_of(data) is not None]
        for _ in range(len(output) - len(items)):
            self._skip("output", lost=False)
        texts_said = self._has_said_texts(items)
        found = self._items.of_output(items, self._has_said)
        for index, (known, data) in enumerate(zip(found, items, strict=True)):
            group = group_of(data)
            if texts_said and group == "message":
                continue
            if known is not None and known.group != "old":
                self._take_item(known, data, out)
            elif known is None and group is not None:
                item = self._items.begin(group, index, id_or_none(data.get("id")))
                self._take_item(item, data, out)

    def _has_said_texts(self, output: list[dict[str, Any]]) -> bool:
        """Whether all texts of *output* were said, even if nothing tells which item said which."""
        parts = [
            part
            for data in output
            if group_of(data) == "message"
            for part in objects_of(data.get("content"))
        ]
        channels = [_channel_of(part, _TEXT) for part in parts]
        if not parts or any(channel is None or channel.name != "text" for channel in channels):
            return False
        full, end = "".join(map(text_of, parts)), 0
        for item in self._items:
            if item.group == "message":
                place = self._sent.end_in(f"{item.number}:text", full, end)
                if place is None:
                    return False
                end = place
        return 0 < end == len(full)

    def _has_said(self, item: Item, data: dict[str, Any]) -> bool:
        """Whether all that *item* said is the beginning of what *data* says."""
        if item.group == "old":
            return False
        if item.group == "call":
            field = calls.STREAMED.get(text_or_empty(data.get("type")))
            full = "" if field is None else _arguments(data.get(field.field))
            return self._sent.begins(f"{item.number}:call", full)
        if item.group == "message":
            return self._sent.begins(f"{item.number}:text", text_of(data.get("content")))
        said = [text_of(data.get("summary")), text_of(data.get("content"))]
        return all(
            self._sent.begins(f"{item.number}:{name}", full)
            for name, full in zip(("summary", "reasoning"), said, strict=True)
        )

    def _finish_step(self, out: list[Piece]) -> None:
        self._end_step(None, None, None, out)

    def _forget_step(self) -> None:
        self._called = False
        self._same = None
        self._items.clear()
        self._sent.clear()

    def _upgrade(self, state: CodecState) -> CodecState:
        return upgrade_responses(state)

    def _dump_step(self) -> CodecState:
        return {
            "id": self._id,
            "called": self._called,
            "items": self._items.dump(),
            "sent": self._sent.dump(),
        }

    def _load_step(self, state: CodecState) -> None:
        self._id = state["id"]
        self._called = state["called"]
        self._items.load(state["items"])
        self._sent.load(state["sent"])


def _chunk_of(channel: _Channel, track: str) -> str:
    """Name the chunk of a part: its own, or that of all the item's reasoning."""
    return track.rpartition(":")[0] if channel.kind == "reasoning" else track


def _channel_of(part: Any, usual: _Channel) -> _Channel | None:
    """Tell where the text of a part in a finished item belongs; None: it is no text."""
    if type(part) is str:
        return usual
    part = object_of(part)
    name = text_or_empty(part.get("type"))
    known = _PARTS.get(name)
    if known is not None:
        return usual if known.group != usual.group else known
    return usual if type(part.get("text")) is str else None


def _arguments(value: Any) -> str:
    """Read arguments: text, or an object, which is encoded."""
    return encode(value) if type(value) in (dict, list) else text_or_empty(value)


def _end_of(kind: str, response: dict[str, Any]) -> str:
    """Name the end of a response: by its own words, else by those of the event."""
    word = kind.removeprefix("response.")
    word = word if word in _STATUSES else "completed"
    status = text_or_empty(response.get("status"))
    if status in _STATUSES and word != "failed":
        word = status
    details = response.get("incomplete_details")
    if word != "failed" and details:
        reason = text_or_none(object_of(details).get("reason"))
        return reason or ("incomplete" if word == "completed" else word)
    return word


_Handler = Callable[[OpenAIResponsesCodec, dict[str, Any], list[Piece]], None]

# ruff: noqa: SLF001 - the table belongs to the class; it stands below because it names its methods
_HANDLERS: Mapping[str, _Handler] = {
    **dict.fromkeys(_DONES, OpenAIResponsesCodec._text_done),
    **dict.fromkeys(_CALL_DONES, OpenAIResponsesCodec._call_done),
    "response.content_part.added": OpenAIResponsesCodec._part_added,
    "response.reasoning_summary_part.added": OpenAIResponsesCodec._part_added,
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
    "response.queued": OpenAIResponsesCodec._created,
    "response.in_progress": OpenAIResponsesCodec._created,
    "response.completed": OpenAIResponsesCodec._ended,
    "response.done": OpenAIResponsesCodec._ended,
    "response.incomplete": OpenAIResponsesCodec._ended,
    "response.cancelled": OpenAIResponsesCodec._ended,
    "response.failed": OpenAIResponsesCodec._ended,
}
