"""Source `openai-chat`: chat.completion.chunk objects, of OpenAI and those compatible with it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson

from riverdelta.core.codecs.json_text import object_or_empty, spell
from riverdelta.core.codecs.pieces import (
    CodecState,
    Format,
    Piece,
    Run,
    Text,
    Usage,
)
from riverdelta.core.codecs.provider import ProviderCodec
from riverdelta.core.codecs.surrogates import join_halves
from riverdelta.core.codecs.texts import text_or_empty, text_or_none
from riverdelta.core.codecs.usage import finish_reason, openai_chat_usage

_LEGACY_CALL = -1
"""Index of a `function_call`, the form before tools; it has no id."""

_loads = orjson.loads


class _Call:
    """A tool call of the open step."""

    __slots__ = ("call_id", "custom", "held", "key", "name")

    def __init__(self, key: str, *, custom: bool) -> None:
        self.key = key
        self.custom = custom
        self.call_id: str | None = None
        self.name: str | None = None
        self.held: str | None = ""
        """Arguments that wait for the name, without which they are no use. None: it began."""


class OpenAIChatCodec(ProviderCodec):
    """
    One text, one reasoning and one refusal chunk per step, a chunk per tool call.

    All end, in the order they began, where the finish reason comes. Then the step waits for its
    usage: in the same chunk, in one without choices, or until `[DONE]`, a new step or the
    producer's end shows that there is none.

    A tool call begins when its name is known and its id too, or arguments show that the id is
    late; an id later than that is only remembered. Only choice 0 is read.
    """

    def __init__(self) -> None:
        super().__init__()
        self._id = ""
        self._finish: str | None = None
        self._usage: dict[str, Any] = {}
        self._calls: dict[int, _Call] = {}

    def decode(self, raw: bytes) -> list[Piece]:
        """Take one raw chunk; see `Codec.decode`."""
        try:
            document = _loads(raw)
        except ValueError as error:
            return self._decode_odd(raw, error)
        text = self._only_text(document)
        return self._said(document) if text is None else [Text("text", text)]

    def decode_run(self, raws: Iterator[bytes]) -> Run:
        """Take raw chunks as long as they are more text; see `Codec.decode_run`."""
        texts: list[str] = []
        for raw in raws:
            try:
                document = _loads(raw)
            except ValueError as error:
                return "text", texts, self._decode_odd(raw, error)
            text = self._only_text(document)
            if text is None:
                return "text", texts, self._said(document)
            texts.append(text)
        return "text", texts, None

    def _only_text(self, document: Any) -> str | None:
        """
        Return the text of a chunk that only goes on with the open text; None for any other.

        Nearly every chunk of a reply is one, and is checked in full here, in a few lookups; all
        others, and all surprises, go the long way.
        """
        try:
            (choice,) = document["choices"]
            delta = choice["delta"]
            text = delta["content"]
            if (
                (len(delta) == 1 or not _says_more(delta))
                and type(text) is str
                and text
                and "text" in self._open
                and document["id"] == self._id
                and choice["index"] == 0
                and not choice.get("finish_reason")
                and not document.get("usage")
                and "error" not in document
                and not self._halves
            ):
                return text
        except (KeyError, TypeError, ValueError, AttributeError):
            pass  # not that shape
        return None

    def _said(self, document: Any) -> list[Piece]:
        out = self._pieces_of(document)
        return join_halves(out, self._halves) if self._halves else out

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        seen, skipped = len(out), 0
        choices = document.get("choices")
        choices = choices if type(choices) is list else []
        for choice in choices:
            if type(choice) is dict and choice.get("index") in (0, None):
                skipped += not self._choice(document, choice, out)
            else:
                skipped += 1
        error = document.get("error")
        if error:
            self._fail_step(error, out)
            return
        usage = object_or_empty(document.get("usage"))
        if usage and self._in_step:
            self._usage = usage
            if self._finish is not None:
                self._end(out)
        elif not choices and len(out) == seen:
            skipped += 1
        self.skipped += skipped

    def _choice(self, document: dict[str, Any], choice: dict[str, Any], out: list[Piece]) -> bool:
        """Take choice 0 of a chunk; False: it said nothing."""
        delta = choice.get("delta")
        delta = delta if type(delta) is dict else {}
        finish = text_or_none(choice.get("finish_reason"))
        payload = bool(delta.get("content")) or _says_more(delta)
        role = bool(delta.get("role"))
        goes_on = self._in_step and self._finish is None and document.get("id") == self._id
        if not goes_on and not self._enter_step(
            document, out, payload=payload, role=role, ends=bool(finish)
        ):
            return False
        if payload:
            self._delta(delta, out)
        if finish is not None:
            if self._finish is None:
                self._finish = finish
            self._open_late_calls(out)
            self._close_all(out)
            self._calls.clear()
        return payload or role or finish is not None

    def _enter_step(
        self, document: dict[str, Any], out: list[Piece], *, payload: bool, role: bool, ends: bool
    ) -> bool:
        """Decide which step a chunk belongs to, and begin it if it is new. False: to none."""
        new_id = text_or_empty(document.get("id"))
        other = bool(new_id) and new_id != self._id
        if not self._in_step:
            # A straggler of the step that just ended must not begin another one.
            begins = payload or ((role or ends) and (other or not self._id))
        elif self._finish is not None:
            nameless = not new_id and role and not document.get("usage")
            begins = (other and (payload or role)) or nameless
        else:
            begins = other and role and bool(self._id)
        if begins:
            if self._in_step:
                self._finish_step(out)
            self._id = new_id
            self._begin_step(document.get("model"), out)
        elif self._in_step and not self._id:
            self._id = new_id
        return self._in_step

    def _delta(self, delta: dict[str, Any], out: list[Piece]) -> None:
        reasoning = delta.get("reasoning_content") or delta.get("reasoning")
        if type(reasoning) is str:
            self._say("reasoning", "reasoning", reasoning, out)
        content = delta.get("content")
        if type(content) is str:
            self._say("text", "text", content, out)
        elif type(content) is list:
            self._parts(content, out)
        self._say("refusal", "refusal", text_or_empty(delta.get("refusal")), out)
        calls = delta.get("tool_calls")
        for position, call in enumerate(calls if type(calls) is list else ()):
            if type(call) is dict:
                index = call.get("index")
                self._call(index if type(index) is int else position, call, out)
            else:
                self.skipped += 1
        legacy = delta.get("function_call")
        if type(legacy) is dict:
            self._call(_LEGACY_CALL, {"function": legacy}, out)

    def _parts(self, parts: list[Any], out: list[Piece]) -> None:
        """Take content spelled as a list of typed parts, as Mistral does."""
        for part in parts:
            kind = part.get("type") if type(part) is dict else None
            if kind == "text":
                self._say("text", "text", text_or_empty(part.get("text")), out)
            elif kind == "thinking":
                self._say("reasoning", "reasoning", _thinking(part.get("thinking")), out)
            else:
                self.skipped += 1

    def _call(self, index: int, delta: dict[str, Any], out: list[Piece]) -> None:
        custom = delta.get("type") == "custom" or type(delta.get("custom")) is dict
        spoken = delta.get("custom" if custom else "function")
        spoken = spoken if type(spoken) is dict else {}
        call_id = text_or_none(delta.get("id"))
        name = text_or_none(spoken.get("name"))
        call = self._calls.get(index)
        if call is not None and call_id and call.call_id and call_id != call.call_id:
            self._start_call(call, out)
            self._close(call.key, out)
            call = None
        if call is None:
            call = self._calls[index] = _Call(f"tool:{index}", custom=custom)
        if call.held is not None and not call.held and not call.name:
            call.custom = call.custom or custom
        call.call_id = call.call_id or call_id
        call.name = call.name or name
        text = _arguments(spoken.get("input" if call.custom else "arguments"))
        if call.held is None:
            self._add(call.key, text, out)
            return
        call.held += text
        if call.name and (call.call_id or call.held):
            self._start_call(call, out)

    def _start_call(self, call: _Call, out: list[Piece]) -> None:
        """Begin the chunk of a call, with what it held back; nothing to do if it has begun."""
        if call.held is None:
            return
        held, call.held = call.held, None
        form: Format = "text" if call.custom else "json"
        self._begin_call(call.key, call.name, call.call_id, out, form=form)
        self._add(call.key, held, out)

    def _open_late_calls(self, out: list[Piece]) -> None:
        for call in self._calls.values():
            if call.name or call.call_id or call.held:
                self._start_call(call, out)

    def _done_marker(self, out: list[Piece]) -> None:
        """`[DONE]` ends a step that waits for its usage, and one whose finish reason never came."""
        if self._in_step:
            self._end(out)
        else:
            self.skipped += 1

    def _end(self, out: list[Piece]) -> None:
        self._open_late_calls(out)
        self._end_step(finish_reason(self._finish), self._finish, self._known_usage(), out)

    def _finish_step(self, out: list[Piece]) -> None:
        if self._finish is not None:
            self._end(out)
            return
        self._open_late_calls(out)
        self._end_step(None, None, self._known_usage(), out)

    def _known_usage(self) -> Usage | None:
        return openai_chat_usage(self._usage) if self._usage else None

    def _forget_step(self) -> None:
        self._finish = None
        self._usage = {}
        self._calls.clear()

    def _dump_step(self) -> CodecState:
        return {
            "id": self._id,
            "finish": self._finish,
            "usage": self._usage,
            "calls": [
                [index, call.key, call.custom, call.call_id, call.name, call.held]
                for index, call in self._calls.items()
            ],
        }

    def _load_step(self, state: CodecState) -> None:
        self._id = state["id"]
        self._finish = state["finish"]
        self._usage = state["usage"]
        self._calls = {}
        for index, key, custom, call_id, name, held in state["calls"]:
            call = self._calls[index] = _Call(key, custom=custom)
            call.call_id, call.name, call.held = call_id, name, held


def _says_more(delta: dict[str, Any]) -> bool:
    """Tell whether a delta has anything for a reader but its content."""
    get = delta.get
    return bool(
        get("reasoning_content")
        or get("tool_calls")
        or get("reasoning")
        or get("refusal")
        or get("function_call")
    )


def _arguments(value: Any) -> str:
    """Pass text; some give the arguments as the object they spell, all at once."""
    return spell(value) if type(value) is dict else text_or_empty(value)


def _thinking(value: Any) -> str:
    if type(value) is list:
        parts = (part.get("text") for part in value if type(part) is dict)
        return "".join(text_or_empty(text) for text in parts)
    return text_or_empty(value)
