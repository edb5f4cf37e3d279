"""
Keeps a large JSON document small while its bytes come in: long strings that nobody reads are emptied.

An image of several megabytes stands in the last events of a response, beside its end and its usage. No
codec reads the image; with its string emptied, the rest of the document is as before.
"""

from __future__ import annotations

import base64
import re
from typing import Any

MAX_STRING_BYTES = 64 * 1024
"""Longer strings are emptied. Far above any id or name, far below a frame's limit."""

UNREAD = frozenset(
    {
        b"audio",
        b"b64",
        b"b64_json",
        b"base64",
        b"bytes",
        b"data",
        b"description",
        b"encrypted_content",
        b"file_data",
        b"image",
        b"image_url",
        b"instructions",
        b"obfuscation",
        b"partial_image_b64",
        b"redacted_content",
        b"result",
        b"signature",
        b"thoughtSignature",
        b"thought_signature",
        b"url",
    }
)
"""Members that no codec reads as text. A long string anywhere else is content."""

_CALLED_WITH = frozenset({b"action", b"args", b"arguments", b"input", b"operation"})
"""Members whose objects are arguments of a call: every string in them is content."""

_END = re.compile(rb'["\\]')
_BRACKET = re.compile(rb"[{}\[\]]")
_LONGEST_KEY = 64


class Shrinker:
    """
    Empties long strings of one line of JSON, whose bytes may be cut anywhere.

    Attributes:
        emptied: Strings that were emptied.
        lost: One of them was content: without it the document says something else.
    """

    def __init__(self) -> None:
        self.emptied = 0
        self.lost = False
        self._in_string = False
        self._escaped = False
        self._kept = b""
        self._over = False
        self._last: bytes | None = None
        """The string before, while it may be a member's name."""
        self._name = b""
        self._depth = 0
        self._called = 0
        """Depth of the arguments that it is in. 0: in none."""
        self._value_next = False
        """The value of the member *name* begins with the next byte that is no space."""

    def feed(self, raw: bytes) -> bytes:
        """Take the next bytes; give what stays of them, and of those that waited."""
        out: list[bytes] = []
        at = 0
        while at < len(raw):
            at = (
                self._take_string(raw, at, out)
                if self._in_string
                else self._take_rest(raw, at, out)
            )
        return b"".join(out)

    def end_line(self) -> bytes:
        """A line ended, and every string with it; give what waited."""
        kept, self._kept = self._kept, b""
        self._in_string = self._escaped = self._over = False
        self._last = None
        return kept

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values."""
        last = None if self._last is None else base64.b64encode(self._last).decode()
        kept, name = (base64.b64encode(data).decode() for data in (self._kept, self._name))
        return [
            self.emptied, self.lost, self._in_string, self._escaped, kept, self._over, last, name,
            self._depth, self._called, self._value_next,
        ]  # fmt: skip

    @classmethod
    def load(cls, state: list[Any]) -> Shrinker:
        """Undo `dump`."""
        shrinker = cls()
        shrinker.emptied, shrinker.lost, shrinker._in_string, shrinker._escaped = state[:4]
        kept, shrinker._over, last, name, *places = state[4:]
        shrinker._depth, shrinker._called, shrinker._value_next = places
        shrinker._kept, shrinker._name = base64.b64decode(kept), base64.b64decode(name)
        shrinker._last = None if last is None else base64.b64decode(last)
        return shrinker

    def _take_rest(self, raw: bytes, at: int, out: list[bytes]) -> int:
        """Take what stands outside of strings, and the quote behind it."""
        quote = raw.find(b'"', at)
        end = len(raw) if quote < 0 else quote + 1
        part = raw[at:end]
        out.append(part)
        token = part.strip()
        if token and self._last is not None:
            if token.startswith(b":"):
                self._name, self._value_next, token = self._last, True, token[1:].lstrip()
            self._last = None
        if self._value_next and not self._called and token[:1] in (b"{", b"["):
            self._called = self._depth + 1 if self._name in _CALLED_WITH else 0
        if token:
            self._value_next = False
            self._count_brackets(token)
        self._in_string = quote >= 0
        return end

    def _count_brackets(self, token: bytes) -> None:
        """Follow how deep it is, and where the arguments of a call end."""
        for bracket in _BRACKET.finditer(token):
            if bracket[0] in b"{[":
                self._depth += 1
                continue
            if self._depth == self._called:
                self._called = 0
            self._depth -= 1

    def _take_string(self, raw: bytes, at: int, out: list[bytes]) -> int:
        """Take a part of a string, and the quote that ends it, if that is in it."""
        begin = at
        if self._escaped:
            self._escaped = False
            at += 1
        while True:
            mark = _END.search(raw, at)
            if mark is None:
                self._keep(raw[begin:])
                return len(raw)
            at = mark.end()
            if mark[0] == b'"':
                break
            self._escaped = at == len(raw)
            at += 1
        self._keep(raw[begin : at - 1])
        out.append(self._kept + b'"')
        if self._over:
            self.emptied += 1
            self.lost = self.lost or self._called > 0 or self._name not in UNREAD
        self._last = self._kept if len(self._kept) <= _LONGEST_KEY and not self._over else None
        self._kept = b""
        self._in_string = self._over = False
        return at

    def _keep(self, part: bytes) -> None:
        if self._over:
            return
        self._kept += part
        if len(self._kept) > MAX_STRING_BYTES:
            self._kept, self._over = b"", True
