"""A whole chat as ``/chats/post`` shows it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.parts import Part, whole_part
from riverdelta_gateway.posting.failures import safe_failure
from riverdelta_gateway.turn import title_of, turn_of


def chat_document(chat_id: str, messages: Sequence[SnapshotMessage]) -> dict[str, Any]:
    """Make the document of a chat. Its status is ``open`` if a message is open, else its last message's."""
    statuses = [message["status"] for message in messages]
    status = "open" if "open" in statuses else statuses[-1] if statuses else "completed"
    return {
        "id": chat_id,
        "title": title_of(messages),
        "status": status,
        "messages": [message_document(message) for message in messages],
    }


def message_document(message: SnapshotMessage) -> dict[str, Any]:
    """Make the document of a message: the request, the reasoning, the reply."""
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
    """Mark as failed what still loads in a part of a message that has ended."""
    if body["status"] == "loading":
        body = {**body, "status": "failed"}
    if "files" in body:
        files = body["files"].items()
        body = {**body, "files": {file_id: _settled(file) for file_id, file in files}}
    return body
