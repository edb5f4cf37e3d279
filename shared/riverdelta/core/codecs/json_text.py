r"""
JSON in and out of the codecs: strict, except that lone surrogate escapes are accepted.

A provider that cuts its text between UTF-16 units sends half an emoji in each of two deltas
(`"\ud83d"`, then `"\ude00"`). orjson refuses such a document; the standard library reads it. What
it read is cleaned at once: only strings that are text for a reader may still begin or end with a
half, so that `surrogates.join_halves` can put the two together. No other lone half gets past here.
"""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

import orjson

REPLACEMENT = "\ufffd"

_HALF_BYTES = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")
_HALF = re.compile("[\ud800-\udfff]")
_PAIR = re.compile("([\ud800-\udbff])([\udc00-\udfff])")
_BORDER = re.compile("(?s)([\udc00-\udfff]?)(.*?)([\ud800-\udbff]?)")

_TEXT_FIELDS = frozenset(
    {
        "arguments",
        "code",
        "command",
        "content",
        "delta",
        "diff",
        "input",
        "partial_json",
        "reasoning",
        "reasoning_content",
        "refusal",
        "stringValue",
        "string_value",
        "text",
        "thinking",
    }
)
"""Fields whose strings can be one delta of a longer text."""

_INT64 = 1 << 63


class UnusableError(ValueError):
    """
    A raw chunk cannot be used. Becomes a `Rejected`; the stream goes on.

    Attributes:
        code: What is wrong, for programs.
        detail: What is wrong, for people.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def read_again(raw: bytes, error: ValueError) -> Any:
    """
    Read a document that orjson refused with *error*, if a lone surrogate half may be the reason.

    Raises:
        UnusableError: It is not JSON; reject this chunk and go on.
    """
    if _HALF_BYTES.search(raw) is None:
        raise UnusableError("invalid_json", str(error)) from error
    try:
        text = raw.decode("utf-8", "surrogatepass")
        document = json.loads(text, parse_constant=_refuse, parse_float=_finite)
        return _cleaned(document, keep_border=False)
    except (ValueError, RecursionError) as second:
        raise UnusableError("invalid_json", str(second) or "nested too deeply") from second


def clean(text: str) -> str:
    """Join the pairs in *text*; every half that is still alone becomes U+FFFD."""
    return _HALF.sub(REPLACEMENT, join_pairs(text))


def join_pairs(text: str) -> str:
    """Make one code point of each high half that a low half follows."""
    return _PAIR.sub(_joined, text)


def encode(value: Any) -> str:
    """
    Encode a value that came out of JSON as JSON again, compactly.

    Lone halves in it stay as they are: the text goes through `surrogates.join_halves` afterwards.

    Raises:
        UnusableError: Nested deeper than JSON writers go.
    """
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        pass
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except (ValueError, RecursionError) as error:
        raise UnusableError("too_deep", "a value is nested too deeply to be encoded") from error


def encode_inside(text: str) -> str:
    """Encode *text* as the inside of a JSON string, without its quotes."""
    return encode(text)[1:-1]


def object_or_empty(value: Any) -> dict[str, Any]:
    """
    Take a provider's object that is kept as it came, such as its usage.

    Anything but an object gives an empty one; so does one too deep to be stored as JSON.
    """
    if type(value) is not dict:
        return {}
    try:
        orjson.dumps(value)
    except TypeError:
        return {}
    return value


def _joined(pair: re.Match[str]) -> str:
    high, low = ord(pair[1]), ord(pair[2])
    return chr(0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00))


def _refuse(constant: str) -> NoReturn:
    message = f"{constant} is not JSON"
    raise ValueError(message)


def _finite(written: str) -> float:
    number = float(written)
    if number in (float("inf"), float("-inf")):
        message = f"{written} is beyond double range"
        raise ValueError(message)
    return number


def _cleaned(value: Any, *, keep_border: bool) -> Any:
    """Copy *value* without lone halves; text keeps one at its very start and very end."""
    if isinstance(value, str):
        return _clean_text(value) if keep_border else clean(value)
    if isinstance(value, dict):
        return {
            clean(key): _cleaned(item, keep_border=key in _TEXT_FIELDS)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [_cleaned(item, keep_border=False) for item in value]
    if type(value) is int and not -_INT64 <= value < 2 * _INT64:
        return _finite(str(value))  # as orjson reads it
    return value


def _clean_text(text: str) -> str:
    text = join_pairs(text)
    if _HALF.search(text) is None:
        return text
    border = _BORDER.fullmatch(text)
    if border is None:  # cannot happen: every part may be empty
        return clean(text)
    return f"{border[1]}{clean(border[2])}{border[3]}"
