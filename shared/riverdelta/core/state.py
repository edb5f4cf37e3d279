"""What a worker knows of a chat: the state that the fold moves on, and that Redis hashes keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from riverdelta.core.codecs.pieces import Codec, FinishReason, Format, Kind, Mode, Section
from riverdelta.core.events import Annotated, ChunkStatus, Failure, MessageStatus, UsageData
from riverdelta.core.filters import StreamFilter
from riverdelta.core.parser import ChunkParser
from riverdelta.core.stitch import OnOverlap, Stitcher
from riverdelta.core.tracker import OnMismatch, TextTrack

EntryType = Literal["start", "chunk", "tool_result", "annotate", "restart", "end", "fail", "stop"]


class Entry(NamedTuple):
    """
    One entry of a chat's raw stream.

    Attributes:
        number: Its place in the chat, from 1; the stream id is ``<number>-0``.
        message: Message id.
        type: `EntryType`; a str because a newer producer may send others.
        at_ms: Milliseconds since the message was opened, on the producer's monotonic clock.
        data: The raw chunk (type ``chunk``), else a JSON object.
    """

    number: int
    message: str
    type: str
    at_ms: int
    data: bytes


@dataclass(slots=True)
class CardState:
    """
    The card of a chunk. Redis keeps it in segments of merged outputs; *tail* is the last one.

    *latest* is the last output. When the chunk ends that is the finished card, which has everything.
    """

    processor: str
    latest: dict[str, Any] = field(compare=False)
    segment: int = 0
    tail: dict[str, Any] | None = None


@dataclass(slots=True)
class Retake:
    """
    A call that is made again says a chunk again; until it is clear how its text goes on.

    *tool_call_id* is the id that the call has now.
    """

    stitcher: Stitcher
    tool_call_id: str | None


@dataclass(slots=True)
class ChunkState:
    """
    A chunk that is still open, or could be said again. *segment* is where Redis appends.

    Its text lives in *track*. With a *filter*, and where its call was made again, *shown* has what
    went out, and *track* what came in (of the last attempt; nothing where that are increments).
    *parser* makes patches and cards of it; None where nobody asked for either.
    """

    id: str
    index: int
    kind: Kind
    format: Format
    tool_name: str | None
    tool_call_id: str | None
    processor: str | None
    track: TextTrack
    section: Section | None = None
    filter: StreamFilter | None = None
    shown: TextTrack | None = None
    retake: Retake | None = None
    parser: ChunkParser | None = None
    card: CardState | None = None
    processor_failed: bool = False
    status: ChunkStatus = "open"
    segment: int = 0
    segment_length: int = 0
    stored_format: int = 0
    """Format number of its hash; 0: it has none yet."""

    @property
    def text(self) -> str:
        """All text that readers have of it."""
        return self.track.complete if self.shown is None else self.shown.complete


class ToolCall(NamedTuple):
    """A tool call of a message, so that its result finds the chunk and the processor of its card."""

    tool_name: str
    chunk_index: int
    processor: str | None


class FinishedCard(NamedTuple):
    """The card of a call that has ended, and the type of the processor that made it."""

    processor: str
    output: dict[str, Any]


@dataclass(slots=True)
class Retry:
    """
    A provider call is being made again, within its step.

    Attributes:
        rule: How its texts go on.
        begun: Whether anything of it has come.
        left: Chunks of the step, by their keys, that it has not taken up: those that are open, and with
            the rule ``stitch`` those that have ended.
    """

    rule: OnOverlap
    begun: bool = False
    left: list[tuple[str, ChunkState]] = field(default_factory=list)


@dataclass(slots=True)
class MessageState:
    """A message that is still open (or has just ended, in the batch that ended it)."""

    id: str
    source: str
    codec: Codec
    producer: str
    role: str = "assistant"
    mode: Mode = "append"
    on_mismatch: OnMismatch = "emit"
    metadata: dict[str, Any] = field(default_factory=dict)
    status: MessageStatus = "open"
    step: int = -1
    step_open: bool = False
    chunk_count: int = 0
    open_chunks: dict[str, ChunkState] = field(default_factory=dict)
    """By the codec's key, in the order they started."""
    closed: list[tuple[str, ChunkState]] = field(default_factory=list)
    """Chunks of the step (of the one under way, or that failed last) which have ended, by their keys."""
    retry: Retry | None = None
    call_aliases: dict[str, str] = field(default_factory=dict)
    """Ids of calls that were made again → the ids that readers know them by."""
    tool_calls: dict[str, ToolCall] = field(default_factory=dict)
    """By the provider's id of the call."""
    cards: dict[str, FinishedCard] = field(default_factory=dict)
    """By the same: the finished cards of calls whose result may still come."""
    finish_reason: FinishReason | None = None
    usage: UsageData | None = None
    failure: Failure | None = None
    """Why the last step failed, while no later step has begun; at the end: why the message failed."""
    stop_reason: str | None = None
    annotations: list[Annotated] = field(default_factory=list)
    raw_chunks: int = 0
    raw_bytes: int = 0
    rejected: int = 0
    skipped: int = 0
    """What the codecs of calls that were made again have skipped; *codec* counts its own."""
    ttft_ms: int | None = None
    last_at_ms: int = 0
    pipeline: str = ""
    """Version of the pipeline that it was started with."""


class Recent(NamedTuple):
    """
    What the head remembers of a message: enough to name all of its keys.

    A *replaced* one is remembered, so that entries still under way and a second opening meet what they
    would have met, but no reader is shown it.
    """

    chunk_count: int
    producer: str
    replaced: bool = False


@dataclass(slots=True)
class LogWindow:
    """
    Bounds the log's bytes without knowing each entry's size: it is kept in two halves.

    When the newer half is over half of the bound, it becomes the older one and what was the older
    one may go. So the log holds at most the bound, and at least half of it once it is full.
    """

    max_bytes: int
    first_seq: int = 1
    half_seq: int = 1
    half_bytes: int = 0

    def add(self, seq: int, size: int) -> None:
        """Count an entry of *size* bytes with number *seq*; may move *first_seq* on."""
        self.half_bytes += size
        if self.half_bytes > self.max_bytes // 2:
            self.first_seq, self.half_seq, self.half_bytes = self.half_seq, seq + 1, 0


@dataclass(slots=True)
class ChatState:
    """A chat as its owner holds it in memory: a cache of what Redis has."""

    chat: str
    epoch: str
    log: LogWindow
    seq: int = 0
    version: int = 0
    processed: int = 0
    processed_bytes: int = 0
    messages: dict[str, MessageState] = field(default_factory=dict)
    """Open messages only."""
    recent: dict[str, Recent] = field(default_factory=dict)
    """The last messages, open ones included, oldest first."""
    owed: set[tuple[str, str]] = field(default_factory=set)
    """Message and observer of each call that ended messages still wait for: they are not dropped."""
