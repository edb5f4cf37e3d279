"""The pieces that codecs make of raw chunks; the fold reads nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

Kind = Literal["text", "reasoning", "tool_call", "tool_result", "refusal"]
Format = Literal["text", "json"]
Mode = Literal["append", "snapshot"]
FinishReason = Literal[
    "stop", "length", "tool_calls", "content_filter", "refusal", "pause", "error", "other"
]


class Usage(NamedTuple):
    """Tokens of one step as numbers every provider shares, with the provider's own object beside."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    raw: Mapping[str, Any]


class StepStart(NamedTuple):
    """One provider call begins."""

    model: str | None


class Section(NamedTuple):
    """The named part of a text that a chunk is; *info* is what its marker said more ("python")."""

    name: str
    info: str


class ChunkStart(NamedTuple):
    """A piece of content begins. *key* is the codec's own name for it, unique among open chunks."""

    key: str
    kind: Kind
    format: Format = "text"
    tool_name: str | None = None
    tool_call_id: str | None = None
    processor: str | None = None
    mode: Mode | None = None
    section: Section | None = None


class Text(NamedTuple):
    """Text of an open chunk: a delta or, in snapshot mode, all of it so far."""

    key: str
    text: str


class ChunkEnd(NamedTuple):
    """Nothing more comes for *key*; the key may be used again."""

    key: str


class ChunkFail(NamedTuple):
    """
    Nothing more comes for *key*, and it is not whole: a call whose arguments were cut.

    Readers must be able to tell it from one that ended; nobody may run such a call.
    """

    key: str
    code: str
    detail: str


class StepEnd(NamedTuple):
    """The provider ended its call. Chunks that are still open end with it."""

    finish_reason: FinishReason | None
    raw_finish_reason: str | None
    usage: Usage | None


class StepFail(NamedTuple):
    """The provider reported an error; chunks that are still open fail with it."""

    code: str
    detail: str


class ProcessorFail(NamedTuple):
    """A processor failed on the open chunk *key*. The chunk's text goes on."""

    key: str
    processor: str
    code: str


class Rejected(NamedTuple):
    """
    A raw chunk, or one SSE frame of it, that cannot be used. The stream goes on.

    *skipped*: it stands for this many payloads of a reply of which nothing was understood.
    """

    code: str
    detail: str
    skipped: int = 0


ChunkPiece = ChunkStart | Text | ChunkEnd | ChunkFail | ProcessorFail
Piece = StepStart | ChunkPiece | StepEnd | StepFail | Rejected

CodecState = dict[str, Any]

Run = tuple[str, list[str], list[Piece] | None]
"""
What neighbouring raw chunks say: an open chunk's key; the texts, none empty, that the first of them
add to it, one each; the pieces of the raw chunk after these, or None where none was left.
"""


class Codec(Protocol):
    """
    Turns the raw chunks of one message into pieces.

    A codec is a deterministic fold: the same bytes give the same pieces, however a worker's life
    cuts them, because `dump` and `load` carry everything it remembers.
    """

    skipped: int
    """
    Payloads that were not taken: known to carry nothing for a reader, of a wrong shape, or unknown.
    """

    def decode(self, raw: bytes) -> list[Piece]:
        """Take one raw chunk. Never raises for bad data: what cannot be used is a `Rejected`."""
        ...

    def decode_run(self, raws: Iterator[bytes]) -> Run:
        """
        Take raw chunks while they do nothing but go on with one text, and the one after these.

        That is most of a reply; text that came together is then added in one go. It says what
        `decode` says of each. A codec that does not look for such runs takes one raw chunk.

        Args:
            raws: At least one; those that were not taken are left in it.
        """
        return "", [], self.decode(next(raws))

    def decode_event(self, raw: bytes, name: str) -> list[Piece]:
        """Take the data of one server-sent event called *name* ("": it had no name)."""
        del name
        return self.decode(raw)

    def finish(self) -> list[Piece]:
        """The producer ended the message: close what is open. A cut step ends without a reason."""
        ...

    def settle(self, *, retried: bool = False) -> list[Piece]:
        """
        The producer shows that its provider call is over: a tool's result, a retried call.

        Ends a step whose end was said already, and that only waited for stragglers such as its
        usage. A step whose end was not said stays open.

        Args:
            retried: A retried call follows. Only a complete step ends, as that call is another one.
                A step whose usage or last event has not come may belong to the call that was cut:
                it stays open, for the retried call to continue, and no text is repeated.
        """
        del retried
        return []

    def release(self) -> list[ChunkPiece]:
        """
        The message ends here, stopped or failed: give out text that was held back; decode no more.

        It closes nothing: the fold knows how what is open ends. Nothing, for a codec that holds
        back no text that readers could use.
        """
        return []

    def dump(self) -> CodecState:
        """Everything `load` needs, as JSON values; small, and free of text that was already given out."""
        ...

    def load(self, state: CodecState) -> None:
        """Go on where the codec that made *state* with `dump` stopped."""
        ...
