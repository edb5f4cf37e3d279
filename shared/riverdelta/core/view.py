"""A chat as a reader sees it: the reduction of its events. A snapshot is the same, stored."""

from __future__ import annotations

import copy
from typing import Any

from riverdelta.core.events import (
    END_TYPES,
    Annotated,
    Event,
    Failure,
    SnapshotChunk,
    SnapshotMessage,
)
from riverdelta.core.outputs import grow_output


class ChatView:
    """
    Reduces a chat's events to its messages, in the shape of a snapshot.

    For any contiguous run of events after a snapshot (or from seq 1), `messages` equals the snapshot
    at the last event's ``seq``. Unknown event types are skipped.
    """

    def __init__(self) -> None:
        self._messages: dict[str, SnapshotMessage] = {}
        self._chunks: dict[str, SnapshotChunk] = {}

    @property
    def messages(self) -> list[SnapshotMessage]:
        """All messages seen so far, oldest first."""
        return list(self._messages.values())

    def message(self, message_id: str) -> SnapshotMessage:
        """
        Return one message.

        Raises:
            KeyError: No event mentioned it yet.
        """
        return self._messages[message_id]

    def text(self, message_id: str, kind: str = "text") -> str:
        """Return the text of all chunks of *kind* in a message, joined in order."""
        chunks = self._messages[message_id]["chunks"]
        return "".join(chunk["text"] for chunk in chunks if chunk["kind"] == kind)

    def apply(self, event: Event) -> None:
        """Apply the next event."""
        if event.type == "snapshot":
            self._restart(event.data["messages"])
        elif event.chunk is not None:
            self._apply_to_chunk(event.chunk, event.type, event.data, event.message or "")
        elif event.message is not None:
            self._apply_to_message(event.message, event.type, event.data)

    def _restart(self, messages: list[SnapshotMessage]) -> None:
        messages = copy.deepcopy(messages)  # do not change the event: the view changes its copy
        self._messages = {message["message"]: message for message in messages}
        self._chunks = {
            chunk["chunk"]: chunk for message in messages for chunk in message["chunks"]
        }

    def _apply_to_message(self, message_id: str, type_: str, data: dict[str, Any]) -> None:
        if type_ == "message.started":
            self._messages[message_id] = SnapshotMessage(
                message=message_id,
                role=data["role"],
                metadata=data["metadata"],
                status="open",
                finish_reason=None,
                usage=None,
                error=None,
                stop_reason=None,
                annotations=[],
                chunks=[],
            )
        elif type_ == "message.annotated":
            note = Annotated(name=data["name"], data=data["data"])
            self._messages[message_id]["annotations"].append(note)
        elif type_ == "message.replaced":
            for replaced in data["messages"]:
                self._forget(replaced)
        elif type_ in END_TYPES:
            message = self._messages[message_id]
            message["status"] = END_TYPES[type_]
            if type_ == "message.completed":
                message["finish_reason"], message["usage"] = data["finish_reason"], data["usage"]
            elif type_ == "message.failed":
                message["error"] = Failure(code=data["code"], detail=data["detail"])
            else:
                message["stop_reason"] = data["reason"]

    def _forget(self, message_id: str) -> None:
        message = self._messages.pop(message_id, None)
        for chunk in message["chunks"] if message is not None else ():
            del self._chunks[chunk["chunk"]]

    def _apply_to_chunk(
        self, chunk_id: str, type_: str, data: dict[str, Any], message_id: str
    ) -> None:
        if type_ == "chunk.started":
            chunk = self._chunks[chunk_id] = SnapshotChunk(
                chunk=chunk_id,
                kind=data["kind"],
                format=data["format"],
                status="open",
                text="",
                tool_name=data["tool_name"],
                tool_call_id=data["tool_call_id"],
                section=data["section"],
                outputs={},
            )
            self._messages[message_id]["chunks"].append(chunk)
        elif type_ == "chunk.delta":
            chunk = self._chunks[chunk_id]
            text = chunk["text"]
            chunk["text"] = ""  # alone, the text can grow in place: a delta costs what is new
            text += data["text"]
            chunk["text"] = text
        elif type_ == "chunk.output":
            outputs, processor = self._chunks[chunk_id]["outputs"], data["processor"]
            outputs[processor] = grow_output(outputs.get(processor), data["output"])
        elif type_ == "chunk.reset":
            self._chunks[chunk_id]["text"] = ""
            self._chunks[chunk_id]["outputs"].clear()
        elif type_ == "chunk.completed":
            self._chunks[chunk_id]["status"] = "completed"
        elif type_ == "chunk.failed":
            self._chunks[chunk_id]["status"] = "failed"
