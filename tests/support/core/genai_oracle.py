"""
What Google's own types make of a `gemini` recording.

`GenerateContentResponse` reads every chunk. Google's SDK does not join the chunks of a stream, so
they are joined here: texts and thoughts are added up, arguments by path are set in a plain object,
the last finish reason and the last usage with counts are kept.

- A lone surrogate is no string for pydantic: halves go through it as characters of a private plane.
- An `error` makes the SDK raise; here it ends the response and is noted.
- A call that was cut ends where its last value stopped, with nothing closed behind it.
- A finish reason that is an error (`MALFORMED_FUNCTION_CALL`) is noted as one.
"""

from __future__ import annotations

import json
import re
from typing import Any

from google.genai.types import Candidate, FunctionCall, GenerateContentResponse, Part

from tests.support.core.assembled import Assembled, joined

_PLANE = 0xF0000 - 0xD800
_ERRORS = frozenset({"MALFORMED_FUNCTION_CALL"})


def assemble_gemini(documents: list[dict[str, Any]]) -> list[Assembled]:
    """Assemble the responses of a recording, one result per `responseId`."""
    responses: list[list[dict[str, Any]]] = []
    last_id = None
    for document in documents:
        if not responses or document.get("responseId", last_id) != last_id:
            last_id = document.get("responseId")
            responses.append([])
        responses[-1].append(document)
    return [_response(response) for response in responses]


def _response(documents: list[dict[str, Any]]) -> Assembled:
    result, calls = Assembled(), _Calls()
    for document in documents:
        if "error" in document:
            result.error = document["error"]["status"]
            break
        response = GenerateContentResponse.model_validate(_hidden(document))
        for candidate in (response.candidates or [])[:1]:
            _candidate(candidate, result, calls)
        feedback = response.prompt_feedback
        if feedback is not None and feedback.block_reason is not None:
            result.finish = feedback.block_reason.value
            result.refusal = feedback.block_reason_message or ""
        usage = response.usage_metadata
        if usage is not None and usage.total_token_count:
            result.usage = usage.model_dump(mode="json", by_alias=True, exclude_unset=True)
    if result.finish in _ERRORS:
        result.error = result.finish
    result.text, result.reasoning = _shown(result.text), _shown(result.reasoning)
    result.tool_calls = [
        (call_id, name, _shown(json.dumps(value, ensure_ascii=False, separators=(",", ":"))))
        for call_id, name, value in calls.found
    ]
    if calls.open:
        call_id, name, arguments = result.tool_calls[-1]
        result.tool_calls[-1] = (call_id, name, arguments.rstrip('"}]'))
    return result


def _candidate(candidate: Candidate, result: Assembled, calls: _Calls) -> None:
    for part in (candidate.content and candidate.content.parts) or []:
        if part.text and part.thought:
            result.reasoning += part.text
        elif part.text:
            result.text += part.text
        calls.add(part)
    if candidate.finish_reason is not None:
        result.finish = candidate.finish_reason.value


class _Calls:
    """The calls of a response, and the one whose arguments are still coming."""

    def __init__(self) -> None:
        self.found: list[tuple[str | None, str | None, Any]] = []
        self.open = False

    def add(self, part: Part) -> None:
        if part.executable_code is not None:
            code = part.executable_code
            arguments = code.model_dump(mode="json", exclude_unset=True, exclude={"id"})
            self.found.append((code.id, "code_execution", arguments))
        if part.function_call is not None:
            self._function(part.function_call)

    def _function(self, call: FunctionCall) -> None:
        if not self.open:
            self.found.append((call.id, call.name, dict(call.args or {})))
        for partial in call.partial_args or []:
            value: Any = partial.string_value
            if value is None:
                value = partial.number_value
            if value is None:
                value = partial.bool_value
            _set(self.found[-1][2], str(partial.json_path), value)
        self.open = bool(call.will_continue)


def _set(arguments: Any, path: str, value: Any) -> None:
    """Put *value* where a plain path (`$.a.b[0]`) points; a string goes on with the one there."""
    names: list[str | int] = [
        int(index) if index else name for name, index in re.findall(r"\.([^.\[]+)|\[(\d+)\]", path)
    ]
    place = arguments
    for name, following in zip(names, [*names[1:], None], strict=True):
        if isinstance(name, int):
            while len(place) <= name:
                place.append(None)
            old = place[name]
        else:
            old = place.get(name)
        if following is None:
            place[name] = old + value if isinstance(old, str) else value
        elif old is None:
            place[name] = [] if isinstance(following, int) else {}
        place = place[name]


def _hidden(value: Any) -> Any:
    if isinstance(value, str):
        return re.sub("[\ud800-\udfff]", lambda half: chr(ord(half[0]) + _PLANE), value)
    if isinstance(value, dict):
        return {key: _hidden(item) for key, item in value.items()}
    return [_hidden(item) for item in value] if isinstance(value, list) else value


def _shown(text: str) -> str:
    low, high = chr(0xD800 + _PLANE), chr(0xDFFF + _PLANE)
    return joined(re.sub(f"[{low}-{high}]", lambda half: chr(ord(half[0]) - _PLANE), text))
