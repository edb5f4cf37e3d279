"""The parts of a message as readers see them: texts and cards, of the reply or of the reasoning. Pure."""

from __future__ import annotations

from typing import Any, Final, Literal, NamedTuple

from riverdelta.core.events import ChunkStatus, SnapshotChunk, SnapshotMessage
from riverdelta.core.outputs import ReasoningText, ResponseText, Status

Side = Literal["response", "reasoning"]

THINKING: Final = "Thinking"
"""Title of a model's reasoning."""

_STATUSES: Final[dict[ChunkStatus, Status]] = {
    "open": "loading",
    "completed": "completed",
    "failed": "failed",
}
_OPENING_TOOLS: Final = "open_"
_REPLY_PROCESSOR: Final = "field_text"


class Part(NamedTuple):
    """A part of a message. *side*: whether it belongs to the reply or the reasoning."""

    side: Side
    body: dict[str, Any]


def text_part(
    chunk_id: str, kind: str, status: Status, *, text: str | None, new: str | None = None
) -> Part | None:
    """Make the part of a chunk of plain text; None: chunks of this kind are not shown."""
    if kind == "reasoning":
        card = ReasoningText(
            id=chunk_id, title=THINKING, message=text, message_chunk=new, status=status
        )
        return Part("reasoning", card.wire())
    if kind in {"text", "refusal"}:
        reply = ResponseText(id=chunk_id, message=text, message_chunk=new, status=status)
        return Part("response", reply.wire())
    return None


def card_part(tool_name: str | None, processor: str, output: dict[str, Any]) -> Part:
    """Make the part of a card: opened assets belong to the reply, other cards to the reasoning."""
    in_reply = processor == _REPLY_PROCESSOR or (tool_name or "").startswith(_OPENING_TOOLS)
    return Part("response" if in_reply else "reasoning", output)


def whole_part(chunk: SnapshotChunk) -> Part | None:
    """Make the part of a chunk as it is now; None: it is not shown."""
    for processor, output in chunk["outputs"].items():
        return card_part(chunk["tool_name"], processor, output)
    return text_part(chunk["chunk"], chunk["kind"], _STATUSES[chunk["status"]], text=chunk["text"])


def reply_text(message: SnapshotMessage) -> str:
    """Return a message's reply as one text, for a model in later turns."""
    texts: list[str] = []
    for chunk in message["chunks"]:
        part = whole_part(chunk)
        if part is not None and part.side == "response":
            texts += _texts(part.body)
    return "\n\n".join(text for text in texts if text)


def _texts(body: dict[str, Any]) -> list[str]:
    if "files" in body:
        entries = [body["files"][file_id] for file_id in body["file_ids"]]
        return [f"{entry['file_name']}:\n{entry['file']['text'] or ''}" for entry in entries]
    return [body.get("message") or ""]
