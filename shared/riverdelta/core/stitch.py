"""
How the text of a call that is made again goes on behind what readers have.

A retry says again what was delivered, or a part of it, or something else: nobody knows before its text
comes. `Stitcher` holds that text back while it may still be a repeat; then it lets go what is new, or
says that the text starts over.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from riverdelta.core.tracker import Delta, overlap_length

OnOverlap = Literal["stitch", "append", "reset"]

OVERLAP_RULES: Final[tuple[OnOverlap, ...]] = ("stitch", "append", "reset")

MIN_OVERLAP: Final = 8
"""
Code points at the end of what was delivered that a call which goes on from its middle has to say again.

A new text that happens to begin with the letter, or the short word, that the old one ends with is not a
repeat of it: it would lose its beginning, and stand behind a text that it does not follow.
"""

_NOTHING: Final = Delta("")


class Stitcher:
    """
    Aligns one text with what was delivered of the text before it. Not thread-safe.

    With *D* delivered and *N* the new text, all of it:

    - N starts with D: the rest of N goes on.
    - N begins, differently from D or further in, with the last characters of D, at least
      `MIN_OVERLAP` of them and more than N has in common with the start of D: the rest goes on.
    - Anything else: N is the text, and D is void. So is it where N is only the beginning of D.

    What comes of it depends on N, never on how it was split. Nothing is kept of N while it is held:
    it is a part of D then. Linear in both, but for texts that repeat themselves with many periods.

    Args:
        delivered: What readers have.
        ended: That text has an end, which may not be moved: it is the same again, all of it, or void.

    Attributes:
        settled: It is known how the text goes on; from here on it passes through.
    """

    __slots__ = ("_at", "_begun", "_delivered", "_ended", "_length", "settled")

    def __init__(self, delivered: str, *, ended: bool = False) -> None:
        self._delivered = delivered
        self._ended = ended
        self.restart()

    def restart(self) -> None:
        """Forget the new text: another comes in its place."""
        self._at = 0
        """The leftmost place in *delivered* that says what is held."""
        self._length = 0
        """Characters held."""
        self._begun = 0
        """Characters that the new text has in common with the start of *delivered*."""
        self.settled = not self._delivered and not self._ended

    def add(self, text: str) -> Delta:
        """Take more of the new text and return what goes out; nothing while it may be a repeat."""
        if self.settled:
            return Delta(text)
        delivered, known = self._delivered, self._at + self._length
        if delivered.startswith(text, known):
            self._hold(self._at, self._length + len(text))
            return _NOTHING
        missing = len(delivered) - known
        if not self._ended and missing < len(text) and text.startswith(delivered[known:]):
            self.settled = True
            return Delta(text[missing:])
        if self._at == 0:
            expected = delivered[known : known + len(text)]
            self._begun = self._length + _common_length(expected, text)
        return self._look_further(delivered[self._at : known] + text)

    def finish(self) -> Delta:
        """Take the end of the new text."""
        if self.settled:
            return _NOTHING
        same = self._at == 0 and self._length == len(self._delivered)
        if self._ended and same:
            self.settled = True
            return _NOTHING
        if self._at == 0:
            self._begun = self._length
        return self._settle(self._delivered[self._at : self._at + self._length])

    def dump(self) -> list[int]:
        """Everything `load` needs beside *delivered*, while it is not settled."""
        return [self._at, self._length, self._begun]

    def load(self, state: Any) -> None:  # decoded JSON
        """Take up where the stitcher that made *state* was."""
        self._at, self._length, self._begun = state

    def _hold(self, at: int, length: int) -> None:
        self._at, self._length = at, length
        self.settled = at + length == len(self._delivered) and not self._ended

    def _look_further(self, held: str) -> Delta:
        """*held* does not stand where it seemed to: find the next place, or decide."""
        at = -1 if self._ended else self._delivered.find(held, self._at + 1)
        if at < 0 or len(self._delivered) - at < self._least:
            return self._settle(held)
        self._hold(at, len(held))
        return _NOTHING

    def _settle(self, held: str) -> Delta:
        self.settled = True
        overlap = 0 if self._ended else self._overlap(held)
        return Delta(held[overlap:]) if overlap else Delta(held, reset=True)

    @property
    def _least(self) -> int:
        """The shortest overlap that counts. A call that began as the first one did was made anew."""
        return max(MIN_OVERLAP, self._begun + 1)

    def _overlap(self, held: str) -> int:
        delivered = self._delivered
        held = held[: len(delivered)]
        # Mostly there is none, which a search for its first characters shows much faster.
        if delivered.find(held[: self._least], len(delivered) - len(held)) < 0:
            return 0
        overlap = overlap_length(delivered, held)
        return overlap if overlap >= self._least else 0


def _common_length(one: str, other: str) -> int:
    """Count the characters with which both begin."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
