"""Source `gemini`: GenerateContentResponse objects of Google's Gemini API and of Vertex AI."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

from riverdelta.core.codecs.choices import Choices
from riverdelta.core.codecs.failures import find_failure
from riverdelta.core.codecs.json_text import encode, object_or_empty
from riverdelta.core.codecs.path_writer import PathWriter, parse_path
from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkStart,
    CodecState,
    Kind,
    Piece,
    Rejected,
    StepFail,
    Text,
)
from riverdelta.core.codecs.provider import ProviderCodec
from riverdelta.core.codecs.texts import (
    index_or_none,
    object_of,
    objects_of,
    text_of,
    text_or_empty,
    text_or_none,
)
from riverdelta.core.codecs.usage import finish_reason, finish_word, gemini_usage

CODE_EXECUTION = "code_execution"
"""Name of the tool that runs the model's code on Google's side."""

_NUMBERED = {1: "STOP", 2: "MAX_TOKENS", 3: "SAFETY", 4: "RECITATION", 5: "OTHER"}
"""Finish reasons that protobuf's own JSON gives as numbers; the later ones differ between APIs."""

_NOT_TAKEN = ("inlineData", "fileData")
"""Payloads of a part that no chunk can hold: they are counted."""

_BESIDE = ("groundingMetadata", "citationMetadata", "urlContextMetadata")
"""Payloads of a candidate that no chunk can hold: they are counted."""

_PLAIN = frozenset({"candidates", "createTime", "modelVersion", "responseId", "usageMetadata"})
_PLAIN_CANDIDATE = frozenset({"content", "index"})
_PLAIN_CONTENT = frozenset({"parts", "role"})
_PLAIN_PART = frozenset({"text", "thought"})
"""Fields of a chunk that only goes on with a text."""

_EXACT = 1 << 53
"""A double holds every integer below this."""

_VALUES = ("stringValue", "numberValue", "boolValue", "nullValue")


class _Call:
    """A function call whose arguments come in parts."""

    __slots__ = ("broken", "call_id", "key", "name", "writer")

    def __init__(self, key: str, name: str, call_id: str | None) -> None:
        self.key = key
        self.name = name
        self.call_id = call_id
        self.writer = PathWriter()
        self.broken = False
        """A part of its arguments is lost: it must not look complete."""

    def dump(self) -> list[Any]:
        """Encode it as JSON values, in the order `load` takes them."""
        return [self.key, self.name, self.call_id, self.broken, self.writer.dump()]

    @classmethod
    def load(cls, state: list[Any]) -> _Call:
        """Undo `dump`."""
        call = cls(state[0], state[1], state[2])
        call.broken, call.writer = state[3], PathWriter.load(state[4])
        return call


class GeminiCodec(ProviderCodec):
    """
    A step per response; neighbouring texts of one kind are one chunk, a call is one of its own.

    The response has no end event, and some models give a finish reason in every chunk. So a step
    goes on until another response begins, a `[DONE]` or the producer's end comes. The last finish
    reason and the last usage count.

    A call that comes whole is whole. One that comes in parts ends with its last part; if that does
    not come, or a part cannot be used, its JSON stays open. Field names may be those of the
    REST API (`finishReason`) or those of Python's SDK (`finish_reason`).
    """

    def __init__(self) -> None:
        super().__init__()
        self._id: str | None = None
        self._settled = False
        """Two chunks in a row had the same id: another id is another response."""
        self._choices = Choices()
        self._blocks = 0
        self._text: tuple[str, Kind] | None = None
        """Key and kind of the text that is being written."""
        self._call: _Call | None = None
        self._called = False
        self._finish: str | None = None
        self._finish_message = ""
        self._blocked = False
        self._usage: dict[str, Any] = {}

    def _more(self, document: Any) -> str | None:
        """Take more of the open text; see `ProviderCodec._more`."""
        if self._text is None or not self._settled or not self._in_step:
            return None
        try:
            (candidate,) = document["candidates"]
            content = candidate["content"]
            (part,) = content["parts"]
            text = part["text"]
            if (
                document["responseId"] != self._id
                or not _PLAIN.issuperset(document)
                or not _PLAIN_CANDIDATE.issuperset(candidate)
                or not _PLAIN_CONTENT.issuperset(content)
                or not _PLAIN_PART.issuperset(part)
                or type(text) is not str
                or not text
                or not self._choices.reads(_number(candidate))
            ):
                return None
        except (KeyError, TypeError, ValueError, AttributeError):
            return None  # not that shape
        key, kind = self._text
        chunk = self._open.get(key)
        said: Kind = "reasoning" if part.get("thought") is True else "text"
        if chunk is None or chunk.kind != kind or kind != said:
            return None
        self._note_usage(document.get("usageMetadata"))
        self._more_key = key
        return text

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        wrapped = document.get("response")
        if type(wrapped) is dict and "candidates" not in document:
            document = wrapped  # as Google's Code Assist sends it
        feedback = object_of(_field(document, "promptFeedback"))
        block = _reason(_field(feedback, "blockReason"))
        candidates = [
            (candidate, self._read_parts(candidate), _reason(_field(candidate, "finishReason")))
            for candidate in self._read_candidates(document.get("candidates"))
        ]
        says = bool(block) or any(parts or finish for _, parts, finish in candidates)
        skipped, taken = self.skipped, False
        if (candidates or block) and self._enter_step(document, out, says=says):
            taken = says
            for candidate, parts, finish in candidates:
                self._take_candidate(candidate, parts, finish, out)
            if block:
                self._block(block, feedback)
        taken |= self._note_usage(_field(document, "usageMetadata"))
        taken |= self.skipped > skipped
        taken |= bool(objects_of(document.get("candidates")) and not candidates)
        failure = find_failure(document)
        if failure is not None:
            self._fail(_named_by_status(failure, document), out)
        elif not taken:
            self._skip("chunk", lost=says or not candidates)

    def _take_candidate(
        self,
        candidate: dict[str, Any],
        parts: list[dict[str, Any]],
        finish: str | None,
        out: list[Piece],
    ) -> None:
        for part in parts:
            self._part(part, out)
        self._note_finish(candidate, finish)
        for name in _BESIDE:
            if _field(candidate, name):
                self._skip(name)

    def _read_candidates(self, candidates: Any) -> list[dict[str, Any]]:
        """Pick the candidates that are part of the answer; see `choices`. The others are counted."""
        found = []
        candidates = objects_of(candidates)
        shown = self._in_step and self._shown
        self._choices.see([{"index": _number(one)} for one in candidates if type(one) is dict])
        for one in candidates:
            if type(one) is not dict or not one:
                if one:
                    self._skip("candidate")
                continue
            said = bool(one.get("content"))
            verdict = self._choices.judge(_number(one), said=said, shown=shown)
            if verdict == "read":
                found.append(one)
            elif verdict == "hold":
                encode(one)  # refuses what is nested too deeply to be kept
                self._choices.hold(_number(one), json.dumps(one), ends=self._finish is not None)
            else:
                self._skip("candidate")
        return self._take_held() + found

    def _take_held(self) -> list[dict[str, Any]]:
        held = [json.loads(one) for one in self._choices.take_held()]
        for _ in range(self._choices.take_dropped()):
            self._skip("candidate")
        return held

    def _read_parts(self, candidate: dict[str, Any]) -> list[dict[str, Any]]:
        """List the parts of a candidate that hold anything; what has a wrong shape is counted."""
        content = candidate.get("content")
        parts = content.get("parts") if type(content) is dict else content
        found = []
        for part in parts if type(parts) is list else [parts]:
            if type(part) is str:
                found.append({"text": part})
            elif type(part) is dict:
                found.append(part)
            elif part is not None:
                self._skip("part")
        return [part for part in found if _holds_anything(part)]

    def _enter_step(self, document: dict[str, Any], out: list[Piece], *, says: bool) -> bool:
        """Decide which response a chunk belongs to, and begin its step. False: to one that ended."""
        new_id = text_or_none(_field(document, "responseId"))
        other = new_id is not None and self._id is not None and new_id != self._id
        if self._in_step and says and other and (self._settled or self._finish is not None):
            self._finish_step(out)
        if not self._in_step:
            if not other and (self._failed or (not says and self._id is not None)):
                return False
            self._settled = False
            self._begin_step(_field(document, "modelVersion"), out)
        elif new_id is not None:
            self._settled |= new_id == self._id
        self._id = new_id or self._id
        return True

    # -- parts -----------------------------------------------------------------------------------

    def _part(self, part: dict[str, Any], out: list[Piece]) -> None:
        taken = self._text_part(part, out)
        call = _field(part, "functionCall")
        if type(call) is dict:
            self._function_call(call, out)
            taken = True
        for name, take in (
            ("executableCode", self._code),
            ("codeExecutionResult", self._code_result),
            ("toolCall", self._tool_call),
            ("toolResponse", self._tool_response),
            ("functionResponse", self._tool_response),
        ):
            value = _field(part, name)
            if type(value) is dict:
                take(value, out)
                taken = True
        for name in _NOT_TAKEN:
            if _field(part, name):
                self._skip(name)
                taken = True
        if not taken:  # above all the signature of a thought
            self._skip("part", lost=not _field(part, "thoughtSignature"))

    def _text_part(self, part: dict[str, Any], out: list[Piece]) -> bool:
        text = text_of(part.get("text"))
        if not text:  # the words of an audio part
            text = text_of(_field(part, "audioTranscription"))
        if not text:
            return False
        kind: Kind = "reasoning" if part.get("thought") is True else "text"
        if self._text is None or self._text[1] != kind:
            self._end_text(out)
            self._text = (self._new_key(), kind)
        self._say(*self._text, text, out)
        return True

    def _end_text(self, out: list[Piece]) -> None:
        if self._text is not None:
            self._close(self._text[0], out)
            self._text = None

    def _whole_call(
        self, name: str | None, call_id: str | None, text: str, out: list[Piece]
    ) -> None:
        """Add a call that comes at once."""
        self._end_text(out)
        key = self._new_key()
        self._begin_call(key, name, call_id, out, unsaid=text)
        self._close(key, out)

    def _whole_result(
        self, name: str | None, call_id: str | None, text: str, out: list[Piece]
    ) -> None:
        self._end_text(out)
        self._shown = True
        key = self._new_key()
        out += [ChunkStart(key, "tool_result", "json", name, call_id), Text(key, text)]
        out.append(ChunkEnd(key))

    def _code(self, code: dict[str, Any], out: list[Piece]) -> None:
        text = encode({key: code[key] for key in ("language", "code") if key in code})
        self._whole_call(CODE_EXECUTION, text_or_none(code.get("id")), text, out)

    def _code_result(self, result: dict[str, Any], out: list[Piece]) -> None:
        text = encode({key: result[key] for key in ("outcome", "output") if key in result})
        self._whole_result(CODE_EXECUTION, text_or_none(result.get("id")), text, out)

    def _tool_call(self, call: dict[str, Any], out: list[Piece]) -> None:
        """Take a call of a tool that Google runs."""
        name, text = text_or_none(_field(call, "toolType")), encode(call.get("args") or {})
        self._whole_call(name, text_or_none(call.get("id")), text, out)

    def _tool_response(self, response: dict[str, Any], out: list[Piece]) -> None:
        name = text_or_none(_field(response, "toolType")) or text_or_none(response.get("name"))
        text = encode(response.get("response"))
        self._whole_result(name, text_or_none(response.get("id")), text, out)

    # -- function calls --------------------------------------------------------------------------

    def _function_call(self, said: dict[str, Any], out: list[Piece]) -> None:
        name, call_id = text_or_none(said.get("name")), text_or_none(said.get("id"))
        arguments = said.get("args")
        partial = _field(said, "partialArgs")
        goes_on = _field(said, "willContinue") is True
        if not self._continues(name, call_id, has_parts=bool(partial)):
            self._end_call(out, cut=True)
            if name is None:
                self._skip("functionCall", lost=bool(arguments or partial))
                return
            self._called = True
            self._end_text(out)
            if not goes_on and not partial and type(arguments) in (dict, str, type(None)):
                text = arguments if type(arguments) is str else encode(arguments or {})
                self._whole_call(name, call_id, text, out)
                return
            self._call = call = _Call(self._new_key(), name, call_id)
            self._begin_call(call.key, name, call_id, out)
        self._add_arguments(arguments, partial, out)
        if not goes_on:
            self._end_call(out, cut=False)

    def _continues(self, name: str | None, call_id: str | None, *, has_parts: bool) -> bool:
        """Whether this is more of the open call."""
        call = self._call
        if call is None:
            return False
        if call_id is not None and call.call_id is not None:
            return call_id == call.call_id
        return name is None or (name == call.name and has_parts)

    def _add_arguments(self, arguments: Any, partial: Any, out: list[Piece]) -> None:
        call = self._call
        if call is None:
            return
        if type(arguments) is dict:
            for name, value in arguments.items():
                self._write(call, (name,), value, out)
        elif arguments is not None:
            self._lose(call, "the arguments of a function call are no object", out)
        for part in partial if type(partial) is list else ([] if partial is None else [partial]):
            path = parse_path(_field(object_of(part), "jsonPath"))
            named = [name for name in _VALUES if type(part) is dict and _has(part, name)]
            if path is not None and named:
                self._write(call, path, _value(part, named[0]), out)
            elif path is None or (path != call.writer.path and not _field(part, "willContinue")):
                self._lose(call, "a partial argument has no path or no value", out)

    def _write(
        self, call: _Call, path: tuple[str | int, ...], value: Any, out: list[Piece]
    ) -> None:
        if call.broken:
            self._skip("partialArgs")
            return
        text = call.writer.write(path, value)
        if text is None:
            self._lose(call, "a partial argument goes back behind what was written", out)
        else:
            self._add(call.key, text, out)

    def _lose(self, call: _Call, why: str, out: list[Piece]) -> None:
        """Drop the rest of a call's arguments: it ends as a call that was cut."""
        self._skip("partialArgs")
        if not call.broken:
            call.broken = True
            out.append(Rejected("unusable_arguments", why))

    def _end_call(self, out: list[Piece], *, cut: bool) -> None:
        call, self._call = self._call, None
        if call is None:
            return
        cut = cut or call.broken
        if not cut:
            self._add(call.key, call.writer.close(), out)
        self._close(call.key, out, cut=cut)

    # -- ends ------------------------------------------------------------------------------------

    def _note_finish(self, candidate: dict[str, Any], finish: str | None) -> None:
        if finish is not None:
            self._finish = finish
            self._finish_message = text_or_empty(_field(candidate, "finishMessage"))

    def _note_usage(self, usage: Any) -> bool:
        usage = object_or_empty(usage)
        if not usage or not self._in_step:
            return False
        if not self._usage or any(_field(usage, name) for name in _COUNTS):
            self._usage = usage  # the first ones of a stream may hold no counts
        return True

    def _block(self, reason: str, feedback: dict[str, Any]) -> None:
        """The prompt was blocked: there is no reply."""
        self._blocked = True
        self._finish = reason
        self._finish_message = text_or_empty(_field(feedback, "blockReasonMessage"))

    def _waits(self) -> bool:
        return self._finish is not None

    def _is_complete(self) -> bool:
        return self._finish is not None  # it comes with the usage, in the last chunk

    def _done_marker(self, out: list[Piece]) -> None:
        if self._in_step:
            self._finish_step(out)
        else:
            super()._done_marker(out)

    def _finish_step(self, out: list[Piece]) -> None:
        self._choices.decide(shown=self._shown, finished=self._finish is not None)
        for one in self._take_held():
            finish = _reason(_field(one, "finishReason"))
            self._take_candidate(one, self._read_parts(one), finish, out)
        self._end_call(out, cut=True)
        self._end_text(out)
        word, words = self._finish, self._finish_message
        reason = finish_reason(word)
        if reason == "stop" and self._called:
            reason = "tool_calls"
        if self._blocked:
            reason = "content_filter"
        if word is not None and words and reason == "error":
            self._fail(StepFail(word, words), out)
            return
        if reason == "content_filter":
            key = self._new_key()
            self._say(key, "refusal", words, out)
            self._close(key, out)
        self._end_step(reason, word, gemini_usage(self._usage) if self._usage else None, out)

    def _new_key(self) -> str:
        self._blocks += 1
        return str(self._blocks - 1)

    # -- state -----------------------------------------------------------------------------------

    def _forget_step(self) -> None:
        self._choices = Choices()
        self._blocks = 0
        self._text = None
        self._call = None
        self._called = False
        self._finish = None
        self._finish_message = ""
        self._blocked = False
        self._usage = {}

    def _dump_step(self) -> CodecState:
        return {
            "id": self._id,
            "settled": self._settled,
            "choices": self._choices.dump(),
            "blocks": self._blocks,
            "text": self._text,
            "call": self._call and self._call.dump(),
            "called": self._called,
            "finish": self._finish,
            "finish_message": self._finish_message,
            "blocked": self._blocked,
            "usage": self._usage,
        }

    def _load_step(self, state: CodecState) -> None:
        self._id = state["id"]
        self._settled = state["settled"]
        self._choices.load(state["choices"])
        self._blocks = state["blocks"]
        self._text = None if state["text"] is None else (state["text"][0], state["text"][1])
        self._call = None if state["call"] is None else _Call.load(state["call"])
        self._called = state["called"]
        self._finish = state["finish"]
        self._finish_message = state["finish_message"]
        self._blocked = state["blocked"]
        self._usage = state["usage"]


_COUNTS = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount")


@cache
def _snake(name: str) -> str:
    """Return the name that Python's SDK has for a field of the REST API."""
    return re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", name)


def _field(value: dict[str, Any], name: str) -> Any:
    """Read a field under either of its names."""
    found = value.get(name)
    return value.get(_snake(name)) if found is None else found


def _has(value: dict[str, Any], name: str) -> bool:
    """Whether a value is there; a null is one for `nullValue` only."""
    if name == "nullValue":
        return name in value or _field(value, name) is not None
    return _field(value, name) is not None


def _number(candidate: dict[str, Any]) -> int:
    """Give the index of a candidate: the API leaves out what is 0."""
    return index_or_none(candidate.get("index")) or 0


def _value(part: dict[str, Any], name: str) -> Any:
    """Read a value; a number comes as a double, though most are counts."""
    value = None if name == "nullValue" else _field(part, name)
    if type(value) is float and value.is_integer() and abs(value) < _EXACT:
        return int(value)
    return value


def _holds_anything(part: dict[str, Any]) -> bool:
    return any(part[name] is not None and part[name] != "" for name in part if name != "thought")


def _reason(value: Any) -> str | None:
    """Return a finish or block reason, unless it means unspecified."""
    return _NUMBERED.get(value) if type(value) is int else finish_word(value)


def _named_by_status(failure: StepFail, document: dict[str, Any]) -> StepFail:
    """Name Google's error by its status (`RESOURCE_EXHAUSTED`): its code is that of HTTP."""
    status = text_or_none(object_of(document.get("error")).get("status"))
    return failure if status is None else StepFail(status, failure.detail)
