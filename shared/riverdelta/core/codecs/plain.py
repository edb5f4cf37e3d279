"""Sources `text` and `text-snapshot`: the bytes are the reply."""

from __future__ import annotations

import base64
import codecs
import re

from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkStart,
    Codec,
    CodecState,
    Mode,
    Piece,
    Rejected,
    StepEnd,
    StepStart,
    Text,
)
from riverdelta.core.codecs.surrogates import Halves, dump_halves, join_halves, load_halves

KEY = "text"
"""The key of the only chunk."""

_ESCAPED_RUN = re.compile("([\udc80-\udcff]+)")
_HALF_IN_BYTES = re.compile(rb"(\xed[\xa0-\xbf][\x80-\xbf])")
_LONGEST_CUT = 3
"""Bytes of an unfinished UTF-8 sequence, at most."""


class _PlainCodec(Codec):
    """One step with one text chunk, from the first text to the producer's end."""

    _mode: Mode

    def __init__(self) -> None:
        self.skipped = 0
        self._in_step = False

    def _add(self, text: str, out: list[Piece]) -> None:
        if not text:
            return
        if not self._in_step:
            self._in_step = True
            out.append(StepStart(None))
            out.append(ChunkStart(KEY, "text", mode=self._mode))
        out.append(Text(KEY, text))

    def _end(self, out: list[Piece]) -> None:
        """The producer's end is the only end these sources have, so it counts as `stop`."""
        if self._in_step:
            self._in_step = False
            out.append(ChunkEnd(KEY))
            out.append(StepEnd("stop", None, None))


class TextCodec(_PlainCodec):
    """
    Source `text`: each push goes on where the last one stopped.

    UTF-8 may be cut at any byte. Bytes that are no UTF-8 are left out, with one `Rejected` per
    push; what is good around them counts. Lone surrogate halves come as `surrogatepass` encodes
    them.
    """

    _mode: Mode = "append"

    def __init__(self) -> None:
        super().__init__()
        self._cut = b""
        self._halves: Halves = {}

    def decode(self, raw: bytes) -> list[Piece]:
        """Take the next bytes of the text; see `Codec.decode`."""
        if self._cut:
            raw = self._cut + raw
            self._cut = b""
        out: list[Piece] = []
        try:
            self._add(raw.decode(), out)
        except UnicodeDecodeError:
            self._decode_odd(raw, out)
            return join_halves(out, self._halves)
        return join_halves(out, self._halves) if self._halves else out

    def finish(self) -> list[Piece]:
        """End the step, if text ever came; see `Codec.finish`."""
        out: list[Piece] = []
        if self._cut:
            self._cut = b""
            out.append(Rejected("invalid_utf8", "the text ends inside a character"))
        self._end(out)
        return join_halves(out, self._halves)

    def dump(self) -> CodecState:
        """Everything `load` needs; see `Codec.dump`."""
        return {
            "in_step": self._in_step,
            "cut": base64.b64encode(self._cut).decode(),
            "halves": dump_halves(self._halves),
            "skipped": self.skipped,
        }

    def load(self, state: CodecState) -> None:
        """Go on where *state* was dumped; see `Codec.load`."""
        self._in_step = state["in_step"]
        self._cut = base64.b64decode(state["cut"])
        self._halves = load_halves(state["halves"])
        self.skipped = state["skipped"]

    def _decode_odd(self, raw: bytes, out: list[Piece]) -> None:
        whole, self._cut = split_cut_character(raw)
        bad = 0
        for number, part in enumerate(_ESCAPED_RUN.split(whole.decode("utf-8", "surrogateescape"))):
            if number % 2 == 0:
                self._add(part, out)
                continue
            run = part.encode("utf-8", "surrogateescape")
            for half_or_junk in filter(None, _HALF_IN_BYTES.split(run)):
                if _HALF_IN_BYTES.fullmatch(half_or_junk):
                    self._add(half_or_junk.decode("utf-8", "surrogatepass"), out)
                else:
                    bad += len(half_or_junk)
        if bad:
            out.append(Rejected("invalid_utf8", f"{bad} bytes are no UTF-8 and were left out"))


class SnapshotCodec(_PlainCodec):
    """
    Source `text-snapshot`: each push is the whole text so far.

    A push that ends inside a character is taken without that end: the next one has it whole. A
    push with other bytes that are no UTF-8 is rejected as a whole; the next one makes up for it.
    """

    _mode: Mode = "snapshot"

    def decode(self, raw: bytes) -> list[Piece]:
        """Take the text so far; see `Codec.decode`."""
        out: list[Piece] = []
        try:
            self._add(raw.decode(), out)
        except UnicodeDecodeError:
            self._decode_odd(raw, out)
        return out

    def finish(self) -> list[Piece]:
        """End the step, if text ever came; see `Codec.finish`."""
        out: list[Piece] = []
        self._end(out)
        return out

    def dump(self) -> CodecState:
        """Everything `load` needs; see `Codec.dump`."""
        return {"in_step": self._in_step, "skipped": self.skipped}

    def load(self, state: CodecState) -> None:
        """Go on where *state* was dumped; see `Codec.load`."""
        self._in_step = state["in_step"]
        self.skipped = state["skipped"]

    def _decode_odd(self, raw: bytes, out: list[Piece]) -> None:
        whole, _ = split_cut_character(raw)
        pieces: list[Piece] = []
        try:
            self._add(whole.decode("utf-8", "surrogatepass"), pieces)
        except UnicodeDecodeError as error:
            out.append(Rejected("invalid_utf8", f"the text so far is no UTF-8: {error.reason}"))
            return
        out.extend(join_halves(pieces, {}))


def split_cut_character(raw: bytes) -> tuple[bytes, bytes]:
    """Split *raw* before a character that is unfinished at its end (a surrogate half is one)."""
    for length in range(1, min(_LONGEST_CUT, len(raw)) + 1):
        tail = raw[-length:]
        if tail[0] & 0xC0 == 0x80:  # a continuation byte: its beginning is further left
            continue
        try:
            _, used = codecs.utf_8_decode(tail, "surrogatepass", False)  # noqa: FBT003 - C function
        except UnicodeDecodeError:
            break
        return (raw, b"") if used else (raw[:-length], tail)
    return raw, b""
