"""
A recorded stream without what it says: the same bytes but for texts, ids and names.

Every character of a text becomes a letter of the same size, written the same way, so that every
line, frame and split is as long as before. White space, quotes and slashes stay. Ids and names of
tools and models are renamed, the same one always in the same way. What the protocol itself says
(types, roles, finish reasons, numbers, indices) stays; of a field that is not known to be such a
word, the value is a text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any, Final

from riverdelta.core.codecs.texts import object_of, text_or_empty

_KEEP: Final = frozenset('"\\/')
_LETTERS: Final = {1: "x", 2: "é", 3: "語", 4: "\U0001d431"}
"""Bytes of a character in UTF-8 → the letter in its place."""
_HIGH, _LOW = "\ud835", "\udc31"
"""The same letter of four bytes, in halves."""

_WORDS: Final = frozenset(
    {
        "blockReason", "block_reason", "category", "event", "finishReason", "finish_reason",
        "format", "kind", "language", "mode", "modality", "native_finish_reason", "object",
        "outcome", "phase", "probability", "processor", "reason", "role", "service_tier", "source",
        "status", "stopReason", "stop_reason", "toolType", "trafficType", "type", "__type",
    }
)  # fmt: skip
"""Fields whose short values are words of a protocol."""
_WORD: Final = re.compile(r"[A-Za-z0-9_.:#/-]{0,64}")
_ERRORS: Final = frozenset({"error", "errors", "base_resp", "fault"})
_IDS: Final = re.compile(r"id|.*_id|.*Id|name|tool_name|model|modelVersion|chunk|server_label")
_ARGUMENTS: Final = frozenset({"arguments", "partial_json"})
_OWN: Final = frozenset({"args", "arguments", "input", "parameters", "json", "properties", "tools"})
"""Fields whose objects are the user's own, with their names and numbers."""
_PATHS: Final = frozenset({"jsonPath", "json_path"})
_NUMBERS: Final = frozenset({"numberValue", "number_value"})
"""Numbers of the user's own."""
_SLOT_FIELDS: Final = ("index", "output_index", "contentBlockIndex", "item_id", "chunk")

_TOKEN: Final = re.compile(r'"(?:[^"\\]|\\.)*"?|[{}\[\],:]|[^"{}\[\],:]+', re.DOTALL)
_PLAIN: Final = re.compile(r"\s*(?:true|false|null|-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)?\s*")
"""What may stand between the marks and strings of JSON."""
_SSE_LINE: Final = re.compile(r"(?P<name>data|id|event|retry|): ?")
_UNIT: Final = re.compile(r"\\u[0-9a-fA-F]{4}|\\.|.", re.DOTALL)
_NAME: Final = re.compile(r"[^.\[\]'\"$\d][^.\[\]'\"]*")
_LITERALS: Final = ("true", "false", "null")
_DIGITS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


class Anonymizer:
    """
    Anonymizes one recording, raw chunk by raw chunk, in order.

    Args:
        source: How the raw chunks are encoded. None: JSON or an event stream, as each line shows.
    """

    def __init__(self, source: str | None = None) -> None:
        self._is_text = (source or "").startswith("text")
        self.slots: dict[tuple[tuple[str, str], ...], _Json] = {}
        """Calls whose arguments come in parts."""
        self._names: dict[str, str] = {}
        self._counts: dict[int, int] = {}

    def line(self, raw: bytes) -> bytes:
        """Anonymize a line, with its end if it has one; as many bytes come back."""
        text = raw.decode("utf-8", "surrogateescape")
        field = None if self._is_text else _SSE_LINE.match(text)
        if self._is_text:
            text = _mask(text)
        elif field is None:
            text = self._document(text)
        elif field["name"] == "data":
            text = field[0] + self._document(text[field.end() :])
        elif field["name"] == "id":
            value = text[field.end() :].rstrip("\r\n")
            text = field[0] + self.rename(value) + text[field.end() + len(value) :]
        elif not field["name"]:
            text = field[0] + _mask(text[field.end() :])
        return text.encode("utf-8", "surrogateescape")

    def _document(self, text: str) -> str:
        if text.strip() == "[DONE]":
            return text
        return _Document(self, text).rewrite()

    def rename(self, name: str) -> str:
        """Give an id or name its other name: as long, and another one for every one."""
        if not name or not name.isascii() or "\\" in name:
            return _mask(name)
        if name not in self._names:
            number = self._counts[len(name)] = self._counts.get(len(name), -1) + 1
            digits = ""
            while number or not digits:
                number, digit = divmod(number, len(_DIGITS))
                digits = _DIGITS[digit] + digits
            self._names[name] = digits.rjust(len(name), "x")[-len(name) :]
        return self._names[name]


class _Frame:
    """An object or array that is open where the rewriter is."""

    __slots__ = ("data", "is_object", "key", "own", "position", "under")

    def __init__(self, data: Any, *, is_object: bool, under: str, own: bool) -> None:
        self.data = data
        """The same, parsed; None: the document is broken."""
        self.is_object = is_object
        self.under = under
        """Name of the field that holds it; of an array's element, that of the array."""
        self.own = own
        self.key: str | None = None
        self.position = 0

    @property
    def fields(self) -> dict[str, Any]:
        """Its fields, if it is an object that could be parsed."""
        return self.data if type(self.data) is dict else {}

    def child(self) -> Any:
        """Give what stands at the place that comes next."""
        if type(self.data) is dict:
            return self.data.get(self.key)
        inside = type(self.data) is list and self.position < len(self.data)
        return self.data[self.position] if inside else None


class _Document:
    """Rewrites one JSON text token by token, whole or broken."""

    def __init__(self, owner: Anonymizer, text: str) -> None:
        self._owner = owner
        self._text = text
        self._stack: list[_Frame] = []
        self._value_next = False
        try:
            self._root = json.loads(text)
        except (ValueError, RecursionError):
            self._root = None
        self._type = text_or_empty(object_of(self._root).get("type"))

    def rewrite(self) -> str:
        """Give the text without what it says."""
        root = object_of(self._root)
        if self._type == "content_block_start":
            self._owner.slots.pop((("index", str(root.get("index"))),), None)
        started = object_of(root.get("contentBlockStart")).get("contentBlockIndex")
        self._owner.slots.pop((("contentBlockIndex", str(started)),), None)
        return "".join(self._token(token) for token in _TOKEN.findall(self._text))

    def _token(self, token: str) -> str:
        top = self._stack[-1] if self._stack else None
        first = token[0]
        if first in "{[":
            under = "" if top is None else (top.key if top.is_object else top.under) or ""
            own = (top is not None and top.own) or under in _OWN
            data = self._root if top is None else top.child()
            self._stack.append(_Frame(data, is_object=first == "{", under=under, own=own))
            self._value_next = False
        elif first in "}]":
            if self._stack:
                self._stack.pop()
            self._value_next = False
        elif first == ":":
            self._value_next = True
        elif first == ",":
            self._value_next = False
            if top is not None:
                top.position += 1
        elif first == '"':
            return self._string(token, top)
        elif top is None or _PLAIN.fullmatch(token) is None:
            return _mask(token)
        elif top.own or (top.is_object and top.key in _NUMBERS):
            return re.sub(r"\d", "1", token)
        return token

    def _string(self, token: str, top: _Frame | None) -> str:
        closed = len(token) > 1 and token.endswith('"')
        body = token[1:-1] if closed else token[1:]
        end = '"' if closed else ""
        if top is not None and top.is_object and not self._value_next:
            top.key = body
            return f'"{self._owner.rename(body) if top.own else body}{end}'
        key = "" if top is None else (top.key or "" if top.is_object else top.under)
        return f'"{self._value(key, body, top)}{end}'

    def _value(self, key: str, body: str, top: _Frame | None) -> str:
        owner = self._owner
        if top is None or top.own:
            return _mask(body)
        if key in _PATHS:
            return _NAME.sub(lambda name: owner.rename(name[0]), body)
        if self._is_word(key, body, top):
            return body
        if _IDS.fullmatch(key):
            return owner.rename(body)
        if self._is_json(key, top):
            return self._json(key, body, top)
        return _mask(body)

    def _is_word(self, key: str, body: str, top: _Frame) -> bool:
        known = key in _WORDS or (key in ("code", "status") and top.under in _ERRORS)
        known = known or (key == "code" and top.fields.get("type") == "error")
        return known and _WORD.fullmatch(body) is not None

    def _is_json(self, key: str, top: _Frame) -> bool:
        """Tell whether a text is JSON, or a part of it."""
        return (
            key in _ARGUMENTS
            or (key == "input" and top.under == "toolUse")
            or (key == "delta" and "arguments.delta" in self._type)
            or (key == "text" and top.fields.get("kind") == "tool_call")
        )

    def _json(self, key: str, body: str, top: _Frame) -> str:
        state = self._owner.slots.setdefault(self._slot(), _Json())
        is_part = not self._type.startswith("response.") or self._type.endswith(".delta")
        if not is_part or top.fields.get("mode") == "snapshot":
            state = _Json()
        elif key == "arguments" and top.fields.get("name"):
            state = self._owner.slots[self._slot()] = _Json()
        return "".join(_written(unit, state.character) for unit in _UNIT.findall(body))

    def _slot(self) -> tuple[tuple[str, str], ...]:
        """Name the call that a part belongs to, by the numbers and ids around it."""
        found = list[tuple[str, str]]()
        for frame in self._stack:
            name = next((name for name in _SLOT_FIELDS if name in frame.fields), None)
            if name is not None:
                found.append((name, str(frame.fields[name])))
        return tuple(found)


class _Json:
    """Replaces the texts and numbers of JSON that comes in parts, character by character."""

    def __init__(self) -> None:
        self._depth = 0
        self._in_string = False
        self._escaped = False
        self._hex = 0
        self._literal = ""

    def character(self, character: str) -> str:
        """Give the character that stands in the place of the next one."""
        if self._in_string:
            return self._inside(character)
        if character in "{[":
            self._depth += 1
        elif character in "}]":
            self._depth = max(0, self._depth - 1)
        elif character == '"':
            self._in_string = self._depth > 0
        elif character.isdigit():
            return "1"
        elif character.isalpha():
            word = self._literal + character
            if self._depth and any(literal.startswith(word) for literal in _LITERALS):
                self._literal = word
                return character
            if character in "eE" and not self._literal and self._depth:
                return character  # of a number
            return _masked(character)
        self._literal = ""
        return character

    def _inside(self, character: str) -> str:
        if self._hex:
            self._hex -= 1
            return "0061"[3 - self._hex]
        if self._escaped:
            self._escaped = False
            if character == "u":
                self._hex = 4
            return character
        if character == "\\":
            self._escaped = True
            return character
        if character == '"':
            self._in_string = False
            return character
        return _masked(character)


def _mask(text: str) -> str:
    """Replace a text as it stands between the quotes of a JSON string, escapes and all."""
    return "".join(_written(unit, _masked) for unit in _UNIT.findall(text))


def _written(unit: str, replace: Callable[[str], str]) -> str:
    """Replace one character, and write it as it was: itself, or an escape of six characters."""
    if len(unit) == 1:
        return unit if "\ud800" <= unit <= "\udfff" else replace(unit)  # a byte that is no UTF-8
    if unit[1] != "u":  # a short escape stands for itself: a quote, the end of a line
        replace(_SHORT.get(unit[1], unit[1]))
        return unit
    return f"\\u{ord(replace(chr(int(f'0x{unit[2:]}', 0)))):04x}"


_SHORT: Final = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def _masked(character: str) -> str:
    """Give the letter that stands in the place of a character."""
    if "\ud800" <= character <= "\udbff":
        return _HIGH
    if "\udc00" <= character <= "\udfff":
        return _LOW
    if character.isspace() or character < " " or character in _KEEP:
        return character
    return _LETTERS[len(character.encode())]
