"""Track how much of a text was delivered, so that its full form at the end adds only the rest."""

from __future__ import annotations

from typing import Any
from zlib import crc32

_NOTHING = (0, 0)


class Sent:
    """
    Length and checksum of the text given out per track.

    The text itself is not kept: state is stored at every commit and must stay small. The checksum
    tells whether the full text goes on where the deltas stopped, or is another text altogether
    (then what went out stands).
    """

    def __init__(self) -> None:
        self._tracks: dict[str, tuple[int, int]] = {}

    def __contains__(self, track: str) -> bool:
        return track in self._tracks

    def note(self, track: str, text: str) -> None:
        """Remember that *text* went out on *track*."""
        self.note_all((track,), text)

    def note_all(self, tracks: tuple[str, ...], text: str) -> None:
        """Remember that *text* went out on each of *tracks*."""
        if not text:
            return
        data, size = _bytes(text), len(text)
        for track in tracks:
            length, checksum = self._tracks.get(track, _NOTHING)
            self._tracks[track] = (length + size, crc32(data, checksum))

    def rest(self, track: str, full: str) -> str:
        """Return what *full* has beyond the delivered text, and count it as delivered."""
        if not self.begins(track, full):
            return ""
        missing = full[self._tracks.get(track, (0, 0))[0] :]
        self.note(track, missing)
        return missing

    def begins(self, track: str, full: str) -> bool:
        """Whether *full* begins with all that went out."""
        length, checksum = self._tracks.get(track, (0, 0))
        return length <= len(full) and (not length or crc32(_bytes(full[:length])) == checksum)

    def is_all(self, track: str, text: str) -> bool:
        """Whether *text* is exactly what went out."""
        length, checksum = self._tracks.get(track, (0, 0))
        return length == len(text) and length > 0 and crc32(_bytes(text)) == checksum

    def end_in(self, track: str, full: str, begin: int) -> int | None:
        """Tell where in *full* the delivered text ends if it begins at *begin*; None: it does not."""
        length, checksum = self._tracks.get(track, _NOTHING)
        end = begin + length
        is_there = end <= len(full) and crc32(_bytes(full[begin:end])) == checksum
        return end if is_there else None

    def clear(self) -> None:
        """Drop all tracks."""
        self._tracks.clear()

    def dump(self) -> list[list[Any]]:
        """Encode the tracks as JSON values."""
        return [[track, *numbers] for track, numbers in self._tracks.items()]

    def load(self, state: list[list[Any]]) -> None:
        """Undo `dump`."""
        self._tracks = {track: (length, checksum) for track, length, checksum in state}


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
