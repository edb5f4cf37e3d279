"""Track a text that arrives in pieces, and return the new part of each increment or snapshot."""

from __future__ import annotations

import threading
from typing import Literal, NamedTuple

Mode = Literal["append", "snapshot"]
OnMismatch = Literal["emit", "hold", "stitch", "reset"]

MODES: tuple[Mode, ...] = ("append", "snapshot")
MISMATCH_RULES: tuple[OnMismatch, ...] = ("emit", "hold", "stitch", "reset")


class Delta(NamedTuple):
    """The new text of one chunk. *reset*: all earlier text of the chunk id is void."""

    text: str
    reset: bool = False


_NOTHING = Delta("")


class TextTrack:
    """
    The text of one chunk id so far. Not thread-safe.

    In snapshot mode *last* is the last chunk that gave a delta. It is a suffix of the complete text, and
    so only its length is stored, except after a chunk that repeated *last* behind new leading text; then it
    is stored in full (`_odd_last`).
    """

    __slots__ = ("_complete", "_last_length", "_odd_last", "mode", "on_mismatch")

    def __init__(self, mode: Mode, on_mismatch: OnMismatch) -> None:
        self.mode = mode
        self.on_mismatch = on_mismatch
        self._complete = ""
        self._last_length = 0
        self._odd_last: str | None = None

    @property
    def complete(self) -> str:
        """All text so far."""
        return self._complete

    @property
    def last(self) -> str:
        """The last chunk that gave a delta ("" before the first)."""
        if self._odd_last is not None:
            return self._odd_last
        if self._last_length == len(self._complete):
            return self._complete
        return self._complete[len(self._complete) - self._last_length :]

    def remembered(self) -> tuple[int, str | None]:
        """State that `restore` needs beside the text: length of *last*, or *last* if it is not a suffix."""
        return self._last_length, self._odd_last

    def restore(self, complete: str, last_length: int, odd_last: str | None) -> None:
        """Continue a text that is *complete* so far; see `remembered`."""
        self._complete = complete
        self._last_length = last_length
        self._odd_last = odd_last

    def add(self, chunk: str) -> Delta:
        """Add a chunk and return its delta; the state changes only where the delta is not empty."""
        if self.mode == "append":
            if chunk:
                self._extend(chunk)
            return Delta(chunk)
        last = self.last
        if not last or chunk.startswith(last):
            return self._grow(chunk, len(last))
        at = chunk.find(last)
        if at < 0:
            return self._mismatch(chunk)
        rest = chunk[at + len(last) :]
        if not rest:
            return _NOTHING
        self._extend(rest)
        self._odd_last = chunk
        return Delta(rest)

    def _grow(self, chunk: str, known: int) -> Delta:
        """Add a *chunk* that contains *last*: the delta is what follows its first *known* characters."""
        rest = chunk[known:]
        if not rest:
            return _NOTHING
        if self._odd_last is not None:
            self._extend(rest)
            self._odd_last = chunk
            return Delta(rest)
        if known == len(self._complete):
            self._complete = chunk  # *last* is the whole text: take the caller's string, no copy
        else:
            self._extend(rest)
        self._last_length = len(chunk)
        return Delta(rest)

    def _mismatch(self, chunk: str) -> Delta:
        if self.on_mismatch == "hold" or not chunk:
            return _NOTHING
        if self.on_mismatch == "reset":
            self._complete, self._last_length, self._odd_last = chunk, len(chunk), None
            return Delta(chunk, reset=True)
        overlap = overlap_length(self._complete, chunk) if self.on_mismatch == "stitch" else 0
        rest = chunk[overlap:]
        if not rest:
            return _NOTHING
        self._extend(rest)
        self._last_length, self._odd_last = len(chunk), None
        return Delta(rest)

    def _extend(self, text: str) -> None:
        # CPython appends in place only while a single local name refers to the string; through the
        # attribute every append would copy the whole text.
        complete = self._complete
        self._complete = ""
        complete += text
        self._complete = complete


def overlap_length(text: str, chunk: str) -> int:
    """
    Return the length of the longest suffix of *text* that *chunk* starts with; linear in *chunk*.

    Knuth, Morris and Pratt: run the tail of *text* through the prefix automaton of *chunk*.
    """
    tail = text[-len(chunk) :] if chunk else ""
    failure = [0] * len(chunk)
    matched = 0
    for i in range(1, len(chunk)):
        while matched and chunk[i] != chunk[matched]:
            matched = failure[matched - 1]
        if chunk[i] == chunk[matched]:
            matched += 1
        failure[i] = matched
    matched = 0
    for i, char in enumerate(tail):
        while matched and (matched == len(chunk) or char != chunk[matched]):
            matched = failure[matched - 1]
        if char == chunk[matched]:
            matched += 1
        if matched == len(chunk) and i + 1 < len(tail):
            matched = failure[matched - 1]
    return matched


class ChunkTracker:
    """
    Returns the new text of each chunk, for many chunk ids at once. Safe from several threads.

    Args:
        mode: ``"append"``: a chunk is an increment. ``"snapshot"``: a chunk is all text so far. It
            cannot be guessed: increments read as snapshots lose text ("ha", "ha" gives "ha", "").
        on_mismatch: Rule for a snapshot that does not contain the one before. ``"emit"``: the whole
            snapshot is the delta. ``"hold"``: no delta, state unchanged. ``"stitch"``: it continues
            the text behind their longest overlap. ``"reset"``: the text starts over with it.

    Raises:
        ValueError: An unknown *mode* or *on_mismatch*; a caller bug.
    """

    def __init__(self, mode: Mode = "snapshot", on_mismatch: OnMismatch = "emit") -> None:
        if mode not in MODES:
            message = f"mode {mode!r} is unknown: use one of {', '.join(MODES)}"
            raise ValueError(message)
        if on_mismatch not in MISMATCH_RULES:
            message = (
                f"on_mismatch {on_mismatch!r} is unknown: use one of {', '.join(MISMATCH_RULES)}"
            )
            raise ValueError(message)
        self._mode = mode
        self._on_mismatch = on_mismatch
        self._tracks: dict[str, TextTrack] = {}
        self._lock = threading.Lock()

    def add_chunk(self, chunk_id: str, chunk: str) -> str:
        """Add *chunk* to *chunk_id* and return its new text ("" where there is none)."""
        return self.add(chunk_id, chunk).text

    def add(self, chunk_id: str, chunk: str) -> Delta:
        """Like `add_chunk`, but also returns whether the text started over (rule ``"reset"``)."""
        with self._lock:
            track = self._tracks.get(chunk_id)
            if track is None:
                track = self._tracks[chunk_id] = TextTrack(self._mode, self._on_mismatch)
            return track.add(chunk)

    def get_complete_text(self, chunk_id: str) -> str | None:
        """Return all text of *chunk_id*: None if it was never seen, "" after an empty first chunk."""
        with self._lock:
            track = self._tracks.get(chunk_id)
            return None if track is None else track.complete

    def clear_chunk(self, chunk_id: str) -> None:
        """Forget *chunk_id*; an unknown id is no error."""
        with self._lock:
            self._tracks.pop(chunk_id, None)
