"""Source `openai-chat`: chat.completion.chunk objects, of OpenAI and those compatible with it."""

from __future__ import annotations

import json
from typing import Any

from riverdelta.core.codecs.calls import Call, CallBook
from riverdelta.core.codecs.choices import Choices
from riverdelta.core.codecs.delivered import Sent
from riverdelta.core.codecs.failures import find_failure, step_fail
from riverdelta.core.codecs.json_text import encode
from riverdelta.core.codecs.old_states import upgrade_chat
from riverdelta.core.codecs.pieces import CodecState, Format, Kind, Piece, StepFail, Text
from riverdelta.core.codecs.provider import EMPTY_JSON, WHOLE_ENDS, ProviderCodec
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
    finish_reason,
    finish_word,
    later_usage,
    openai_chat_usage,
)

_LEGACY_CALL = -1
"""Index of a `function_call`, the form before tools; it has no id."""

_REASONING = (
    "reasoning_content",
    "reasoning",
    "thinking",
    "reasoning_text",
    "reasoning_details",
    "thinking_blocks",
    "thought",
)
"""Names of reasoning, of which the first that has text counts: some say it under several."""

_CONTENT = ("content", "text", "output_text")
_CALLS = ("tool_calls", "function_call")
_KINDS = frozenset({"text", "reasoning", "refusal"})
_PAYLOAD = frozenset({*_CONTENT, *_REASONING, *_CALLS, "refusal", "audio"})
_QUIET = frozenset({"role", "id", "type", "index", "object", "signature", "reasoning_opaque"})
"""Fields of a delta that are no content."""

_PLAIN = frozenset(
    {
        "choices",
        "created",
        "id",
        "model",
        "object",
        "obfuscation",
        "provider",
        "service_tier",
        "system_fingerprint",
        "usage",
    }
)
_PLAIN_CHOICE = frozenset(
    {
        "content_filter_results",
        "delta",
        "finish_reason",
        "index",
        "logprobs",
        "matched_stop",
        "native_finish_reason",
        "stop_reason",
    }
)
_PLAIN_FRAGMENT = frozenset({"function", "id", "index", "type"})
_PLAIN_FUNCTION = frozenset({"arguments", "name"})
"""Fields that mean nothing, or nothing while they are null, in a chunk that only goes on."""

_STABLE = 2
"""Chunks with one id after which ids are taken to name responses."""


class OpenAIChatCodec(ProviderCodec):
    """
    One text, one reasoning and one refusal chunk per step, a chunk per tool call.

    A finish reason ends nothing by itself: content may follow it, and another finish or usage may
    replace it. The step ends where nothing more can come of it: with a new response, a tool's result,
    or the message. Its chunks end there, or already where `[DONE]` or a chunk with nothing but usage
    follows the finish; its calls where a finish `tool_calls` comes alone.

    A new response has another id (or none, and a role), and begins behind a finish or with a role. Ids
    that change with each chunk name nothing. Which choice is read: see `choices`; which call a
    fragment belongs to: see `calls`.

    A tool call begins with its first arguments, or when something else shows that its name is whole.
    """

    def __init__(self) -> None:
        super().__init__()
        self._id = ""
        self._id_chunks = 0
        """Chunks of the step with this id, up to `_STABLE`."""
        self._rotating = False
        """Ids have changed within the step."""
        self._finish: str | None = None
        self._settled = False
        """Something came behind the finish that ends a response for good."""
        self._complete = False
        """Usage came with the finish or behind it, or `[DONE]` came; and no content since."""
        self._done = False
        """`[DONE]` came behind a finish: content that follows is that of another response."""
        self._usage: dict[str, Any] = {}
        self._calls = CallBook()
        self._choices = Choices()
        self._sent = Sent()
        self._reasoning_name = ""
        """The field that reasoning first came in: another one may say it again."""
        self._shown_kinds: set[str] = set()
        """What the step has said: a whole message that comes behind its deltas says it again."""
        self._steady = self._short = False
        """Whether arguments, and text, may take the short way; see `_note_steady`."""

    # --- the short way ---

    def _more(self, document: Any) -> str | None:
        """Take more text, or more arguments of the newest call; see `ProviderCodec._more`."""
        if not self._steady:
            return None
        try:
            (choice,) = document["choices"]
            delta = choice["delta"]
            text = delta.get("content")
            if (
                document["id"] != self._id
                or choice["index"] != self._choices.index
                or choice.get("finish_reason")
                or document.get("usage")
                or not _PLAIN.issuperset(document)
                or not _PLAIN_CHOICE.issuperset(choice)
            ):
                return None
            if not text:
                return self._more_arguments(delta)
            if self._short and type(text) is str and (len(delta) == 1 or not _says_more(delta)):
                self._more_key = "text"
                return text
        except (KeyError, TypeError, ValueError, AttributeError):
            pass  # not that shape
        return None

    def _more_arguments(self, delta: dict[str, Any]) -> str | None:
        (fragment,) = delta["tool_calls"]
        function = fragment["function"]
        text, index = function["arguments"], fragment["index"]
        if (
            type(text) is not str
            or not text
            or type(index) is not int
            or fragment.get("id")
            or function.get("name")
            or fragment.get("type") == "custom"
            or not _PLAIN_FRAGMENT.issuperset(fragment)
            or not _PLAIN_FUNCTION.issuperset(function)
            or (len(delta) > 1 and _says_more(delta, but="tool_calls"))
        ):
            return None
        call = self._calls.of_rest(index)
        if call is None or call.held is not None:
            return None
        chunk = self._open.get(call.key)
        if chunk is None or chunk.arguments is not call.arguments or not chunk.feed_more(text):
            return None
        self._more_key = call.key
        return text

    def _said(self, document: Any) -> list[Piece]:
        out = super()._said(document)
        self._note_steady()
        return out

    def _decode_odd(self, raw: bytes, error: ValueError) -> list[Piece]:
        out = super()._decode_odd(raw, error)
        self._note_steady()
        return out

    def _note_steady(self) -> None:
        """Note whether nothing is under way that more text, or more arguments, would touch."""
        self._steady = (
            self._finish is None
            and self._id_chunks == _STABLE
            and bool(self._open)
            and self._choices.one
        )
        self._short = (
            self._steady
            and "text" in self._open
            and not any(call.held is not None for call in self._calls)
        )

    # --- documents ---

    def _take(self, document: dict[str, Any], out: list[Piece]) -> None:
        failure = find_failure(document)
        choices = objects_of(document.get("choices"))
        skipped = self.skipped
        if len(choices) > 1:
            self._choices.see(choices)
        for choice in choices:
            if type(choice) is not dict:
                self._skip("choice")
                continue
            self._choice(document, choice, out)
            failure = failure or _failure_in(choice)
        if failure is not None:
            self._decide_choices(out)
            self._start_calls(out)
            self._fail(failure, out)
            return
        usage = find_usage(document, *choices)
        if usage and self._in_step:
            self._usage = later_usage(self._usage, usage)
            self._complete |= self._finish is not None
            if self._finish is not None and not choices:
                self._settle_step(out)
        elif usage:
            self._skip("usage", lost=False)
        elif not choices and self.skipped == skipped:
            known = "choices" in document
            self._skip(text_or_empty(document.get("object")) or self._event, lost=not known)

    def _choice(self, document: dict[str, Any], choice: dict[str, Any], out: list[Piece]) -> None:
        delta = self._delta_of(document, choice)
        payload = _has_payload(delta)
        finish = _finish_of(choice)
        opens = bool(delta.get("role")) and finish is None
        if not self._enter_step(
            document, out, payload=payload, opens=opens, ends=finish is not None
        ):
            self._skip("straggler", lost=payload)
            return
        index = index_or_none(choice.get("index"))
        verdict = self._choices.judge(index, said=payload, shown=self._shown)
        self.skipped += self._choices.take_dropped()
        if verdict == "hold":
            encode(choice)  # refuses what is nested too deeply to be kept
            self._choices.hold(index, json.dumps(choice), ends=self._finish is not None)
            self.skipped += self._choices.take_dropped()
        elif verdict == "drop":
            self._skip("another choice", lost=False)
        else:
            self._read_held(out)
            self._read(delta, finish, out, payload=payload)

    def _read_held(self, out: list[Piece]) -> None:
        """Read choices that turned out to be parts of the one answer."""
        for held in self._choices.take_held():
            choice = json.loads(held)
            delta = self._delta_of({"id": self._id}, choice)
            payload = _has_payload(delta)
            self._read(delta, _finish_of(choice), out, payload=payload)

    def _decide_choices(self, out: list[Piece]) -> None:
        """Nothing more comes: decide on the choices that were held."""
        self._choices.decide(shown=self._shown, finished=self._finish is not None)
        self.skipped += self._choices.take_dropped()
        self._read_held(out)

    def _read(
        self,
        delta: dict[str, Any],
        finish: str | None,
        out: list[Piece],
        *,
        payload: bool,
    ) -> None:
        """Read one part of the answer."""
        if payload:
            self._settled = self._complete = False
            self._delta(delta, out)
        elif finish is None and not delta.get("role"):
            self._skip("choice without content", lost=False)
        for name, value in delta.items():
            if value and name not in _PAYLOAD and name not in _QUIET:
                self._skip(name)
        if finish is None:
            return
        self._finish = finish
        if not payload:
            self._settled = True
            self._start_calls(out)
            self._close_calls(finish_reason(finish) == "tool_calls", out)

    def _delta_of(self, document: dict[str, Any], choice: dict[str, Any]) -> dict[str, Any]:
        """Give what a choice adds: its delta, or what is new of a whole message or a text."""
        delta = choice.get("delta")
        if type(delta) is str:
            delta = {"content": delta}
        delta = object_of(delta)
        if _has_payload(delta):
            return delta
        message = choice.get("message")
        if type(message) is dict:
            if not self._shown_kinds or document.get("id", self._id) != self._id:
                return message
            return self._new_of(message)  # some repeat it, beside each delta or at the end
        if type(choice.get("text")) is str and choice["text"]:
            return {**delta, "content": choice["text"]}  # the completions of old
        return delta

    def _new_of(self, message: dict[str, Any]) -> dict[str, Any]:
        """Give what a whole message says and the deltas did not."""
        said = self._shown_kinds
        new = {name: value for name, value in message.items() if _kind_of(name) not in said}
        known = {call_id for call in self._calls for call_id in call.ids}
        calls = [object_of(call) for call in objects_of(message.get("tool_calls"))]
        more = [call for call in calls if (id_or_none(call.get("id")) or "") not in {"", *known}]
        return {**new, "tool_calls": more} if "calls" in said and more else new

    # --- steps ---

    def _enter_step(
        self, document: dict[str, Any], out: list[Piece], *, payload: bool, opens: bool, ends: bool
    ) -> bool:
        """
        Decide which step a choice belongs to, and begin it if it is new. False: to none.

        Args:
            document: The chunk that it stands in.
            out: Gets the pieces.
            payload: It has content.
            opens: It has a role, and no finish.
            ends: It has a finish.
        """
        new_id = text_or_empty(document.get("id"))
        other = bool(new_id and self._id) and new_id != self._id
        if not self._in_step:
            # A straggler of the step that just ended must not begin another one.
            begins = payload if not self._failed else (payload and other)
            begins = begins or ((opens or ends) and (other or not self._id))
        elif self._finish is None:
            alone = self._id_chunks == _STABLE or (self._shown and not payload)
            begins = other and bool(_role_in(document)) and not self._rotating and alone
            begins = begins and (payload or not ends)  # an end belongs to what it ends
        elif self._done and payload:
            begins = True
        elif other and not self._rotating:
            begins = payload or opens
        else:  # nothing tells responses apart but their roles
            nameless = opens and (not new_id or self._rotating) and not document.get("usage")
            begins = nameless and (self._settled or not payload)
        if begins:
            if self._in_step:
                self._finish_step(out)
            self._id, self._id_chunks = new_id, 1
            self._begin_step(document.get("model"), out)
        elif self._in_step and new_id:
            if other:
                self._rotating, self._id_chunks = True, 1
            else:
                self._id_chunks = min(self._id_chunks + 1, _STABLE)
            self._id = new_id
        return self._in_step

    def _settle_step(self, out: list[Piece]) -> None:
        """The response is over, but for its usage: end its chunks."""
        self._settled = True
        self._decide_choices(out)
        self._start_calls(out)
        self._end_calls(out)
        self._close_all(out, cut=finish_reason(self._finish) not in WHOLE_ENDS)

    def _done_marker(self, out: list[Piece]) -> None:
        """`[DONE]` ends the chunks of a step; usage may still come."""
        self._complete = self._in_step
        self._done = self._in_step and self._finish is not None
        if self._in_step and not (self._settled and not self._open):
            self._settle_step(out)
        else:
            self._skip("[DONE]", lost=False)

    def _waits(self) -> bool:
        return self._finish is not None or self._settled

    def _is_complete(self) -> bool:
        return self._complete

    def _finish_step(self, out: list[Piece]) -> None:
        self._decide_choices(out)
        self._start_calls(out)
        self._end_calls(out)
        usage = openai_chat_usage(self._usage) if self._usage else None
        self._end_step(finish_reason(self._finish), self._finish, usage, out)

    def _forget_step(self) -> None:
        self._finish = None
        self._settled = self._complete = self._rotating = False
        self._id_chunks = 0
        self._usage = {}
        self._calls.clear()
        self._choices = Choices()
        self._sent.clear()
        self._reasoning_name = ""
        self._shown_kinds.clear()
        self._done = False
        self._steady = self._short = False

    # --- content ---

    def _delta(self, delta: dict[str, Any], out: list[Piece]) -> None:
        if not any(delta.get(name) for name in _CALLS):
            self._start_calls(out)
        self._reasoning(delta, out)
        self._content(delta, out)
        if delta.get("refusal"):
            self._text("refusal", "refusal", delta["refusal"], out)
        calls = objects_of(delta.get("tool_calls"))
        if delta.get("tool_calls") and not calls:
            self._skip("tool_calls")
        for position, call in enumerate(calls):
            if type(call) is dict:
                index = index_or_none(call.get("index"))
                if index is None and len(calls) > 1:
                    index = position
                self._call(index, call, out)
            else:
                self._skip("tool_calls")
        if delta.get("function_call") and not calls:  # else it says the same in the older form
            self._call(_LEGACY_CALL, {"function": delta["function_call"]}, out)
        self._shown_kinds.update(_KINDS.intersection(self._open))
        if self._calls:
            self._shown_kinds.add("calls")

    def _reasoning(self, delta: dict[str, Any], out: list[Piece]) -> None:
        for name in _REASONING:
            value = delta.get(name)
            text = text_of(value) if value else ""
            if text:
                if not self._is_repeated(name, text):
                    self._sent.note("reasoning", text)
                    self._say("reasoning", "reasoning", text, out)
                return
            if value:
                self._skip(name, lost=type(value) is not dict)  # an object may be all signature

    def _is_repeated(self, name: str, text: str) -> bool:
        """Whether another field says all of the reasoning again."""
        self._reasoning_name = self._reasoning_name or name
        return name != self._reasoning_name and self._sent.is_all("reasoning", text)

    def _content(self, delta: dict[str, Any], out: list[Piece]) -> None:
        said = False
        for name in _CONTENT:
            value = delta.get(name)
            if not value or said:
                continue
            said = True
            if type(value) is str:
                self._say("text", "text", value, out)
            elif type(value) in (list, dict):
                self._parts(objects_of(value), out)
            else:
                self._skip(name)
        audio = delta.get("audio")
        if audio:
            transcript = text_of(object_of(audio).get("transcript"))
            if transcript and not said:
                self._say("text", "text", transcript, out)
            else:
                self._skip("audio", lost=False)

    def _parts(self, parts: list[Any], out: list[Piece]) -> None:
        """Take content that is a list of typed parts, as Mistral sends it."""
        for part in parts:
            name = text_or_empty(object_of(part).get("type"))
            if "think" in name or "reason" in name:
                self._text("reasoning", "reasoning", part, out)
            elif "refusal" in name:
                self._text("refusal", "refusal", part, out)
            else:
                self._text("text", "text", part, out)

    def _text(self, key: str, kind: Kind, value: Any, out: list[Piece]) -> None:
        text = text_of(value)
        if text:
            self._say(key, kind, text, out)
        else:
            self._skip(text_or_empty(object_of(value).get("type")) or kind)

    # --- calls ---

    def _call(self, index: int | None, delta: dict[str, Any], out: list[Piece]) -> None:
        custom = delta.get("type") == "custom" or type(delta.get("custom")) is dict
        spoken = delta.get("custom" if custom else "function")
        name = text_or_none(spoken)  # some give the name where the object belongs
        spoken = spoken if type(spoken) is dict else delta
        name = name or text_or_none(spoken.get("name"))
        call_id = id_or_none(delta.get("id")) or id_or_none(spoken.get("id"))
        call_id = call_id or id_or_none(delta.get("call_id"))
        value = spoken.get("arguments", spoken.get("input"))
        text = encode(value) if type(value) in (dict, list) else text_or_empty(value)
        if value and not text:
            self._skip("arguments")
        call = self._calls.take(index, call_id, name, text, custom=custom)
        if call.held is None:
            chunk = self._open.get(call.key)
            if chunk is None or chunk.arguments is not call.arguments:
                call.arguments.feed(text)  # else `_add` does it
            if chunk is not None:
                self._add(call.key, text, out)
            elif text:
                self._skip("arguments")
            return
        call.held += text
        call.arguments.feed(text)
        if call.held and call.name:
            self._start_calls(out, until=call)

    def _start_calls(self, out: list[Piece], until: Call | None = None) -> None:
        """Begin the chunks of the calls whose names are known, in order, *until* and with one of them."""
        for call in self._calls:
            if call.held is not None and call.name:
                held, call.held = call.held, None
                form: Format = "text" if call.custom else "json"
                waits = held if held.strip() == EMPTY_JSON else ""  # as `_add` does
                self._begin_call(
                    call.key, call.name, call.call_id, out,
                    form=form, unsaid=waits, arguments=call.arguments,
                )  # fmt: skip
                if held and not waits:  # it was followed as it came
                    out.append(Text(call.key, held))
            if call is until:
                return

    def _close_calls(self, ended: bool, out: list[Piece]) -> None:  # noqa: FBT001 - private
        """End the calls that are whole; those without arguments too, if the provider *ended* them."""
        for call in self._calls:
            if call.whole or (ended and call.empty and not call.custom):
                self._close(call.key, out)

    def _end_calls(self, out: list[Piece]) -> None:
        """End calls that never said their name: shown if they have arguments, but never whole."""
        for call in self._calls:
            if call.held is None:
                continue
            held, call.held = call.held, None
            if held:
                self._begin_call(call.key, None, call.call_id, out)
                self._add(call.key, held, out)
                self._close(call.key, out)
            else:
                self._skip("a call without a name")

    # --- state ---

    def _upgrade(self, state: CodecState) -> CodecState:
        return upgrade_chat(state)

    def _dump_step(self) -> CodecState:
        return {
            "id": self._id,
            "id_chunks": self._id_chunks,
            "rotating": self._rotating,
            "finish": self._finish,
            "settled": self._settled,
            "complete": self._complete,
            "usage": self._usage,
            "calls": self._calls.dump(),
            "choices": self._choices.dump(),
            "sent": self._sent.dump(),
            "reasoning_name": self._reasoning_name,
            "said": sorted(self._shown_kinds),
            "done": self._done,
        }

    def _load_step(self, state: CodecState) -> None:
        self._id = state["id"]
        self._id_chunks = state["id_chunks"]
        self._rotating = state["rotating"]
        self._finish = state["finish"]
        self._settled = state["settled"]
        self._complete = state["complete"]
        self._usage = state["usage"]
        self._calls.load(state["calls"])
        self._choices.load(state["choices"])
        self._sent.load(state["sent"])
        self._reasoning_name = state["reasoning_name"]
        self._shown_kinds = set(state["said"])
        self._done = state["done"]
        for call in self._calls:
            chunk = self._open.get(call.key)
            if chunk is not None and chunk.arguments is not None:
                chunk.arguments = call.arguments
        self._note_steady()


def _finish_of(choice: dict[str, Any]) -> str | None:
    """Read a choice's finish; OpenRouter says "stop" where only the provider's own word is an error."""
    native = finish_word(choice.get("native_finish_reason"))
    if finish_reason(native) == "error":
        return native
    return finish_word(choice.get("finish_reason"))


def _kind_of(field: str) -> str:
    """Name what a field of a message says, as `_shown_kinds` does."""
    if field in _CALLS:
        return "calls"
    if field in _REASONING:
        return "reasoning"
    return "text" if field in (*_CONTENT, "audio") else field


def _has_payload(delta: dict[str, Any]) -> bool:
    """Whether a delta has content of any kind."""
    return any(value and name in _PAYLOAD for name, value in delta.items())


def _says_more(delta: dict[str, Any], but: str = "content") -> bool:
    """Whether a delta has anything beside the field *but* and its role."""
    return any(value and name not in (but, "role") for name, value in delta.items())


def _failure_in(choice: dict[str, Any]) -> StepFail | None:
    """Find a failure that stands in a choice or in its delta."""
    for place in (choice, object_of(choice.get("delta"))):
        if place.get("error"):
            return step_fail(place["error"])
    return None


def _role_in(document: dict[str, Any]) -> Any:
    """Give the role in a chunk's first choice."""
    for choice in objects_of(document.get("choices")):
        role = object_of(object_of(choice).get("delta")).get("role")
        if role:
            return role
    return None
