"""Whether the JSON arguments of a call, which come in pieces, are whole."""

from __future__ import annotations

import re
from typing import Any

_MARK = re.compile(r'["{}\[\]]')
_IN_STRING = re.compile(r'["\\]')


class Arguments:
    """
    Follows the brackets and quotes of JSON text, piece by piece, in time linear in the new text.

    It does not check the JSON: text is *whole* when every bracket and quote that was opened is
    closed. So what was cut is never whole, and what is whole but no JSON is the model's own fault.

    Attributes:
        begun: Something other than white space has come.
    """

    __slots__ = ("_depth", "_escaped", "_in_string", "begun")

    def __init__(self) -> None:
        self.begun = False
        self._depth = 0
        self._in_string = False
        self._escaped = False

    @classmethod
    def of(cls, text: str) -> Arguments:
        """Follow a text that is there already."""
        arguments = cls()
        arguments.feed(text)
        return arguments

    @property
    def whole(self) -> bool:
        """Whether the text could end here."""
        return self.begun and self._depth == 0 and not self._in_string

    def feed(self, text: str) -> None:
        """Take the next piece of the text."""
        if not self.begun:
            if not text.strip():
                return
            self.begun = True
        elif self._in_string and not self._escaped and '"' not in text and "\\" not in text:
            return  # most of all
        at = 0
        if self._escaped and text:
            self._escaped, at = False, 1
        while True:
            pattern = _IN_STRING if self._in_string else _MARK
            mark = pattern.search(text, at)
            if mark is None:
                return
            at = mark.end()
            match mark[0]:
                case '"':
                    self._in_string = not self._in_string
                case "\\":
                    self._escaped = at == len(text)
                    at += 1
                case bracket if self._depth >= 0:  # below: its beginning is missing, for good
                    self._depth += 1 if bracket in "{[" else -1

    def dump(self) -> list[Any]:
        """Everything `load` needs, as JSON values."""
        return [self.begun, self._depth, self._in_string, self._escaped]

    @classmethod
    def load(cls, state: list[Any]) -> Arguments:
        """Undo `dump`."""
        arguments = cls()
        arguments.begun, arguments._depth, arguments._in_string, arguments._escaped = state
        return arguments
