"""
Incremental JSON parser: text in pieces, cut anywhere. Every character is read once.

After each piece, everything that is certain is known: containers and strings from where they open, a
number once something ends it, a literal at its last letter. Strict (RFC 8259): a document is refused at
the first character after which no continuation is valid.

The grammar is in tables: within tokens in `tokens.TOKENS`, between them in `_ACTIONS` at the end of this
module. The code walks them with a stack of its own, so that depth costs no recursion.

A long string grows in place while the live value shows it. CPython extends a string without a copy only
if there is one reference to it; so the string is taken out of its container while it grows.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeAlias

from riverdelta.core.errors import RiverdeltaError
from riverdelta.core.json_stream.patches import Patch, Path
from riverdelta.core.json_stream.tokens import (
    DIGIT_RUNS,
    ESCAPE_STATES,
    FIRST,
    LITERAL_END,
    LITERALS,
    NUMBER_ENDS,
    SHORT_ESCAPES,
    TOKEN_ENDS,
    TOKENS,
    unescape,
    wire_number,
)

Container: TypeAlias = list[Any] | dict[str, Any]

MAX_DEPTH: Final = 128
"""Open containers at once: far above any tool call, far below the limit of recursive parsers."""


MAX_PATH: Final = 4096
"""Length of a value's path: the characters of its keys, and one for each index and for the value itself."""

MAX_PATHS: Final = 4 * 1024 * 1024
"""
Length of the paths of all values together. Each patch holds a path: a long key around many short values
would make a thousand times as much of a document. Enough for 300,000 values in records with keys of ten
characters.
"""


class JsonStreamError(RiverdeltaError, ValueError):
    """
    The text is not valid JSON: a bug of the producer, do not retry. Only this stream is affected.

    Attributes:
        reason: What was expected. Never quotes the text, which may be a secret.
        offset: Of the first character after which no continuation is valid, in code points from the
            start of the stream; the length of the text where `JsonStream.close` found it incomplete.
        patches: Patches of the failed `JsonStream.feed`, up to the error: apply them. Empty where a
            failed stream is fed again, so that nothing is applied twice.
    """

    def __init__(self, reason: str, offset: int, patches: Sequence[Patch] = ()) -> None:
        super().__init__(f"{reason} at offset {offset}")
        self.reason = reason
        self.offset = offset
        self.patches = list(patches)


class JsonStream:
    """
    Parses one JSON document in pieces. Pure, not thread-safe; never recurses.

    After every `feed`, all patches so far, applied in order, give `value`; once `complete`, that equals
    the result of ``json.loads`` (see `wire_number`), for any split of the text. The first patch of a
    string sets it to the text known after that feed, later ones append: at most one patch per string and
    feed. A member of an object appears only when its key and colon are complete and its value begins. A
    repeated key sets its member again; the last one wins. Without repeated keys a value only grows:
    arrays and objects at their end, strings by appending; everything else is final.

    Nothing of the text is kept except the value and an unfinished token: a new owner feeds the stored
    text once.

    Paths that are too long, one of them (`MAX_PATH`) or all together (`MAX_PATHS`), are an error.

    Args:
        max_depth: Containers that may be open at once; one more is an error.

    Raises:
        ValueError: *max_depth* is negative; a caller bug.
    """

    __slots__ = (
        "_after",
        "_base",
        "_base_length",
        "_container",
        "_failure",
        "_fresh",
        "_grows",
        "_in_value",
        "_key",
        "_max_depth",
        "_offset",
        "_parts",
        "_patches",
        "_path",
        "_paths_length",
        "_root",
        "_slot",
        "_stack",
        "_state",
        "_token",
        "_token_text",
    )

    def __init__(self, max_depth: int = MAX_DEPTH) -> None:
        if max_depth < 0:
            raise ValueError(f"max_depth is {max_depth}: it must be 0 or more")
        self._max_depth = max_depth
        self._offset = 0
        """Code points read before the current feed."""
        self._failure: tuple[str, int] | None = None
        self._patches: list[Patch] = []
        # What may come next, and what may come after the value that is being read.
        self._state = _VALUE
        self._after = _END
        # The innermost open container with its path, and those around it. The root is held by a list
        # that no path mentions, so that every value has a container and a slot in it.
        self._root: list[Any] = []
        self._container: Container = self._root
        self._base: Path | None = None
        self._base_length = 0
        self._paths_length = 0
        self._stack: list[tuple[Container, Path | None, int, int]] = []
        self._key = ""
        # The string being read: its new parts in this feed (all parts of a key), and its place.
        self._parts: list[str] = []
        self._in_value = False
        """Inside the quotes of a string that is not a key."""
        self._fresh = False
        self._slot: Any = 0
        self._path: Path = ()
        self._grows = False
        """Between feeds: inside a string value that has a patch, and outside an escape."""
        # The number, literal or escape being read.
        self._token = ""
        self._token_text: list[str] = []

    @property
    def value(self) -> Any:
        """
        The value so far; None before anything is certain (also for the document ``null``: see `complete`).

        The live object, which the next feed changes: read it, do not change it. You may keep references to
        its containers, but not to the string that is growing: a second reference makes the next feed copy
        it.
        """
        return self._root[0] if self._root else None

    @property
    def complete(self) -> bool:
        """Whether the text so far is a whole document. A number at the root needs an end: `close`."""
        return self._state == _END and self._failure is None

    def feed(self, text: str) -> list[Patch]:
        """
        Read the next piece of text and return the patches that became certain.

        Raises:
            JsonStreamError: No continuation of the text is valid. `value` keeps what was certain before;
                its patches are in the error. Every later call raises again, without patches.
        """
        # Fast path: most pieces are a few characters inside a long string. Printable characters
        # are neither control characters nor surrogates.
        if self._grows and text.isprintable() and '"' not in text and "\\" not in text:
            if not text:
                return []
            self._offset += len(text)
            container, slot = self._container, self._slot
            grown = container[slot]
            container[slot] = None
            grown += text
            container[slot] = grown
            return [_new_patch(Patch, (self._path, "append", text))]
        return self._read(text)

    def close(self) -> list[Patch]:
        """
        End the text, which completes a number at the root; return its patch.

        Raises:
            JsonStreamError: The document is incomplete, or was invalid before.
        """
        self._raise_failure()
        if self._state == _TOKEN and not self._stack and self._token in NUMBER_ENDS:
            self._end_number(0)
        if self._state != _END:
            self._refuse("the document is incomplete", 0)
        return self._take_patches()

    # -- reading ---------------------------------------------------------------------------------

    def _read(self, text: str) -> list[Patch]:
        self._raise_failure()
        self._grows = False
        at, length = 0, len(text)
        while at < length:
            state = self._state
            if state == _STRING:
                at = self._string(text, at)
            elif state == _TOKEN:
                at = self._walk(text, at)
            elif (char := text[at]) in _WHITESPACE:
                at = _skip_whitespace(text, at).end()  # type: ignore[union-attr]  # matches ""
            elif (action := _ACTIONS[state].get(char)) is not None:
                at = action(self, text, at)
            else:
                self._refuse(_EXPECTED[state], at)
        self._offset += length
        return self._take_patches()

    def _take_patches(self) -> list[Patch]:
        if self._in_value:
            self._flush()
            self._grows = self._state == _STRING
        patches, self._patches = self._patches, []
        return patches

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise JsonStreamError(*self._failure)

    def _refuse(self, reason: str, at: int) -> None:
        """Fail at *at* of the current feed, with the patches so far."""
        patches = self._take_patches()
        self._grows = False
        self._failure = reason, self._offset + at
        raise JsonStreamError(*self._failure, patches)

    def _string(self, text: str, at: int) -> int:
        """Read a string or key, up to its end, an escape of the slow path, or the end of *text*."""
        parts = self._parts
        while True:
            end = _skip_plain(text, at).end()  # type: ignore[union-attr]  # matches ""
            if end > at:
                parts.append(text[at:end])
            char = text[end : end + 1]
            if char == '"':
                self._end_string()
                return end + 1
            if char != "\\":
                if char:
                    self._refuse("a control character or half a surrogate pair in a string", end)
                return end
            plain = SHORT_ESCAPES.get(text[end + 1 : end + 2])
            if plain is None:
                return self._begin_token(text, end)
            parts.append(plain)
            at = end + 2

    def _end_string(self) -> None:
        if self._in_value:
            self._flush()
            self._in_value = False
            self._state = self._after
        else:
            self._key = "".join(self._parts)
            self._parts.clear()
            self._state = _COLON

    def _flush(self) -> None:
        """Append this feed's parts to the open string in the value, and make its patch."""
        parts = self._parts
        text = parts[0] if len(parts) == 1 else "".join(parts)
        parts.clear()
        container, slot = self._container, self._slot
        if self._fresh:
            self._fresh = False
            container[slot] = text
            self._patches.append(_new_patch(Patch, (self._path, "set", text)))
        elif text:
            grown = container[slot]
            container[slot] = None
            grown += text
            container[slot] = grown
            self._patches.append(_new_patch(Patch, (self._path, "append", text)))

    def _begin_token(self, text: str, at: int) -> int:
        self._token = FIRST[text[at]]
        self._state = _TOKEN
        self._token_text.append(text[at])
        return self._walk(text, at + 1)

    def _walk(self, text: str, at: int) -> int:
        """Continue reading a number, literal or escape."""
        token, begin, length = self._token, at, len(text)
        while at < length:
            following = TOKENS[token].get(text[at])
            if following is None:
                self._token = token
                if token not in NUMBER_ENDS:
                    self._refuse(_EXPECTED_IN_TOKEN[token in ESCAPE_STATES], at)
                self._token_text.append(text[begin:at])
                self._end_number(at)
                return at
            token = following
            at += 1
            if token in DIGIT_RUNS:
                at = _skip_digits(text, at).end()  # type: ignore[union-attr]  # matches ""
            elif token in TOKEN_ENDS:
                self._token_text.append(text[begin:at])
                self._end_token(token, at)
                return at
        self._token = token
        self._token_text.append(text[begin:])
        return at

    def _take_token_text(self) -> str:
        token_text = "".join(self._token_text)
        self._token_text.clear()
        return token_text

    def _end_number(self, at: int) -> None:
        self._scalar(wire_number(self._take_token_text()), at)

    def _end_token(self, token: str, at: int) -> None:
        token_text = self._take_token_text()
        if token == LITERAL_END:
            self._scalar(LITERALS[token_text], at)
        else:
            self._parts.append(unescape(token_text))
            self._state = _STRING

    # -- values and their places -----------------------------------------------------------------

    def _place(self, value: Any, at: int) -> tuple[Any, Path, int]:
        """Store *value* at the next position; return its slot, its path, and the path's length."""
        container = self._container
        slot: str | int
        length = self._base_length + 1 + (len(self._key) if type(container) is dict else 0)
        self._paths_length += length
        if length > MAX_PATH or self._paths_length > MAX_PATHS:
            self._refuse("the paths of the values are too long", at)
        if type(container) is dict:
            slot = self._key
            container[slot] = value
        else:
            slot = len(container)
            container.append(value)  # type: ignore[union-attr]  # a list, as it is no dict
        return slot, () if self._base is None else (*self._base, slot), length

    def _scalar(self, value: Any, at: int) -> None:
        _, path, _ = self._place(value, at)
        self._patches.append(_new_patch(Patch, (path, "set", value)))
        self._state = self._after

    def _open(self, container: Container, at: int, first: int, after: int) -> int:
        if len(self._stack) >= self._max_depth:
            self._refuse(f"no more than {self._max_depth} open containers", at)
        _, path, length = self._place(container, at)
        self._patches.append(_new_patch(Patch, (path, "set", container.copy())))
        self._stack.append((self._container, self._base, self._base_length, self._after))
        self._container, self._base, self._base_length = container, path, length
        self._after = after
        self._state = first
        return at + 1

    # -- actions: effect of a character between tokens; each returns where to continue -----------

    def _open_object(self, _text: str, at: int) -> int:
        return self._open({}, at, _FIRST_KEY, _AFTER_MEMBER)

    def _open_array(self, _text: str, at: int) -> int:
        return self._open([], at, _FIRST_ITEM, _AFTER_ITEM)

    def _close(self, _text: str, at: int) -> int:
        self._container, self._base, self._base_length, self._after = self._stack.pop()
        self._state = self._after
        return at + 1

    def _open_string(self, text: str, at: int) -> int:
        self._slot, self._path, _ = self._place("", at)
        self._in_value = self._fresh = True
        self._state = _STRING
        return self._string(text, at + 1)

    def _open_key(self, text: str, at: int) -> int:
        self._state = _STRING
        return self._string(text, at + 1)

    def _await_value(self, _text: str, at: int) -> int:
        self._state = _VALUE
        return at + 1

    def _await_key(self, _text: str, at: int) -> int:
        self._state = _KEY
        return at + 1


_new_patch: Final = tuple.__new__
"""A third of the time of ``Patch(...)``, which goes through a Python function."""


_WHITESPACE: Final = " \t\n\r"
_skip_whitespace: Final = re.compile(r"[ \t\n\r]*").match
_skip_plain: Final = re.compile(r'[^"\\\x00-\x1f\ud800-\udfff]*').match
_skip_digits: Final = re.compile(r"[0-9]*").match

# -- between tokens: state -> character -> action --------------------------------------------------

_Action: TypeAlias = Callable[[JsonStream, str, int], int]

(
    _STRING,
    _TOKEN,
    _VALUE,
    _FIRST_ITEM,
    _FIRST_KEY,
    _KEY,
    _COLON,
    _AFTER_ITEM,
    _AFTER_MEMBER,
    _END,
) = range(10)

# ruff: noqa: SLF001  # the tables belong to the class
_ON_VALUE: Final[dict[str, _Action]] = {
    '"': JsonStream._open_string,
    "{": JsonStream._open_object,
    "[": JsonStream._open_array,
    **dict.fromkeys("-0123456789tfn", JsonStream._begin_token),
}
_ACTIONS: Final[dict[int, dict[str, _Action]]] = {
    _VALUE: _ON_VALUE,
    _FIRST_ITEM: {**_ON_VALUE, "]": JsonStream._close},
    _FIRST_KEY: {'"': JsonStream._open_key, "}": JsonStream._close},
    _KEY: {'"': JsonStream._open_key},
    _COLON: {":": JsonStream._await_value},
    _AFTER_ITEM: {",": JsonStream._await_value, "]": JsonStream._close},
    _AFTER_MEMBER: {",": JsonStream._await_key, "}": JsonStream._close},
    _END: {},
}
_EXPECTED: Final[dict[int, str]] = {
    _VALUE: "a value was expected",
    _FIRST_ITEM: "a value or ] was expected",
    _FIRST_KEY: "a key or } was expected",
    _KEY: "a key was expected",
    _COLON: "a colon was expected",
    _AFTER_ITEM: "a comma or ] was expected",
    _AFTER_MEMBER: "a comma or } was expected",
    _END: "nothing was expected after the document",
}
_EXPECTED_IN_TOKEN: Final = ("a number or literal breaks off", "no such escape in a string")
