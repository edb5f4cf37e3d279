"""A whole chat as ``/chats/post`` shows it, and its messages' parts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Literal, NamedTuple

from riverdelta.core.events import ChunkStatus, SnapshotChunk, SnapshotMessage
from riverdelta.core.outputs import ReasoningText, ResponseText, Status
from riverdelta_gateway.posting.failures import safe_failure
from riverdelta_gateway.turn import title_of, turn_of

Side = Literal["response", "reasoning"]

THINKING: Final = "Thinking"
"""Title of a model's reasoning, which has none of its own."""

_STATUSES: Final[dict[ChunkStatus, Status]] = {
    "open": "loading",
    "completed": "completed",
    "failed": "failed",
}
_OPENING_TOOLS: Final = "open_"
_REPLY_PROCESSOR: Final = "field_text"


class Part(NamedTuple):
    """A part of a message, and where it belongs: in the reply, or in what led to it."""

    side: Side
    body: dict[str, Any]


def text_part(
    chunk_id: str, kind: str, status: Status, *, text: str | None, new: str | None = None
) -> Part | None:
    """Make the part of a chunk of plain text; None: readers of the reply are not shown such chunks."""
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
    """Make the part of a card: what was asked for belongs to the reply, steps towards it do not."""
    in_reply = processor == _REPLY_PROCESSOR or (tool_name or "").startswith(_OPENING_TOOLS)
    return Part("response" if in_reply else "reasoning", output)


def whole_part(chunk: SnapshotChunk) -> Part | None:
    """Make the part of a chunk as it is now; None: there is nothing to show."""
    for processor, output in chunk["outputs"].items():
        return card_part(chunk["tool_name"], processor, output)
    return text_part(chunk["chunk"], chunk["kind"], _STATUSES[chunk["status"]], text=chunk["text"])


def chat_document(chat_id: str, messages: Sequence[SnapshotMessage]) -> dict[str, Any]:
    """Spell the whole chat. Its status is that of its last message, ``open`` if any is still open."""
    statuses = [message["status"] for message in messages]
    status = "open" if "open" in statuses else statuses[-1] if statuses else "completed"
    return {
        "id": chat_id,
        "title": title_of(messages),
        "status": status,
        "messages": [message_document(message) for message in messages],
    }


def message_document(message: SnapshotMessage) -> dict[str, Any]:
    """Spell a message: what was asked, what led to the reply, and the reply."""
    turn = turn_of(message["metadata"])
    parts = [part for chunk in message["chunks"] if (part := whole_part(chunk)) is not None]
    if message["status"] != "open":
        parts = [Part(part.side, _settled(part.body)) for part in parts]
    error = message["error"]
    return {
        "id": message["message"],
        "role": message["role"],
        "status": message["status"],
        "request_message": turn
        and {name: turn.get(name) for name in ("prompt", "asset_id", "asset_type")},
        "reasoning_messages": [part.body for part in parts if part.side == "reasoning"],
        "response_messages": [part.body for part in parts if part.side == "response"],
        "error": None if error is None else safe_failure(error, message["message"]),
    }


def _settled(body: dict[str, Any]) -> dict[str, Any]:
    """A part of a message that is over: nothing that still loads will ever be there."""
    if body["status"] == "loading":
        body = {**body, "status": "failed"}
    if "files" in body:
        files = body["files"].items()
        body = {**body, "files": {file_id: _settled(file) for file_id, file in files}}
    return body


def reply_text(message: SnapshotMessage) -> str:
    """Give what a message replied, as one text: what a model is told of it in later turns."""
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
