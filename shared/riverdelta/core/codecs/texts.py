"""Readers of single values that tolerate the shapes in which providers give them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from riverdelta.core.codecs.json_text import object_or_empty

_TEXTS = (
    "text",
    "content",
    "thinking",
    "reasoning",
    "reasoning_content",
    "summary",
    "transcript",
    "output_text",
    "refusal",
    "value",
    "delta",
)
_NO_IDS = frozenset({"null", "none", "undefined", "nil"})
_DIGITS = 9
_LIMIT = 10**_DIGITS
"""An index is less than this: what is more is none."""

_DEPTH = 8
"""Texts nest two or three levels deep at most; more is no text."""


def text_or_none(value: Any) -> str | None:
    """Pass a string that says something; anything else is None."""
    return value if type(value) is str and value else None


def id_or_none(value: Any) -> str | None:
    """Read an id: text, or a number. None: it is none, like the word "null" that some send for it."""
    if type(value) is int:
        return str(value)
    return value if type(value) is str and value and value.lower() not in _NO_IDS else None


def text_or_empty(value: Any) -> str:
    """Pass a string; anything else says nothing."""
    return value if type(value) is str else ""


def text_of(value: Any) -> str:
    """
    Read a text in any known shape: a string, an object that has one, a list of either.

    Of an object's texts the first counts (`{"text": …, "content": …}` says one thing twice).
    Signatures, sounds, pictures and ids are no text.
    """
    if type(value) is str:
        return value
    return "".join(_texts(value, _DEPTH))


def _texts(value: Any, depth: int) -> Iterator[str]:
    if type(value) is str:
        yield value
    elif type(value) is list and depth:
        for item in value:
            yield from _texts(item, depth - 1)
    elif type(value) is dict and depth:
        for name in _TEXTS:
            if name in value:
                found = "".join(_texts(value[name], depth - 1))
                if found:
                    yield found
                    return


def index_or_none(value: Any) -> int | None:
    """Read an index: an integer, or its digits in a string; anything else is None."""
    if type(value) is str and value.isascii() and value.isdecimal() and len(value) <= _DIGITS:
        value = int(value)
    if type(value) not in (int, float) or not -_LIMIT < value < _LIMIT or value != int(value):
        return None
    return int(value)


def object_of(value: Any) -> dict[str, Any]:
    """Pass an object; anything else is an empty one."""
    return value if type(value) is dict else {}


def objects_of(value: Any) -> list[Any]:
    """Read a list that may have come as its only object; anything else is an empty list."""
    if type(value) is list:
        return value
    return [value] if type(value) is dict else []


_USAGES = ("usage", "token_usage", "usageMetadata")
_NO_PLACES = frozenset({"error", "response", "logprobs", "tool_calls"})
_USAGE_DEPTH = 3


def find_usage(*places: Any) -> dict[str, Any]:
    """
    Find the usage in the first of *places* (objects) that has one. Empty: none has any.

    It stands under `usage`, alone or in a list, or some levels deeper in a vendor's field
    (`x_groq.usage`), in the delta or in the message.
    """
    for place in places:
        found = _usage_in(place, _USAGE_DEPTH)
        if found:
            return found
    return {}


def _usage_in(place: Any, depth: int) -> dict[str, Any]:
    if type(place) is not dict:
        return {}
    for name in _USAGES:
        value = place.get(name)
        usage = object_or_empty(value[-1] if type(value) is list and value else value)
        if usage:
            return usage
    for name, value in place.items():
        if depth and type(value) is dict and name not in _NO_PLACES:
            usage = _usage_in(value, depth - 1)
            if usage:
                return usage
    return {}
