r"""
`JsonStrings`: a filter for JSON text, which sees each string as a JSON parser would give it.

JSON can write one string in many ways (``\u0034`` is ``4``), and ``\n`` ends with a letter: so a filter
that looks at JSON as plain text misses secrets and hides what is none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import regex

from riverdelta.core.filters import StreamFilter
from riverdelta_workers.filters.patterns import SLICE

_BODY: Final = regex.compile(
    r'[^"\\]*+(?:\\(?:u[0-9A-Fa-f]{4}|[^u]|u(?=[0-9A-Fa-f]{0,3}+[^0-9A-Fa-f]))[^"\\]*+)*+'
)
"""Text of a string up to its closing quote, or up to an escape that is not complete yet."""
_ESCAPE: Final = regex.compile(r"\\(u[0-9A-Fa-f]{4}|[^u])")
_SHORT: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_HIGH: Final = regex.compile(r"\\u[Dd][89ABab][0-9A-Fa-f]{2}\Z")
_SURROGATES: Final = regex.compile(r"[\uD800-\uDFFF]+")
_PENDING_MAX: Final = 11
r"""Characters of an escape that is not complete: half of a pair, and ``\uDE0``."""


class JsonStrings:
    r"""
    Filters the decoded strings of JSON text, then the text as a whole; a `StreamFilter`.

    Each string, keys included, has a filter of its own and is encoded again, in the shortest way:
    ``\u0041`` goes out as ``A``. The second filter sees what is outside of strings, numbers say. An escape
    that JSON does not know is taken for a backslash; half of a surrogate pair goes out as U+FFFD.

    Args:
        make: Makes the filter of one text, in its first state.
    """

    def __init__(self, make: Callable[[], StreamFilter]) -> None:
        self._make = make
        self._outer = make()
        self._string: StreamFilter | None = None
        self._pending = ""
        self._plain = False

    @property
    def bound(self) -> int:
        """The most characters that are held back, decoded."""
        return 2 * self._outer.bound + _PENDING_MAX

    @property
    def held(self) -> int:
        """Characters held back now; those of a string count as decoded."""
        inner = 0 if self._string is None else self._string.held
        return inner + len(self._pending) + self._outer.held

    def feed(self, delta: str) -> str:
        """Take *delta* and return what may go out now."""
        if not self._plain:
            slices = (delta[at : at + SLICE] for at in range(0, len(delta), SLICE))
            delta = "".join([self._strings(part) for part in slices])
        return self._outer.feed(delta)

    def finish(self) -> str:
        """Take the end of the text, also within a string, and return the rest."""
        rest = ""
        if self._string is not None:
            rest = _encode(self._string.finish()) + self._pending
        self._string, self._pending = None, ""
        return (self._outer.feed(rest) if rest else "") + self._outer.finish()

    def dump(self) -> dict[str, Any]:
        """Return the whole state; {} before the first delta."""
        outer = self._outer.dump()
        if self._plain or (self._string is None and not outer):
            return outer
        state: dict[str, Any] = {"outer": outer}
        if self._string is not None:
            state["string"] = self._string.dump()
        if self._pending:
            state["pending"] = self._pending
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Continue from *state*; from that of a filter that took JSON for plain text: as plain text."""
        self._plain = bool(state) and "outer" not in state
        outer = state if self._plain else state.get("outer")
        if outer:
            self._outer.load(outer)
        if "string" in state:
            self._string = self._make()
            if state["string"]:
                self._string.load(state["string"])
        self._pending = state.get("pending", "")

    # -- inside ----------------------------------------------------------------------------------

    def _strings(self, delta: str) -> str:
        """Filter the strings of what is here."""
        text = self._pending + delta
        self._pending = ""
        out: list[str] = []
        at = 0
        while at < len(text):
            if self._string is None:
                quote = text.find('"', at)
                if quote < 0:
                    out.append(text[at:])
                    break
                out.append(text[at : quote + 1])
                at = quote + 1
                self._string = self._make()
                continue
            found = _BODY.match(text, at)
            end = at if found is None else found.end()
            closed = end < len(text) and text[end] == '"'
            body = text[at:end]
            if not closed and (half := _HIGH.search(body)) is not None:
                end -= len(half[0])  # its other half may follow
                body = text[at:end]
            if body:
                out.append(_encode(self._string.feed(_decode(body))))
            if not closed:
                self._pending = text[end:]
                break
            out.append(_encode(self._string.finish()) + '"')
            self._string = None
            at = end + 1
        return "".join(out)


def _decode(body: str) -> str:
    """Decode the text of a string, without its quotes."""
    if "\\" not in body:
        return body
    text = _ESCAPE.sub(_character, body)
    if _SURROGATES.search(text) is None:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _character(escape: regex.Match[str]) -> str:
    name: str = escape[1]
    if len(name) > 1:
        return chr(int(name[1:], 16))
    if name in _SHORT:
        return _SHORT[name]
    return name if name in '"\\/' else escape[0]


def _encode(text: str) -> str:
    """Encode the text of a string, without its quotes."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return json.dumps(text, ensure_ascii=False)[1:-1]
