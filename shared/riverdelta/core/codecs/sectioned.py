"""
Cuts the text of any source into named parts, each of them a chunk of its own.

Between a codec and the fold: what is no text passes as it is. A text block of the inner codec becomes
a run of chunks under the same key, one open at a time: ordinary text, a part, ordinary text, … The
markers between them are in no chunk.

- Ordinary text begins a chunk when there is some. A part begins one at its marker, so an empty part is
  an empty chunk; and so is a block in which nothing came at all, at its end.
- Text so far (mode ``snapshot``) is tracked here, and goes on as increments. With ``on_mismatch`` ``reset``
  it is not cut: what was shown cannot be taken back from chunks that have ended.
- A text chunk that names a processor is left to it, unless that is ``sections``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from riverdelta.core.codecs.pieces import (
    ChunkEnd,
    ChunkPiece,
    ChunkStart,
    Codec,
    CodecState,
    Mode,
    Piece,
    ProcessorFail,
    Run,
    Section,
    StepEnd,
    StepFail,
    StepStart,
    Text,
)
from riverdelta.core.filters import SectionEnd, SectionPart, SectionStart, SectionText, Splitter
from riverdelta.core.tracker import OnMismatch, TextTrack

PROCESSOR: Final = "sections"
"""What a chunk of source ``chunks`` names as its processor to be cut."""

MAX_SECTIONS: Final = 1000
"""
Parts that one text block is cut into; the rest goes on as ordinary text. Each is a chunk, which costs far
more than its markers do: a mebibyte of empty parts would make 65,000 chunks, in one commit.
"""

_SLICE: Final = 4096
"""Characters that the splitter looks at in one step: a search holds the interpreter until it is done."""

STATE: Final = "sections"
"""Where the inner codec's dump gets ours: it knows nothing of it, so either loads the other's state."""


class SectionedCodec(Codec):
    """
    A codec whose text is cut.

    Args:
        inner: Of the message's source.
        make_splitter: Makes what cuts one text block.
        mode: How texts follow each other where a chunk does not say.
        on_mismatch: As in the tracker.
        only_asked: Cut what names ``sections`` as its processor, and nothing else.
    """

    def __init__(
        self,
        inner: Codec,
        make_splitter: Callable[[], Splitter],
        *,
        mode: Mode,
        on_mismatch: OnMismatch,
        only_asked: bool,
    ) -> None:
        self._inner = inner
        self._make_splitter = make_splitter
        self._mode = mode
        self._on_mismatch: OnMismatch = on_mismatch
        self._only_asked = only_asked
        self._blocks: dict[str, _Block] = {}
        self._taken: deque[list[Piece]] = deque()
        """Pieces of raw chunks that were taken from an iterator and not given out yet, one each."""
        self.skipped = 0

    def decode(self, raw: bytes) -> list[Piece]:
        """Take one raw chunk; see `Codec.decode`."""
        pieces = self._inner.decode(raw)
        self.skipped = self._inner.skipped
        return self._cut(pieces)

    def decode_run(self, raws: Iterator[bytes]) -> Run:
        """
        Take raw chunks as long as they are more text; see `Codec.decode_run`.

        Text without a marker passes as a run. Else all that the inner codec took is cut one by one,
        and given out by as many calls: ask as often as there were raw chunks.
        """
        if self._taken:
            return "", [], self._taken.popleft()
        key, texts, pieces = self._inner.decode_run(raws)
        self.skipped = self._inner.skipped
        block = self._blocks.get(key) if texts else None
        if block is None or block.passes(texts):
            return key, texts, None if pieces is None else self._cut(pieces)
        self._taken.extend(self._cut([Text(key, text)]) for text in texts)
        if pieces is not None:
            self._taken.append(self._cut(pieces))
        return "", [], self._taken.popleft()

    def finish(self) -> list[Piece]:
        """Close what is open; see `Codec.finish`."""
        pieces = self._inner.finish()
        self.skipped = self._inner.skipped
        return self._cut(pieces)

    def settle(self, *, retried: bool = False) -> list[Piece]:
        """End a step that only waits for stragglers; see `Codec.settle`."""
        pieces = self._inner.settle(retried=retried)
        self.skipped = self._inner.skipped
        return self._cut(pieces)

    def release(self) -> list[ChunkPiece]:
        """Give out what may have been a marker; see `Codec.release`."""
        out = [cut for piece in self._inner.release() for cut in self._cut_one(piece)]
        out.extend(self._end_blocks())
        return out

    def dump(self) -> CodecState:
        """Everything `load` needs; text so far (mode ``snapshot``) is in it. See `Codec.dump`."""
        blocks = {key: block.dump() for key, block in self._blocks.items()}
        return self._inner.dump() | {STATE: blocks}

    def load(self, state: CodecState) -> None:
        """Go on where *state* was dumped, by the inner codec alone if need be; see `Codec.load`."""
        self._inner.load(state)
        self.skipped = self._inner.skipped
        self._blocks = {}
        for key, fields in state.get(STATE, {}).items():
            block = self._blocks[key] = self._block(ChunkStart(*fields["start"]))
            block.load(fields)

    # -- pieces ----------------------------------------------------------------------------------

    def _cut(self, pieces: Iterable[Piece]) -> list[Piece]:
        out: list[Piece] = []
        for piece in pieces:
            match piece:
                case Text() | ChunkStart() | ChunkEnd():
                    out.extend(self._cut_one(piece))
                case StepStart() | StepEnd() | StepFail():
                    out.extend(self._end_blocks())
                    out.append(piece)
                case _:
                    out.append(piece)
        return out

    def _cut_one(self, piece: ChunkPiece) -> Iterator[ChunkPiece]:
        if type(piece) is ChunkStart and self._is_cut(piece):
            self._blocks[piece.key] = self._block(piece)
            return
        block = self._blocks.get(piece.key)
        if block is None:
            yield piece
        elif type(piece) is Text:
            yield from block.add(piece.text)
        elif type(piece) is ChunkEnd:
            del self._blocks[piece.key]
            yield from block.end()
            if block.chunk_open:
                yield piece

    def _end_blocks(self) -> Iterator[ChunkPiece]:
        """Nothing more comes for what is open; how its last chunks end is not ours to say."""
        blocks, self._blocks = self._blocks, {}
        for block in blocks.values():
            yield from block.end()

    def _is_cut(self, start: ChunkStart) -> bool:
        if start.kind != "text" or start.format != "text":
            return False
        if start.processor != PROCESSOR and (self._only_asked or start.processor is not None):
            return False
        return self._mode_of(start) == "append" or self._on_mismatch != "reset"

    def _mode_of(self, start: ChunkStart) -> Mode:
        return start.mode or self._mode

    def _block(self, start: ChunkStart) -> _Block:
        mode = self._mode_of(start)
        track = None if mode == "append" else TextTrack(mode, self._on_mismatch)
        return _Block(start, self._make_splitter(), track)


class _Block:
    """
    One text block of the inner codec.

    *chunk_open*: a chunk of it is; *in_part*: and that is a part. *begun*: some chunk of it was.
    *sections*: parts so far. Without a *splitter* (a pattern ran without end, or there were too many parts)
    its text goes on as it comes.
    """

    __slots__ = ("begun", "chunk_open", "in_part", "sections", "splitter", "start", "track")

    def __init__(self, start: ChunkStart, splitter: Splitter, track: TextTrack | None) -> None:
        self.start = start
        self.splitter: Splitter | None = splitter
        self.track = track
        self.begun = self.chunk_open = self.in_part = False
        self.sections = 0

    def passes(self, texts: Iterable[str]) -> bool:
        """Whether *texts* do nothing but go on with the open chunk; if so, they are taken."""
        if self.track is not None or not self.chunk_open:
            return False
        try:
            return self.splitter is None or self.splitter.passes("".join(texts))
        except TimeoutError:
            return False  # taken one by one, they will show which it was

    def add(self, text: str) -> Iterator[ChunkPiece]:
        """Take more text, or all of it so far."""
        if self.track is not None:
            text = self.track.add(text).text
        for at in range(0, len(text), _SLICE):
            if self.splitter is None:
                yield from self._say(text[at:])
                return
            yield from self._split(self.splitter, text[at : at + _SLICE])

    def _split(self, splitter: Splitter, text: str) -> Iterator[ChunkPiece]:
        try:
            parts = splitter.feed(text)
        except TimeoutError:
            yield from self._give_up("timeout", splitter.held_text + text)
            return
        yield from self._say_parts(parts)

    def end(self) -> Iterator[ChunkPiece]:
        """Take the end of the text. The chunk that is open then, if any, ends with the block."""
        if self.splitter is not None:
            try:
                parts = self.splitter.finish()
            except TimeoutError:
                yield from self._give_up("timeout", self.splitter.held_text)
                return
            yield from self._say_parts(parts)
        if not self.begun:
            yield self._begin(None)

    def dump(self) -> dict[str, Any]:
        """Everything `load` needs, as JSON."""
        state: dict[str, Any] = {
            "start": list(self.start),
            "is": [self.begun, self.chunk_open, self.in_part],
        }
        if self.sections:
            state["sections"] = self.sections
        if self.splitter is not None:
            state["splitter"] = self.splitter.dump()
        if self.track is not None:
            state["track"] = [self.track.complete, *self.track.remembered()]
        return state

    def load(self, state: dict[str, Any]) -> None:
        """Go on where *state* was dumped."""
        self.begun, self.chunk_open, self.in_part = state["is"]
        self.sections = state.get("sections", 0)  # an older worker counted none
        if "splitter" not in state:
            self.splitter = None
        elif self.splitter is not None:
            self.splitter.load(state["splitter"])
        if self.track is not None:
            self.track.restore(*state["track"])

    def _say_parts(self, parts: Sequence[SectionPart]) -> Iterator[ChunkPiece]:
        for number, part in enumerate(parts):
            match part:
                case SectionText(text):
                    yield from self._say(text)
                case SectionStart():
                    if self.sections >= MAX_SECTIONS:
                        held = "" if self.splitter is None else self.splitter.held_text
                        rest = "".join(map(_input_of, parts[number:])) + held
                        yield from self._give_up("too_many_sections", rest)
                        return
                    self.sections += 1
                    yield from self._close()
                    yield self._begin(part)
                case SectionEnd(marker):
                    if marker:  # else the block ended in it, and ends its chunk
                        yield from self._close()

    def _begin(self, part: SectionStart | None) -> ChunkStart:
        start = self.start._replace(mode="append")  # text so far is tracked here
        if start.processor == PROCESSOR:
            start = start._replace(processor=None)
        if part is not None:
            start = start._replace(kind=part.kind, section=Section(part.name, part.info))
        self.begun = self.chunk_open = True
        self.in_part = part is not None
        return start

    def _say(self, text: str) -> Iterator[ChunkPiece]:
        if not self.chunk_open:
            yield self._begin(None)
        yield Text(self.start.key, text)

    def _close(self) -> Iterator[ChunkPiece]:
        if self.chunk_open:
            self.chunk_open = self.in_part = False
            yield ChunkEnd(self.start.key)

    def _give_up(self, code: str, text: str) -> Iterator[ChunkPiece]:
        """Let *text*, and all that follows, go out as ordinary text; *code* says why."""
        self.splitter = None
        if self.in_part:
            yield from self._close()
        if not self.chunk_open:
            yield self._begin(None)
        yield ProcessorFail(self.start.key, PROCESSOR, code)
        yield Text(self.start.key, text)


def _input_of(part: SectionPart) -> str:
    return part.text if isinstance(part, SectionText) else part.marker
