"""
Align the text of a retried provider call with the text already delivered.

A retried call repeats the delivered text, or a part of it, or says something else; this is not known
before its text arrives. `Stitcher` holds the text back while it may still be a repeat; then it lets the
new part go out, or starts the text over.
"""

from __future__ import annotations

from typing import Any, Final, Literal

from riverdelta.core.tracker import Delta, overlap_length

OnOverlap = Literal["stitch", "append", "reset"]

OVERLAP_RULES: Final[tuple[OnOverlap, ...]] = ("stitch", "append", "reset")

MIN_OVERLAP: Final = 8
"""
Shortest overlap, in code points, with the end of the delivered text that counts as a continuation.

A new text may by chance begin with the last letter or short word of the old one. If that counted, the new
text would lose its beginning and be appended to a text that it does not continue.
"""

_NOTHING: Final = Delta("")


class Stitcher:
    """
    Aligns one new text with the delivered text. Not thread-safe.

    With *D* the delivered text and *N* the whole new text:

    - N starts with D: the rest of N is appended.
    - N begins, differently from D or further in, with the last characters of D, at least
      `MIN_OVERLAP` of them and more than N has in common with the start of D: the rest is appended.
    - Anything else: N is the text, and D is void; also where N is only the beginning of D.

    The result depends on N, never on how it was split. N is not stored while it is held: it is a part of D
    then. Linear in both, except for texts that repeat themselves with many periods.

    Args:
        delivered: The text that readers have.
        ended: The delivered text is final: N must equal it, or it is void.

    Attributes:
        settled: The decision is made; from here on text passes through.
    """

    __slots__ = ("_at", "_begun", "_delivered", "_ended", "_length", "settled")

    def __init__(self, delivered: str, *, ended: bool = False) -> None:
        self._delivered = delivered
        self._ended = ended
        self.restart()

    def restart(self) -> None:
        """Forget the new text: another one replaces it."""
        self._at = 0
        """Leftmost index in *delivered* where the held text occurs."""
        self._length = 0
        """Length of the held text."""
        self._begun = 0
        """Length of the common start of the new text and *delivered*."""
        self.settled = not self._delivered and not self._ended

    def add(self, text: str) -> Delta:
        """Take more of the new text and return the text that goes out; nothing while it may be a repeat."""
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
        """End the new text."""
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
        """Return the state that `load` needs beside *delivered*, while not settled."""
        return [self._at, self._length, self._begun]

    def load(self, state: Any) -> None:  # decoded JSON
        """Continue from a *state* that `dump` returned."""
        self._at, self._length, self._begun = state

    def _hold(self, at: int, length: int) -> None:
        self._at, self._length = at, length
        self.settled = at + length == len(self._delivered) and not self._ended

    def _look_further(self, held: str) -> Delta:
        """Find the next occurrence of *held* in the delivered text, or decide."""
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
        """The shortest overlap that counts: longer than the common start of both texts."""
        return max(MIN_OVERLAP, self._begun + 1)

    def _overlap(self, held: str) -> int:
        delivered = self._delivered
        held = held[: len(delivered)]
        # Usually there is no overlap; a search for its first characters finds that out much faster.
        if delivered.find(held[: self._least], len(delivered) - len(held)) < 0:
            return 0
        overlap = overlap_length(delivered, held)
        return overlap if overlap >= self._least else 0


def _common_length(one: str, other: str) -> int:
    """Count the characters that both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))
