"""
Sources `…+sse`: the raw bytes of a provider's response, cut anywhere.

The decoder follows the event stream format of the WHATWG HTML standard, section 9.2, and gives what is
no such stream, too: providers answer with a JSON body where a stream was asked for, gateways send a
line of JSON per event, or an `error:` field of their own.
"""

from __future__ import annotations

import base64
from typing import NamedTuple

import orjson

from riverdelta.core.codecs.pieces import Codec, CodecState, Piece, Rejected, StepStart
from riverdelta.core.codecs.provider import BODY, ProviderCodec
from riverdelta.core.codecs.shrinking import Shrinker

MAX_FRAME_BYTES = 4 * 1024 * 1024
"""
Room for the largest event seen (a finished response of a long agent run, some 1 MiB), and little
enough that a stream which never ends a frame cannot grow a worker or the state it stores. Strings that
no codec reads, such as images, do not count: see `shrinking`.
"""

TOO_LARGE_CODE = "frame_too_large"

_BOM = b"\xef\xbb\xbf"
_FIELDS = (b"event", b"id", b"retry")
_MOST_HEAD = 16
_MOST_TRIES = 64
_COMPRESSED = {
    b"\x1f\x8b": "compressed with gzip",
    b"\x28\xb5\x2f\xfd": "compressed with zstd",
    b"\x78\x01": "compressed with deflate",
    b"\x78\x9c": "compressed with deflate",
    b"\x78\xda": "compressed with deflate",
}
"""First bytes of what was not decoded."""


_OLD: CodecState = {"body": [], "tries": 0, "junk": 0, "head": "", "any": True, "lost_frame": False}
"""What the state of the version before did not have."""


class Frame(NamedTuple):
    """The data of one event, and its name ("": it has none)."""

    data: bytes
    name: str
    emptied: int = 0
    """Long strings that were emptied, since no reader gets them."""


class Stray(NamedTuple):
    """A line that is no part of an event stream."""

    line: bytes


class TooLarge:
    """Stands among the frames for one that was dropped because of its size."""


TOO_LARGE = TooLarge()


class SseDecoder:
    """
    Bytes in, whole frames out, and lines that belong to none.

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
        self._name = ""
        self._size = 0
        """Bytes kept in `_line` and `_data`."""
        self._shrinker: Shrinker | None = None
        """The frame is large: its long strings are emptied."""
        self._dropping = False
        """The frame is too large: nothing of it is kept until the blank line that ends it."""

    def feed(self, raw: bytes) -> list[Frame | Stray | TooLarge]:
        """Take the next bytes; give each frame they end."""
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
        frames: list[Frame | Stray | TooLarge] = []
        *ended, last = raw.split(b"\n")
        for part in ended:
            self._end_line(part, frames)
        if last:
            self._keep(self._line, last, frames)
        return frames

    def close(self) -> list[Frame | Stray | TooLarge]:
        """Give the last frame or line, if nothing ended it; feed no more."""
        frames: list[Frame | Stray | TooLarge] = []
        if self._start:
            self._line, self._start = [self._start], b""
        if self._line and not self._dropping:
            self._end_line(b"", frames)
        self._end_line(b"", frames)
        return frames

    def dump(self) -> CodecState:
        """Everything `load` needs, as JSON values."""
        return {
            "at_start": self._at_start,
            "start": _b64(self._start),
            "after_cr": self._after_cr,
            "line": _b64(b"".join(self._line)),
            "data": [_b64(line) for line in self._data],
            "name": self._name,
            "shrinker": None if self._shrinker is None else self._shrinker.dump(),
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
        self._name = state.get("name", "")
        shrinker = state.get("shrinker")
        self._shrinker = None if shrinker is None else Shrinker.load(shrinker)
        self._dropping = state["dropping"]

    def _without_bom(self, raw: bytes) -> bytes:
        raw = self._start + raw
        if len(raw) < len(_BOM) and _BOM.startswith(raw):
            self._start = raw
            return b""
        self._at_start = False
        self._start = b""
        return raw.removeprefix(_BOM)

    def _end_line(self, part: bytes, frames: list[Frame | Stray | TooLarge]) -> None:
        """Take the last part of a line."""
        if self._shrinker is not None and not self._dropping:
            part = self._shrinker.feed(part) + self._shrinker.end_line()
        line = part
        if self._line:
            self._line.append(part)
            line = b"".join(self._line)
            self._size -= len(line) - len(part)
            self._line.clear()
        self._take_line(line, frames)

    def _take_line(self, line: bytes, frames: list[Frame | Stray | TooLarge]) -> None:
        if not line:
            self._end_frame(frames)
        elif line.startswith(b"data:"):
            self._keep_line(line[6:] if line[5:6] == b" " else line[5:], frames)
        elif line == b"data":
            self._keep_line(b"", frames)
        elif self._dropping or line.startswith(b":"):
            pass
        else:
            field, _, value = line.partition(b":")
            if field == b"event":
                self._name = value.strip().decode("utf-8", "replace")
            elif field == b"error":  # as llama.cpp reports one
                frames.append(Frame(value.strip(), "error"))
            elif field not in _FIELDS:
                frames.append(Stray(line))

    def _end_frame(self, frames: list[Frame | Stray | TooLarge]) -> None:
        if self._data:
            emptied = 0 if self._shrinker is None else self._shrinker.emptied
            frames.append(Frame(b"\n".join(self._data), self._name, emptied))
            self._data.clear()
        self._name = ""
        self._size = 0
        self._shrinker = None
        self._dropping = False

    def _keep_line(self, data: bytes, frames: list[Frame | Stray | TooLarge]) -> None:
        """Keep a line of data, which went through the shrinker if there is one."""
        if not self._dropping:
            self._size += len(data) + 1
            self._data.append(data)
            self._check_size(frames)

    def _keep(
        self, where: list[bytes], part: bytes, frames: list[Frame | Stray | TooLarge]
    ) -> None:
        """Keep a part of a line."""
        if self._dropping:
            if not self._line:
                self._line.append(b":")  # the line is not blank; that is all there is to know
            return
        if self._shrinker is not None:
            part = self._shrinker.feed(part)
        self._size += len(part)
        where.append(part)
        self._check_size(frames)

    def _check_size(self, frames: list[Frame | Stray | TooLarge]) -> None:
        """Shrink the frame if it grows large; drop it if that does not help."""
        if self._size > MAX_FRAME_BYTES and self._shrinker is None:
            self._shrink()
        lost = self._shrinker is not None and self._shrinker.lost
        if lost or self._size > MAX_FRAME_BYTES:
            self._dropping = True
            self._shrinker = None
            frames.append(TOO_LARGE)
            self._data.clear()
            self._size = 0
            if self._line:
                self._line[:] = [b":"]

    def _shrink(self) -> None:
        """From here on long strings of the frame are emptied; so are those that it has already."""
        self._shrinker = shrinker = Shrinker()
        self._data = [shrinker.feed(line) + shrinker.end_line() for line in self._data]
        line = shrinker.feed(b"".join(self._line))
        self._line[:] = [line] if line else []
        self._size = len(line) + sum(len(data) + 1 for data in self._data)


class SseCodec(Codec):
    """A codec of frames in front of a codec of what is in them."""

    def __init__(self, inner: ProviderCodec) -> None:
        self._inner = inner
        self._sse = SseDecoder()
        self._skipped = 0
        """Frames and lines that the inner codec was not asked about."""
        self._body: list[bytes] = []
        """Lines of a JSON body that is not whole yet."""
        self._body_size = 0
        self._tries = 0
        """How often it was tried whether it is whole by now."""
        self._junk = 0
        """Bytes that are neither an event stream nor JSON."""
        self._head = b""
        """The first of them."""
        self._any = False
        """Something was understood."""
        self._lost_frame = False
        """A frame of the open step was dropped."""
        self.skipped = 0

    def decode(self, raw: bytes) -> list[Piece]:
        """Take the next bytes; one bad frame does not touch the others. See `Codec.decode`."""
        out: list[Piece] = []
        for frame in self._sse.feed(raw):
            self._take(frame, out)
        self.skipped = self._inner.skipped + self._skipped
        return out

    def settle(self, *, retried: bool = False) -> list[Piece]:
        """End a step that only waits for stragglers; see `Codec.settle`."""
        out = self._inner.settle(retried=retried)
        self.skipped = self._inner.skipped + self._skipped
        return out

    def finish(self) -> list[Piece]:
        """
        Close what is open; see `Codec.finish`.

        The standard drops a frame that no blank line ends. Providers do stop without it, so its
        data counts here if it is whole, and is rejected if it is not.
        """
        out: list[Piece] = []
        for frame in self._sse.close():
            self._take(frame, out)
        self._sse = SseDecoder()
        self._end_body(out)
        if self._lost_frame:
            detail = (
                f"a frame of more than {MAX_FRAME_BYTES} bytes was dropped, and the end with it"
            )
            out.extend(self._inner.fail_cut_step(TOO_LARGE_CODE, detail))
        out.extend(self._inner.finish())
        if self._junk and not self._any and not out:
            out.append(Rejected("not_an_event_stream", self._describe_junk()))
        self._lost_frame = False
        self.skipped = self._inner.skipped + self._skipped
        return out

    def dump(self) -> CodecState:
        """Everything `load` needs; see `Codec.dump`."""
        return {
            "sse": self._sse.dump(),
            "blank": self._skipped,
            "body": [_b64(line) for line in self._body],
            "tries": self._tries,
            "junk": self._junk,
            "head": _b64(self._head),
            "any": self._any,
            "lost_frame": self._lost_frame,
            "inner": self._inner.dump(),
        }

    def load(self, state: CodecState) -> None:
        """Go on where *state* was dumped; see `Codec.load`."""
        self._sse.load(state["sse"])
        self._skipped = state["blank"]
        state = {**_OLD, **state}
        self._body = [base64.b64decode(line) for line in state["body"]]
        self._body_size = sum(len(line) + 1 for line in self._body)
        self._tries = state["tries"]
        self._junk = state["junk"]
        self._head = base64.b64decode(state["head"])
        self._any = state["any"]
        self._lost_frame = state["lost_frame"]
        self._inner.load(state["inner"])
        self.skipped = self._inner.skipped + self._skipped

    def _take(self, frame: Frame | Stray | TooLarge, out: list[Piece]) -> None:
        if isinstance(frame, TooLarge):
            limit = f"a frame is larger than {MAX_FRAME_BYTES} bytes"
            out.append(Rejected(TOO_LARGE_CODE, limit))
            self._lost_frame = True
        elif isinstance(frame, Stray):
            self._take_stray(frame.line, out)
        elif frame.data.strip():
            self._end_body(out)
            self._decode(frame.data, frame.name, out)
            self._skipped += frame.emptied
        else:
            self._skipped += 1

    def _decode(self, data: bytes, name: str, out: list[Piece]) -> None:
        pieces = self._inner.decode_event(data, name)
        for piece in pieces:
            self._any = self._any or not isinstance(piece, Rejected)
            if isinstance(piece, StepStart):
                self._lost_frame = False
        out += pieces

    def _take_stray(self, line: bytes, out: list[Piece]) -> None:
        """Take a line of what may be a JSON body, or one of several documents."""
        begins = line.lstrip()[:1] in (b"{", b"[")
        if not self._body and begins and _is_json(line):
            self._decode(line, BODY, out)
        elif self._body or begins:
            self._body.append(line)
            self._body_size += len(line) + 1
            if self._body_size > MAX_FRAME_BYTES:
                self._count_junk(b"\n".join(self._body))
                self._body, self._body_size, self._tries = [], 0, 0
            elif line in (b"}", b"]") and self._tries < _MOST_TRIES:
                self._tries += 1
                if _is_json(b"\n".join(self._body)):
                    self._end_body(out)
        else:
            self._count_junk(line)

    def _end_body(self, out: list[Piece]) -> None:
        if not self._body:
            return
        body = b"\n".join(self._body)
        self._body, self._body_size, self._tries = [], 0, 0
        if _is_json(body):
            self._decode(body, BODY, out)
        else:
            self._count_junk(body)

    def _count_junk(self, data: bytes) -> None:
        if not self._junk:
            self._head = data[:_MOST_HEAD]
        self._junk += len(data)
        self._skipped += 1

    def _describe_junk(self) -> str:
        """Say what the input is instead of an event stream, without saying its text."""
        what = next(
            (_COMPRESSED[head] for head in _COMPRESSED if self._head.startswith(head)), None
        )
        if what is None and self._head.lstrip().startswith(b"<"):
            what = "HTML or XML"
        elif what is None and self._head.lstrip()[:1] in (b"{", b"["):
            what = "JSON that is not whole"
        elif what is None:
            what = "text" if _is_text(self._head) else "binary data"
        return f"{self._junk} bytes are no event stream; they look like {what}"


def _is_json(data: bytes) -> bool:
    """Whether *data* is one whole document; half a character in it is not looked at."""
    try:
        orjson.loads(data)
    except ValueError:
        return b"\\ud" in data.lower() and data.rstrip()[-1:] in (b"}", b"]")
    return True


def _is_text(data: bytes) -> bool:
    return all(byte >= ord(" ") or byte in b"\t" for byte in data)


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()
