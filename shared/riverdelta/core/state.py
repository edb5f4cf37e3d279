"""The state of a chat: what the fold advances, and what Redis hashes store."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from riverdelta.core.codecs.pieces import Codec, FinishReason, Format, Kind, Mode, Section
from riverdelta.core.events import Annotated, ChunkStatus, Failure, MessageStatus, UsageData
from riverdelta.core.filters import StreamFilter
from riverdelta.core.parser import ChunkParser
from riverdelta.core.stitch import OnOverlap, Stitcher
from riverdelta.core.tracker import OnMismatch, TextTrack

EntryType = Literal[
    "start", "adopt", "chunk", "tool_result", "annotate", "restart", "end", "fail", "stop"
]


class Entry(NamedTuple):
    """
    One entry of a chat's raw stream.

    Attributes:
        number: Number of the entry in the chat, from 1; the stream id is ``<number>-0``.
        message: Message id.
        type: `EntryType`; a str, because a newer producer may send others.
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
    The card of a chunk. Redis stores it in segments of merged outputs; *tail* is the last segment.

    *latest* is the last output. When the chunk has ended, that is the finished card, which is complete.
    """

    processor: str
    latest: dict[str, Any] = field(compare=False)
    segment: int = 0
    tail: dict[str, Any] | None = None


@dataclass(slots=True)
class RetriedChunk:
    """
    A chunk that a retried call repeats, until it is decided how its text goes on.

    *tool_call_id* is the new id of the tool call.
    """

    stitcher: Stitcher
    tool_call_id: str | None


@dataclass(slots=True)
class ChunkState:
    """
    A chunk that is open, or that a retried call may still repeat. *segment* is the last one in Redis.

    Its text is in *track*. With a *filter*, or in a retried call, *shown* has the text that went out, and
    *track* the text that came in (of the last call; nothing where these are increments). *parser* makes
    patches and cards of the text; None where neither is needed.
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
    retried: RetriedChunk | None = None
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
        """All text of the chunk that readers have."""
        return self.track.complete if self.shown is None else self.shown.complete


class ToolCall(NamedTuple):
    """A tool call of a message; leads its result to the chunk and to the processor of the card."""

    tool_name: str
    chunk_index: int
    processor: str | None


class FinishedCard(NamedTuple):
    """The card of an ended call, and the type of the processor that made it."""

    processor: str
    output: dict[str, Any]


@dataclass(slots=True)
class RetriedCall:
    """
    A provider call that is being retried, within its step.

    Attributes:
        rule: How its texts continue the old ones.
        begun: Whether any part of it has arrived.
        unmatched: Chunks of the step, by key, that it has not continued yet: open ones, and with the rule
            ``stitch`` also ended ones.
    """

    rule: OnOverlap
    begun: bool = False
    unmatched: list[tuple[str, ChunkState]] = field(default_factory=list)


@dataclass(slots=True)
class MessageState:
    """A message that is still open (or has just ended, in the batch that ended it)."""

    id: str
    source: str
    codec: Codec
    producer: str
    """Id of the producer that writes it; "": a turn that waits for one."""
    role: str = "assistant"
    mode: Mode = "append"
    on_mismatch: OnMismatch = "emit"
    metadata: dict[str, Any] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)
    """What the producer says to observers only: conversation, user, operation_name, service_name."""
    status: MessageStatus = "open"
    step: int = -1
    step_open: bool = False
    chunk_count: int = 0
    open_chunks: dict[str, ChunkState] = field(default_factory=dict)
    """By the codec's key, in the order they started."""
    closed: list[tuple[str, ChunkState]] = field(default_factory=list)
    """Ended chunks of the current step (open, or the last one that failed), by their keys."""
    retried_call: RetriedCall | None = None
    call_aliases: dict[str, str] = field(default_factory=dict)
    """New id of a repeated tool call → the id that readers have."""
    tool_calls: dict[str, ToolCall] = field(default_factory=dict)
    """By the id that the provider gave the call."""
    cards: dict[str, FinishedCard] = field(default_factory=dict)
    """By the same id: finished cards of calls whose result may still come."""
    finish_reason: FinishReason | None = None
    usage: UsageData | None = None
    failure: Failure | None = None
    """Why the last step failed, until a new step begins; after the end: why the message failed."""
    stop_reason: str | None = None
    annotations: list[Annotated] = field(default_factory=list)
    note_filters: dict[str, dict[str, StreamFilter]] = field(default_factory=dict)
    """By annotation and field: filters of texts that arrive in parts; see `core.notes`."""
    raw_chunks: int = 0
    raw_bytes: int = 0
    rejected: int = 0
    skipped: int = 0
    """Skipped by the codecs of calls before the retried ones; *codec* counts its own."""
    ttft_ms: int | None = None
    last_at_ms: int = 0
    pipeline: str = ""
    """Version of the pipeline at the start of the message."""


class Recent(NamedTuple):
    """
    What the head stores of a message: enough to name all of its keys.

    A *replaced* message is kept, so that late entries and a second opening are handled as before, but
    readers no longer see it.
    """

    chunk_count: int
    producer: str
    replaced: bool = False


@dataclass(slots=True)
class LogWindow:
    """
    Bounds the bytes of the log without the size of each entry: the log is counted in two halves.

    When the newer half exceeds half of the bound, it becomes the older half, and the previous older half
    may be trimmed. So the log holds at most the bound, and at least half of it once it is full.
    """

    max_bytes: int
    first_seq: int = 1
    half_seq: int = 1
    half_bytes: int = 0

    def add(self, seq: int, size: int) -> None:
        """Count an entry of *size* bytes with number *seq*; may advance *first_seq*."""
        self.half_bytes += size
        if self.half_bytes > self.max_bytes // 2:
            self.first_seq, self.half_seq, self.half_bytes = self.half_seq, seq + 1, 0


@dataclass(slots=True)
class ChatState:
    """A chat in its owner's memory: a cache of what Redis has."""

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
    """Message and observer of each owed call. Such messages are not dropped."""
