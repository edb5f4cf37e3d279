"""
Encode a chat's events as the AI SDK's UI message stream (v1) of one message, which `useChat` reads.

Pure. The parts are those of ``uiMessageChunkSchema`` in the npm package ``ai`` 6. A message is one step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import orjson

from riverdelta.core.codecs.pieces import FinishReason
from riverdelta.core.events import Event, Failure, SnapshotChunk, SnapshotMessage
from riverdelta_gateway.posting.failures import safe_failure
from riverdelta_gateway.routes.ai_sdk_chunks import (
    Chunk,
    Part,
    TextChunk,
    ToolCallChunk,
    ToolResultChunk,
)
from riverdelta_gateway.turn import TITLE, title_text

HEADERS: Final[Mapping[str, str]] = {
    "x-vercel-ai-ui-message-stream": "v1",
}
"""Beside those of every stream."""
DONE: Final = b"data: [DONE]\n\n"

_FINISH: Final[Mapping[FinishReason | None, str]] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool-calls",
    "content_filter": "content-filter",
    "refusal": "content-filter",
    "error": "error",
}
_TEXTS: Final[Mapping[str, str]] = {"text": "text", "refusal": "text", "reasoning": "reasoning"}
"""Kind of a chunk of text -> its name in the stream."""


def encode_part(part: Part) -> bytes:
    """Encode a part as a server-sent event."""
    return b"data: " + orjson.dumps(part) + b"\n\n"


CUT: Final = encode_part(
    {
        "type": "error",
        "errorText": "The connection to this reply was ended, the reply goes on: reload the chat",
    }
)
"""End of a stream that is cut before the reply's end; no ``[DONE]`` follows."""


class UIMessageStream:
    """
    Makes the parts of one message, always from its beginning.

    Args:
        message_id: The message.

    Attributes:
        done: Whether its last part was returned; ``[DONE]`` follows.
    """

    def __init__(self, message_id: str) -> None:
        self.done = False
        self._message_id = message_id
        self._started = False
        self._chunks: dict[str, Chunk] = {}
        self._call_ids: dict[str, str] = {}
        """Provider's id of a tool call -> id for the client, unique in the message."""

    def apply(self, event: Event) -> list[Part]:
        """Take the next event of the chat; return its parts, in order."""
        if self.done or (event.type != "snapshot" and event.message != self._message_id):
            return []
        return list(self._parts(event))

    def catch_up(self, messages: Sequence[SnapshotMessage]) -> list[Part]:
        """Take the messages of a snapshot; return the parts that bring a client to their state."""
        return list(self._catch_up(messages))

    @property
    def started(self) -> bool:
        """Whether any part was returned."""
        return self._started

    def replaced(self) -> list[Part]:
        """Make the parts of a message that another one replaced before the client saw anything of it."""
        return [*self._start(), *self._abort("replaced")]

    def _parts(self, event: Event) -> Iterator[Part]:
        type_, data = event.type, event.data
        if type_ == "snapshot":
            yield from self._catch_up(data["messages"])
        elif type_ == "message.started":
            yield from self._start()
        elif type_ == "message.annotated":
            yield _note(data["name"], data["data"])
        elif type_ == "message.completed":
            yield from self._finish(data["finish_reason"])
        elif type_ == "message.failed":
            yield from self._fail(Failure(code=data["code"], detail=data["detail"]))
        elif type_ == "message.stopped":
            yield from self._abort(data["reason"])
        elif event.chunk is not None:
            yield from self._chunk_parts(event.chunk, type_, data)

    # -- the message -----------------------------------------------------------------------------

    def _start(self) -> Iterator[Part]:
        self._started = True
        yield {"type": "start", "messageId": self._message_id}
        yield {"type": "start-step"}

    def _catch_up(self, messages: Sequence[SnapshotMessage]) -> Iterator[Part]:
        """Make the parts that a snapshot has beyond those already returned."""
        message = next((m for m in messages if m["message"] == self._message_id), None)
        if message is None:
            if self._started:
                yield from self._abort("replaced")
            return
        if not self._started:
            yield from self._start()
            yield from (_note(note["name"], note["data"]) for note in message["annotations"])
        for chunk in message["chunks"]:
            yield from self._sync(chunk)
        if message["status"] == "completed":
            yield from self._finish(message["finish_reason"])
        elif message["status"] == "stopped":
            yield from self._abort(message["stop_reason"])
        elif message["error"] is not None:
            yield from self._fail(message["error"])

    def _finish(self, reason: FinishReason | None) -> Iterator[Part]:
        self.done = True
        yield {"type": "finish-step"}
        yield {"type": "finish", "finishReason": _FINISH.get(reason, "other")}

    def _fail(self, failure: Failure) -> Iterator[Part]:
        self.done = True
        yield {"type": "finish-step"}
        yield {"type": "error", "errorText": safe_failure(failure, self._message_id)["detail"]}

    def _abort(self, reason: str | None) -> Iterator[Part]:
        self.done = True
        yield {"type": "abort", "reason": reason or "stopped"}

    # -- its chunks ------------------------------------------------------------------------------

    def _chunk_parts(self, chunk_id: str, type_: str, data: dict[str, Any]) -> Iterator[Part]:
        if type_ == "chunk.started":
            yield from self._begin(chunk_id, data)
            return
        chunk = self._chunks[chunk_id]
        if type_ == "chunk.delta":
            yield from chunk.add(data["text"])
        elif type_ == "chunk.output":
            yield from chunk.show(data["processor"], data["output"])
        elif type_ == "chunk.reset":
            yield from chunk.reset()
        elif type_ in {"chunk.completed", "chunk.failed"}:
            yield from chunk.end(failed=type_ == "chunk.failed")

    def _sync(self, now: SnapshotChunk) -> Iterator[Part]:
        """Make the parts that bring a client's chunk to its state *now*."""
        chunk = self._chunks.get(now["chunk"])
        if chunk is None:
            yield from self._begin(now["chunk"], now)
            chunk = self._chunks[now["chunk"]]
        if not chunk.ended:
            if not now["text"].startswith(chunk.text):
                yield from chunk.reset()
            if rest := now["text"][len(chunk.text) :]:
                yield from chunk.add(rest)
        for processor, output in now["outputs"].items():
            yield from chunk.show(processor, output)
        if now["status"] != "open" and not chunk.ended:
            yield from chunk.end(failed=now["status"] == "failed")

    def _begin(self, chunk_id: str, about: Mapping[str, Any]) -> Iterator[Part]:
        chunk = self._chunks[chunk_id] = self._new_chunk(chunk_id, about)
        yield from chunk.start()

    def _new_chunk(self, chunk_id: str, about: Mapping[str, Any]) -> Chunk:
        kind, call_id = about["kind"], about["tool_call_id"]
        is_json = about["format"] == "json"
        if kind in _TEXTS:
            return TextChunk(chunk_id, _TEXTS[kind])
        if kind == "tool_call":
            shown_id = chunk_id if call_id is None or call_id in self._call_ids else call_id
            self._call_ids[call_id or chunk_id] = shown_id
            return ToolCallChunk(chunk_id, shown_id, about["tool_name"], is_json=is_json)
        if call_id in self._call_ids:
            return ToolResultChunk(chunk_id, self._call_ids[call_id], is_json=is_json)
        return Chunk(chunk_id)  # a result without a call: the client would fail on it


def _note(name: str, data: Any) -> Part:
    """Make the part of an annotation; a title is transient, because it belongs to the chat."""
    if name == TITLE:
        title = title_text(data)
        shown = data if title is None else {"title": title}
        return {"type": "data-title", "data": shown, "transient": True}
    return {"type": f"data-{name}", "data": data}
