"""Decode an input in parallel with the worker, to report which lines of it cannot be used."""

from __future__ import annotations

from collections import deque

from riverdelta.core.codecs import make_codec
from riverdelta.core.codecs.pieces import Rejected
from riverdelta.core.codecs.provider import NOT_UNDERSTOOD


class Understanding:
    """
    Decode an input as a worker will; pure.

    Codecs are deterministic, so ours finds the same errors as the worker's. It also knows the line,
    and reports a wrong ``--source`` without a worker.

    Attributes:
        chunks: Raw chunks read so far.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._codec = make_codec(source)
        self._rejected_lines: deque[int | None] = deque()
        self._rejected = 0
        self._any = False
        self.chunks = 0

    def read(self, chunk: bytes, line: int | None) -> None:
        """Decode the next raw chunk; *line* is its line number in the file, if it is a line."""
        self.chunks += 1
        for piece in self._codec.decode(chunk):
            if isinstance(piece, Rejected) and piece.code == NOT_UNDERSTOOD:
                continue  # of a whole step, and of no line
            if isinstance(piece, Rejected):
                self._rejected += 1
                self._rejected_lines.append(line)
            else:
                self._any = True

    def next_rejected(self) -> str:
        """Name the chunk of the next ``input.rejected`` event; they come in the order of the input."""
        line = self._rejected_lines.popleft() if self._rejected_lines else None
        return "a chunk" if line is None else f"line {line}"

    @property
    def nothing(self) -> bool:
        """Whether there was input and none of it can be used."""
        return bool(self.chunks) and not self._any

    def complaint(self) -> str | None:
        """Describe what is wrong with the input as a whole; None: nothing."""
        if not self.chunks:
            return "warning: the input was empty"
        if self._any:
            return None
        found, what = self.chunks, "chunk"
        if self._source.endswith("+sse"):
            found, what = self._rejected + self._codec.skipped, "event"
        those = f"none of {found} {what}s" if found > 1 else f"no {what}"
        return f"warning: {those} was understood as {self._source}; is --source right?"
