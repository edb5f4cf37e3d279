"""
Sources `…+sse`: the raw bytes of a provider's response, cut anywhere.

The decoder follows the event stream format of the WHATWG HTML standard, section 9.2. Only `data`
matters here: the providers' JSON says its own type.
"""

from __future__ import annotations

import base64

from riverdelta.core.codecs.pieces import Codec, CodecState, Piece, Rejected

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""
Room for the largest event seen (a finished response of a long agent run, some 1 MiB), and little
enough that a stream which never ends a frame cannot grow a worker or the state it stores.
"""

_BOM = b"\xef\xbb\xbf"


class TooLarge:
    """Stands among the frames for one that was dropped because of its size."""


TOO_LARGE = TooLarge()


class SseDecoder:
    """
    Bytes in, the data of whole frames out.

    Work is in proportion to the new bytes: what is pending is kept in parts and not looked at
    again before its line or frame ends.
    """

    def __init__(self) -> None:
        self._at_start = True
        self._start = b""
        """The first bytes, while they may still become a byte order mark."""
        self._after_cr = False
        self._line: list[bytes] = []
        self._data: list[bytes] = []
        self._size = 0
        """Bytes kept in `_line` and `_data`."""
        self._dropping = False
        """The frame is too large: nothing of it is kept until the blank line that ends it."""

    def feed(self, raw: bytes) -> list[bytes | TooLarge]:
        """Take the next bytes; give the data of each frame they end."""
        if self._at_start:
            raw = self._without_bom(raw)
        if not raw:
            return []
        if self._after_cr and raw[:1] == b"\n":
            raw = raw[1:]
            self._after_cr = False
            if not raw:
                return []
        self._after_cr = raw.endswith(b"\r")
        if b"\r" in raw:
            raw = raw.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        frames: list[bytes | TooLarge] = []
        *ended, last = raw.split(b"\n")
        for part in ended:
            line = part
            if self._line:
                self._line.append(part)
                line = b"".join(self._line)
                self._size -= len(line) - len(part)
                self._line.clear()
            self._take_line(line, frames)
        if last:
            self._keep(self._line, last, frames)
        return frames

    def close(self) -> bytes | None:
        """Give the data of a last frame that nothing ended, if there is any; feed no more."""
        if not self._dropping and self._line:
            self._take_line(b"".join(self._line), [])
        return b"\n".join(self._data) or None

    def dump(self) -> CodecState:
        """Spell what is pending as JSON values."""
        return {
            "at_start": self._at_start,
            "start": _b64(self._start),
            "after_cr": self._after_cr,
            "line": _b64(b"".join(self._line)),
            "data": [_b64(line) for line in self._data],
            "dropping": self._dropping,
        }

    def load(self, state: CodecState) -> None:
        """Undo `dump`."""
        self._at_start = state["at_start"]
        self._start = base64.b64decode(state["start"])
        self._after_cr = state["after_cr"]
        line = base64.b64decode(state["line"])
        self._line = [line] if line else []
        self._data = [base64.b64decode(line) for line in state["data"]]
        self._size = len(line) + sum(len(data) + 1 for data in self._data)
        self._dropping = state["dropping"]

    def _without_bom(self, raw: bytes) -> bytes:
        raw = self._start + raw
        if len(raw) < len(_BOM) and _BOM.startswith(raw):
            self._start = raw
            return b""
        self._at_start = False
        self._start = b""
        return raw.removeprefix(_BOM)

    def _take_line(self, line: bytes, frames: list[bytes | TooLarge]) -> None:
        if not line:
            if self._data:
                frames.append(b"\n".join(self._data))
                self._data.clear()
            self._size = 0
            self._dropping = False
        elif line.startswith(b"data:"):
            self._keep(self._data, line[6:] if line[5:6] == b" " else line[5:], frames)
        elif line == b"data":
            self._keep(self._data, b"", frames)

    def _keep(self, where: list[bytes], part: bytes, frames: list[bytes | TooLarge]) -> None:
        """Keep a part of the frame, or drop the frame if it grows too large."""
        if self._dropping:
            if where is self._line and not self._line:
                self._line.append(b":")  # the line is not blank; that is all there is to know
            return
        self._size += len(part) + (where is self._data)
        where.append(part)
        if self._size > MAX_FRAME_BYTES:
            self._dropping = True
            frames.append(TOO_LARGE)
            self._data.clear()
            self._size = 0
            if self._line:
                self._line[:] = [b":"]


class SseCodec(Codec):
    """A codec of frames in front of a codec of what is in them."""

    def __init__(self, inner: Codec) -> None:
        self._inner = inner
        self._sse = SseDecoder()
        self._blank = 0
        self.skipped = 0

    def decode(self, raw: bytes) -> list[Piece]:
        """Take the next bytes; one bad frame does not touch the others. See `Codec.decode`."""
        out: list[Piece] = []
        for frame in self._sse.feed(raw):
            self._take(frame, out)
        self.skipped = self._inner.skipped + self._blank
        return out

    def settle(self) -> list[Piece]:
        """End a step that only waits for stragglers; see `Codec.settle`."""
        out = self._inner.settle()
        self.skipped = self._inner.skipped + self._blank
        return out

    def finish(self) -> list[Piece]:
        """
        Close what is open; see `Codec.finish`.

        The standard drops a frame that no blank line ends. Providers do stop without it, so its
        data counts here if it is whole, and is rejected if it is not.
        """
        out: list[Piece] = []
        last = self._sse.close()
        self._sse = SseDecoder()
        if last is not None:
            self._take(last, out)
        out.extend(self._inner.finish())
        self.skipped = self._inner.skipped + self._blank
        return out

    def dump(self) -> CodecState:
        """Everything `load` needs; see `Codec.dump`."""
        return {"sse": self._sse.dump(), "blank": self._blank, "inner": self._inner.dump()}

    def load(self, state: CodecState) -> None:
        """Go on where *state* was dumped; see `Codec.load`."""
        self._sse.load(state["sse"])
        self._blank = state["blank"]
        self._inner.load(state["inner"])
        self.skipped = self._inner.skipped + self._blank

    def _take(self, frame: bytes | TooLarge, out: list[Piece]) -> None:
        if isinstance(frame, TooLarge):
            limit = f"a frame is larger than {MAX_FRAME_BYTES} bytes"
            out.append(Rejected("frame_too_large", limit))
        elif frame.strip():
            out.extend(self._inner.decode(frame))
        else:
            self._blank += 1


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
