"""
Events: the numbered facts on a chat's log. This module is the one place that defines their shape.

The TypedDicts below give mypy the shape of each ``data``, and `json_schema` makes the published JSON
Schema of them (``events.schema.json`` in this package; a test keeps the file current).
"""

from __future__ import annotations

from typing import Any, Final, Literal, NotRequired

import orjson
from pydantic import ConfigDict, TypeAdapter, with_config
from typing_extensions import TypedDict

from riverdelta.core.codecs.pieces import FinishReason, Format, Kind, Section
from riverdelta.core.positions import NO_EPOCH, Position

EVENT_FORMAT: Final = 1
"""Format number ``v`` of events. What is stored beside them counts its own (`broker.store.fields`)."""

MessageStatus = Literal["open", "completed", "failed", "stopped"]
ChunkStatus = Literal["open", "completed", "failed"]
ResetReason = Literal["mismatch", "restarted"]
EventType = Literal[
    "message.started",
    "step.started",
    "step.completed",
    "step.failed",
    "chunk.started",
    "chunk.delta",
    "chunk.patch",
    "chunk.output",
    "chunk.reset",
    "chunk.completed",
    "chunk.failed",
    "processor.failed",
    "input.rejected",
    "message.annotated",
    "message.replaced",
    "message.completed",
    "message.failed",
    "message.stopped",
    "snapshot",
]

_CLOSED = ConfigDict(extra="forbid")


@with_config(_CLOSED)
class UsageData(TypedDict):
    """Token counts: those that every provider reports, and the provider's own object (absent in sums)."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int
    cached_tokens: int
    raw: NotRequired[dict[str, Any]]


@with_config(_CLOSED)
class MessageStarted(TypedDict):
    """A reply begins."""

    role: str
    source: str
    metadata: dict[str, Any]


@with_config(_CLOSED)
class StepStarted(TypedDict):
    """A provider call inside the message begins. Steps count from 0."""

    step: int
    model: str | None


@with_config(_CLOSED)
class StepCompleted(TypedDict):
    """A provider call ended. *finish_reason* null: the stream broke off before the provider gave one."""

    step: int
    finish_reason: FinishReason | None
    raw_finish_reason: str | None
    usage: UsageData | None


@with_config(_CLOSED)
class StepFailed(TypedDict):
    """The provider reported an error, or the message ended while the step was open."""

    step: int
    code: str
    detail: str


@with_config(_CLOSED)
class SectionData(TypedDict):
    """A named part of a text: its name (``code``), and the info of its marker (``python``)."""

    name: str
    info: str


@with_config(_CLOSED)
class ChunkStarted(TypedDict):
    """
    A piece of content begins. *index* is its place in the message, from 0.

    *section* null: ordinary text, or a kind that is never cut into sections.
    """

    kind: Kind
    format: Format
    index: int
    tool_name: str | None
    tool_call_id: str | None
    section: SectionData | None


@with_config(_CLOSED)
class ChunkDelta(TypedDict):
    """New text. *offset* is the length of the text before it, in Unicode code points."""

    offset: int
    text: str


@with_config(_CLOSED)
class ChunkPatch(TypedDict):
    """
    Changes of the JSON value that a chunk of format ``json`` contains.

    Each patch is ``[path, op, value]``; `riverdelta.apply_patches` applies them to a document.
    """

    patches: list[tuple[tuple[str | int, ...], Literal["append", "set"], Any]]


@with_config(_CLOSED)
class ChunkOutput(TypedDict):
    """A part of the card that a processor makes of a chunk; `riverdelta.reduce_output` joins the parts."""

    processor: str
    output: dict[str, Any]


@with_config(_CLOSED)
class ProcessorFailed(TypedDict):
    """A processor failed for a chunk; its text goes on. *processor* ``json``: the text is not JSON."""

    processor: str
    code: str


@with_config(_CLOSED)
class ChunkReset(TypedDict):
    """
    All text of the chunk so far is void, and so are its patches and its card.

    An open chunk starts over at offset 0. *reason* ``mismatch``: a snapshot contradicted the one before;
    ``restarted``: the provider call was retried. Then the event may come after the chunk's end, too: such
    a chunk stays empty.
    """

    reason: ResetReason


@with_config(_CLOSED)
class ChunkCompleted(TypedDict):
    """The chunk's text is final; *length* in code points."""

    length: int


@with_config(_CLOSED)
class Failure(TypedDict):
    """A failure: a code for programs and a sentence for people."""

    code: str
    detail: str


@with_config(_CLOSED)
class Annotated(TypedDict):
    """Extra data that the backend adds to a message: a title, a citation."""

    name: str
    data: Any


@with_config(_CLOSED)
class MessageReplaced(TypedDict):
    """The event's message replaces these: remove them. Those that were open have been stopped."""

    messages: list[str]


@with_config(_CLOSED)
class Timings(TypedDict):
    """Measured on the producer's clock since it opened the message. *ttft_ms* null: there was no text."""

    ttft_ms: int | None
    duration_ms: int


@with_config(_CLOSED)
class MessageCompleted(TypedDict):
    """The producer ended the reply. *bytes* and *chunks* count the raw input."""

    finish_reason: FinishReason | None
    usage: UsageData | None
    timings: Timings
    bytes: int
    chunks: int


@with_config(_CLOSED)
class MessageStopped(TypedDict):
    """A reader stopped the reply."""

    reason: str


@with_config(_CLOSED)
class SnapshotChunk(TypedDict):
    """A chunk as of the snapshot."""

    chunk: str
    kind: Kind
    format: Format
    status: ChunkStatus
    text: str
    tool_name: str | None
    tool_call_id: str | None
    section: SectionData | None
    outputs: dict[str, Any]


@with_config(_CLOSED)
class SnapshotMessage(TypedDict):
    """A message as of the snapshot. Its end is explained in *error* or *stop_reason*."""

    message: str
    role: str
    metadata: dict[str, Any]
    status: MessageStatus
    finish_reason: FinishReason | None
    usage: UsageData | None
    error: Failure | None
    stop_reason: str | None
    annotations: list[Annotated]
    chunks: list[SnapshotChunk]


@with_config(_CLOSED)
class Snapshot(TypedDict):
    """The chat as of the event's ``seq``. Made for one reader, not stored on the log."""

    messages: list[SnapshotMessage]


DATA_TYPES: Final[dict[EventType, type]] = {
    "message.started": MessageStarted,
    "step.started": StepStarted,
    "step.completed": StepCompleted,
    "step.failed": StepFailed,
    "chunk.started": ChunkStarted,
    "chunk.delta": ChunkDelta,
    "chunk.patch": ChunkPatch,
    "chunk.output": ChunkOutput,
    "chunk.reset": ChunkReset,
    "chunk.completed": ChunkCompleted,
    "chunk.failed": Failure,
    "processor.failed": ProcessorFailed,
    "input.rejected": Failure,
    "message.annotated": Annotated,
    "message.replaced": MessageReplaced,
    "message.completed": MessageCompleted,
    "message.failed": Failure,
    "message.stopped": MessageStopped,
    "snapshot": Snapshot,
}

END_TYPES: Final[dict[str, MessageStatus]] = {
    "message.completed": "completed",
    "message.failed": "failed",
    "message.stopped": "stopped",
}
"""The three events that end a message, and the status each leaves."""


class Event:
    """
    One event as a reader gets it.

    Attributes:
        type: One of `EventType` (a newer server may send others: skip the ones you do not know).
        seq: Number on the chat's log, from 1; a snapshot carries the last one it holds.
        epoch: Id of the log.
        chat, message, chunk: Ids. *message* and *chunk* are None where the event is about more than one.
        ts: Unix time in milliseconds on the worker's clock; for people, not for ordering.
        data: Shaped as the TypedDict of this module that `DATA_TYPES` names.
        raw: The event as UTF-8 JSON, exactly as stored.
    """

    __slots__ = ("_fields", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._fields: dict[str, Any] = orjson.loads(raw)

    @property
    def type(self) -> str:
        """Event type."""
        return self._fields["type"]  # type: ignore[no-any-return]  # decoded JSON

    @property
    def seq(self) -> int:
        """Number on the chat's log."""
        return self._fields["seq"]  # type: ignore[no-any-return]  # decoded JSON

    @property
    def epoch(self) -> str:
        """Id of the log."""
        return self._fields["epoch"]  # type: ignore[no-any-return]  # decoded JSON

    @property
    def chat(self) -> str:
        """Chat id."""
        return self._fields["chat"]  # type: ignore[no-any-return]  # decoded JSON

    @property
    def message(self) -> str | None:
        """Message id, if the event belongs to one."""
        return self._fields.get("message")

    @property
    def chunk(self) -> str | None:
        """Chunk id, if the event belongs to one."""
        return self._fields.get("chunk")

    @property
    def ts(self) -> int:
        """Unix time in milliseconds on the worker's clock."""
        return self._fields["ts"]  # type: ignore[no-any-return]  # decoded JSON

    @property
    def data(self) -> dict[str, Any]:
        """The facts; shape by `type`."""
        return self._fields["data"]  # type: ignore[no-any-return]  # decoded JSON

    @property
    def position(self) -> str:
        """The position of this event; pass it to ``events(after=…)`` to get exactly what follows."""
        return str(Position(self.epoch, self.seq))

    @property
    def ends_message(self) -> bool:
        """Whether this is the last event of `message`."""
        return self.type in END_TYPES

    def __repr__(self) -> str:
        """Show the JSON."""
        return f"Event({self.raw.decode()})"


def encode_event(  # the eight fields of an event, and nothing else
    *,
    seq: int,
    epoch: str,
    chat: str,
    message: str | None,
    chunk: str | None,
    type_: EventType,
    ts_ms: int,
    data: Any,  # one of the TypedDicts above, checked by mypy where it is built
) -> bytes:
    """Encode an event as it is stored and sent; *message* and *chunk* are left out where None."""
    fields: dict[str, Any] = {"v": EVENT_FORMAT, "seq": seq, "epoch": epoch, "chat": chat}
    if message is not None:
        fields["message"] = message
    if chunk is not None:
        fields["chunk"] = chunk
    fields["type"] = type_
    fields["ts"] = ts_ms
    fields["data"] = data
    return orjson.dumps(fields)


def section_data(section: Section | None) -> SectionData | None:
    """Encode a chunk's section as events carry it."""
    return None if section is None else SectionData(name=section.name, info=section.info)


def empty_snapshot(chat: str, ts_ms: int) -> Event:
    """Make the snapshot of a chat that has no log yet; the first event that follows has seq 1."""
    return Event(
        encode_event(
            seq=0,
            epoch=NO_EPOCH,
            chat=chat,
            message=None,
            chunk=None,
            type_="snapshot",
            ts_ms=ts_ms,
            data={"messages": []},
        )
    )


def json_schema() -> dict[str, Any]:
    """Build the JSON Schema (2020-12) of every event, one ``oneOf`` branch per type."""
    definitions: dict[str, Any] = {}
    branches = []
    for type_, data_type in DATA_TYPES.items():
        schema = TypeAdapter(data_type).json_schema(ref_template="#/$defs/{model}")
        definitions |= schema.pop("$defs", {})
        definitions[data_type.__name__] = schema
        owners = set() if type_ == "snapshot" else {"message"}
        owners |= {"chunk"} if type_.startswith(("chunk.", "processor.")) else set()
        branches.append(_branch(type_, data_type.__name__, sorted(owners)))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "riverdelta event",
        "oneOf": branches,
        "$defs": dict(sorted(definitions.items())),
    }


def _branch(type_: str, data_name: str, owners: list[str]) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "v": {"const": EVENT_FORMAT},
        "seq": {"type": "integer", "minimum": 0},
        "epoch": {"type": "string"},
        "chat": {"type": "string"},
        "type": {"const": type_},
        "ts": {"type": "integer", "description": "Unix time in milliseconds"},
        "data": {"$ref": f"#/$defs/{data_name}"},
    }
    properties |= {owner: {"type": "string"} for owner in owners}
    required = list(properties)
    if type_ == "chunk.delta":
        properties["first_seq"] = {
            "type": "integer",
            "minimum": 1,
            "description": "Never on the log. A gateway merged the events from this one to seq for a "
            "slow reader: this follows the event whose seq is one less than this number",
        }
    return {
        "type": "object",
        "title": type_,
        "properties": properties,
        "required": required,
        "additionalProperties": False,
    }
