"""
The shapes in which providers, gateways and local servers report a failure inside a stream.

`find_failure` is the one place that knows them. A shape is a failure only where nothing else can be
meant by it; `loose` shapes (a bare message) count where the document says nothing else at all.
"""

from __future__ import annotations

from typing import Any

from riverdelta.core.codecs.pieces import StepFail
from riverdelta.core.codecs.texts import text_or_empty, text_or_none

UNKNOWN_CODE = "provider_error"

_MESSAGES = (
    "message",
    "msg",
    "detail",
    "details",
    "error_msg",
    "error_message",
    "errorMessage",
    "error_description",
    "status_msg",
    "Message",
    "reason",
    "title",
)
_NUMBERS = ("code", "error_code", "status_code", "statusCode", "errorCode", "status")
_CODES = (*_NUMBERS[:1], "type", *_NUMBERS[1:], "__type")
_NESTED = ("error", "errors", "fault", "exception")
_WRAPPERS = (*_NESTED, "data", "detail", "body")
"""Where the words of a failure stand that has none itself."""
_SIGNS = frozenset({*_NESTED, "base_resp"})
_EXCEPTION = "Exception"
_HTTP_ERROR = 400
_DIGITS = 10
_DEPTH = 3
"""How deep a failure may be wrapped in others (`{"error": {"error": {…}}}`)."""


def step_fail(error: Any) -> StepFail:
    """
    Make a `StepFail` of a provider's error: its code, else its type; its message.

    Args:
        error: An object, a message, a list of either, or nothing useful.
    """
    return _step_fail(error, _DEPTH)


def _step_fail(error: Any, depth: int) -> StepFail:
    if type(error) is list:
        error = next((item for item in error if type(item) in (dict, str) and item), None)
    if type(error) is not dict:
        return StepFail(UNKNOWN_CODE, text_or_empty(error))
    code = next((_code(error.get(name)) for name in _CODES if _code(error.get(name))), None)
    detail = next((_words(error.get(name)) for name in _MESSAGES if _words(error.get(name))), "")
    if depth and not detail:
        inner = next((error[name] for name in _WRAPPERS if error.get(name)), None)
        if inner is not None:
            below = _step_fail(inner, depth - 1)
            return StepFail(
                below.code if below.code != UNKNOWN_CODE else code or UNKNOWN_CODE, below.detail
            )
    return StepFail(code or UNKNOWN_CODE, detail)


def find_failure(document: dict[str, Any]) -> StepFail | None:
    """
    Find a failure that *document* reports beside or instead of its content; None: it reports none.

    Known: `error` (an object, a message, a list), `errors`, `fault`, `base_resp` with a status that
    is not 0, and objects that call themselves an error (`object`, `type` or `event`).
    """
    if _SIGNS.isdisjoint(document):  # nearly every document
        return _names_itself(document) or find_exception(document)
    for name in _NESTED:
        error = document.get(name)
        if error and not (name != "error" and type(error) not in (dict, list)):
            return _beside(document, step_fail(error))
    base = document.get("base_resp")
    if type(base) is dict and base.get("status_code") not in (0, "0", None):
        return step_fail(base)
    return _names_itself(document)


def find_exception(document: dict[str, Any]) -> StepFail | None:
    """Find an exception of AWS, which has its own name in the document: `throttlingException`."""
    for name, value in document.items():
        if name.endswith(_EXCEPTION) and type(value) in (dict, str):
            return StepFail(name, step_fail(value).detail or _original(value))
    return None


def _original(value: Any) -> str:
    return text_or_empty(value.get("originalMessage")) if type(value) is dict else ""


def _names_itself(document: dict[str, Any]) -> StepFail | None:
    for name in ("object", "type", "event"):
        if document.get(name) == "error":
            return step_fail({**document, name: None})
    return None


def find_loose_failure(
    document: dict[str, Any], *, named: bool = False, body: bool = False
) -> StepFail | None:
    """
    Find a failure in a document that says nothing which its source knows; None: it is none.

    Args:
        document: Such as `{"detail": "Unauthorized"}` or `{"code": 500, "message": "…"}`.
        named: It came as an event called `error`: it is a failure, whatever it says.
        body: It is the body of a response that is no event stream: every message is a failure.
    """
    failure = step_fail(document)
    if named or (failure.detail and (body or _is_failure(document))):
        return failure
    return None


def _is_failure(document: dict[str, Any]) -> bool:
    """Whether a document with a message is about a failure, as its other fields show."""
    return (
        list(document) == ["detail"]
        or "__type" in document
        or document.get("success") is False
        or text_or_empty(document.get("status")).lower() in ("error", "failed")
        or text_or_empty(document.get("type")).lower().endswith(("error", "exception"))
        or any(_is_error_code(name, document.get(name)) for name in _NUMBERS)
        or any(name.lower().startswith("error") and value for name, value in document.items())
    )


def _is_error_code(name: str, value: Any) -> bool:
    if type(value) is str and not value.isdecimal():
        return bool(value) and name.lower().endswith("code")
    return type(value) in (int, str) and len(str(value)) < _DIGITS and int(value) >= _HTTP_ERROR


def _beside(document: dict[str, Any], failure: StepFail) -> StepFail:
    """Take from *document* the words that the error inside it does not have."""
    if failure.detail:
        return failure
    words = next(
        (_words(document.get(name)) for name in _MESSAGES if _words(document.get(name))), ""
    )
    return StepFail(failure.code, words)


def _code(value: Any) -> str | None:
    if type(value) is int:
        return str(value)
    return text_or_none(value) if value not in ("None", "null") else None


def _words(value: Any, depth: int = _DEPTH) -> str:
    """Read a message: text, or FastAPI's list of objects that have one."""
    if type(value) is str:
        return value
    if not depth:
        return ""
    if type(value) is list:
        parts = (_words(item, depth - 1) for item in value)
        return "; ".join(part for part in parts if part)
    if type(value) is dict:
        parts = (_words(value.get(name), depth - 1) for name in (*_MESSAGES, *_NESTED))
        return next((part for part in parts if part), "")
    return ""
