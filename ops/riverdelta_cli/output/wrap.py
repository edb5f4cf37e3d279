"""Break streamed text between words at the edge of a terminal."""

from __future__ import annotations

import re
from typing import Final

from rich.cells import cell_len

_PARTS: Final = re.compile(r"\n|[^\S\n]+|\S+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def printable(text: str) -> str:
    """Replace control characters: a reply must not control a terminal."""
    return _CONTROL.sub("\N{REPLACEMENT CHARACTER}", text.replace("\r\n", "\n"))


class Wrapper:
    """
    Track the cursor's column; pure.

    A word is shown as its pieces come. If it does not fit, the part shown is erased and written again
    on the next line. The last column stays free: terminals differ in where the cursor is after it.

    Args:
        width: Columns. None: no terminal; text passes as it is.
    """

    def __init__(self, width: int | None) -> None:
        self._room = None if width is None else max(1, width - 1)
        self.column = 0
        self._word = ""

    def feed(self, text: str) -> list[tuple[int, str]]:
        """Return what to do, in order: how many cells to erase, then what to write."""
        if self._room is None:
            last = text.rpartition("\n")[2]
            self.column = len(last) if "\n" in text else self.column + len(text)
            return [(0, text)]
        steps: list[tuple[int, str]] = []
        for part in _PARTS.findall(text.expandtabs(4)):
            back, out = self._place(part, self._room)
            if back or not steps:
                steps.append((back, out))
            else:
                steps[-1] = (steps[-1][0], steps[-1][1] + out)
        return steps

    def _place(self, part: str, room: int) -> tuple[int, str]:
        if part == "\n":
            self.column, self._word = 0, ""
            return 0, part
        if part.isspace():
            part = part[: room - self.column]  # no space is needed at a line break
            self.column, self._word = self.column + len(part), ""
            return 0, part
        shown = cell_len(self._word)
        self._word += part
        cells = cell_len(self._word)
        if self.column - shown + cells <= room:
            self.column += cells - shown
            return 0, part
        if cells > room:
            return 0, self._break(part, room)
        self.column = cells
        return shown, "\n" + self._word

    def _break(self, part: str, room: int) -> str:
        """Write a word that is longer than a line: break it where the line ends."""
        out = []
        for character in part:
            size = cell_len(character)
            if self.column + size > room:
                out.append("\n")
                self.column, self._word = 0, ""
            out.append(character)
            self._word += character
            self.column += size
        return "".join(out)
