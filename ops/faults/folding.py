"""
Compute the result that a message must have, and the result in a log: two folds in plain Python.

Nothing of riverdelta is imported here. The first reads what was pushed, the second the events that
came out; where they differ, one of the two implementations is wrong.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from faults.load import Item

ENDS: Final = {
    "message.completed": "completed",
    "message.failed": "failed",
    "message.stopped": "stopped",
}


@dataclass(slots=True)
class Chunk:
    """One piece of content: kind, the tool's name and call where it has one, and its text."""

    kind: str
    tool_name: str | None = None
    tool_call_id: str | None = None
    text: str = ""


@dataclass(slots=True)
class Reply:
    """
    A message: its chunks in order, what was annotated, and how it ended.

    Attributes:
        status: ``open``, ``completed``, ``failed`` or ``stopped``.
        code: Of a failure.
    """

    chunks: list[Chunk] = field(default_factory=list)
    notes: list[tuple[str, Any]] = field(default_factory=list)
    status: str = "open"
    code: str | None = None


# -- what was pushed -----------------------------------------------------------------------------


def fold_pushed(source: str, items: Sequence[Item]) -> Reply:
    """Say what the message must hold when exactly *items* were stored."""
    reply = Reply()
    raw = b""
    for item in items:
        match item.kind:
            case "annotate":
                reply.notes.append((item.data["name"], item.data["data"]))
            case "tool_result":
                call = item.data["tool_call_id"]
                name = next((c.tool_name for c in reply.chunks if c.tool_call_id == call), None)
                reply.chunks.append(Chunk("tool_result", name, call, item.data["content"]))
            case "bytes":
                # A character that is cut is no text yet.
                raw += base64.b64decode(item.data)
                _only_text(reply, raw.decode("utf-8", "ignore"))
            case _:
                _FOLDS[source](reply, item.data)
    return reply


def _only_text(reply: Reply, text: str) -> None:
    if not text:
        return
    if not reply.chunks:
        reply.chunks.append(Chunk("text"))
    reply.chunks[0].text = text


def _fold_text(reply: Reply, data: str) -> None:
    _only_text(reply, (reply.chunks[0].text if reply.chunks else "") + data)


def _fold_openai(reply: Reply, data: dict[str, Any]) -> None:
    delta = data["choices"][0]["delta"]
    if delta.get("content"):
        if not reply.chunks or reply.chunks[-1].kind != "text":
            reply.chunks.append(Chunk("text"))
        reply.chunks[-1].text += delta["content"]
    for call in delta.get("tool_calls", ()):
        if "id" in call:
            reply.chunks.append(Chunk("tool_call", call["function"]["name"], call["id"]))
        reply.chunks[-1].text += call["function"]["arguments"]


def _fold_direct(reply: Reply, data: dict[str, Any]) -> None:
    for chunk in reply.chunks:
        if chunk.kind == data["kind"]:
            chunk.text += data["text"]
            return
    reply.chunks.append(Chunk(data["kind"], text=data["text"]))


_FOLDS: Final[dict[str, Callable[[Reply, Any], None]]] = {
    "text": _fold_text,
    "text-snapshot": _only_text,
    "openai-chat": _fold_openai,
    "chunks": _fold_direct,
}


# -- what came out -------------------------------------------------------------------------------


class View:
    """
    Reduces a run of events.

    Attributes:
        replies: Message id → what came out.
        faults: (kind, what) of every event that cannot be right where it stands.
    """

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.faults: list[tuple[str, str]] = []
        self._chunks: dict[str, Chunk] = {}
        self._values: dict[str, list[Any]] = {}

    def restart(self, snapshot: dict[str, Any]) -> None:
        """Go on from what a snapshot event shows."""
        self.replies = read_snapshot(snapshot)
        self._chunks = {}
        self._values = {}
        for message in snapshot["data"]["messages"]:
            chunks = self.replies[message["message"]].chunks
            self._chunks |= {
                shown["chunk"]: chunk
                for shown, chunk in zip(message["chunks"], chunks, strict=True)
            }

    def apply(self, event: dict[str, Any]) -> None:
        """Take the next event of a run."""
        type_, message = event["type"], event.get("message", "")
        where = f"{message} {type_} at {event['epoch']}:{event['seq']}"
        if type_ == "message.started":
            if message in self.replies:
                self.faults.append(("repeated", where))
            self.replies[message] = Reply()
            return
        reply = self.replies.get(message)
        if reply is None:
            self.faults.append(("reordered", f"{where}: the message did not begin"))
            return
        if reply.status != "open":
            kind = "two ends" if type_ in ENDS else "event after end"
            self.faults.append((kind, f"{where}: it is {reply.status}"))
        if type_ in ENDS:
            reply.status, reply.code = ENDS[type_], event["data"].get("code")
        elif type_ == "message.annotated":
            reply.notes.append((event["data"]["name"], event["data"]["data"]))
        elif type_ == "input.rejected":
            code = event["data"]["code"]
            if code != "invalid_utf8":  # what a reply cut off in mid-character gives, rightly
                self.faults.append(("rejected", f"{where}: {event['data']}"))
        elif type_.startswith("chunk."):
            self._apply_to_chunk(event, reply, where)

    def _apply_to_chunk(self, event: dict[str, Any], reply: Reply, where: str) -> None:
        type_, data, chunk_id = event["type"], event["data"], event["chunk"]
        if type_ == "chunk.started":
            if chunk_id in self._chunks:
                self.faults.append(("repeated", where))
            chunk = Chunk(data["kind"], data["tool_name"], data["tool_call_id"])
            self._chunks[chunk_id] = chunk
            self._values[chunk_id] = [None]
            reply.chunks.append(chunk)
        elif chunk_id not in self._chunks:
            self.faults.append(("reordered", f"{where}: the chunk did not begin"))
        elif type_ == "chunk.delta":
            chunk = self._chunks[chunk_id]
            if data["offset"] != len(chunk.text):
                had = f"offset {data['offset']}, but {len(chunk.text)} code points came before"
                kind = "lost" if data["offset"] > len(chunk.text) else "repeated"
                self.faults.append((kind, f"{where}: {had}"))
            chunk.text += data["text"]
        elif chunk_id in self._values:  # else its patches began before this view did
            self._apply_to_value(event, self._values[chunk_id], where)

    def _apply_to_value(self, event: dict[str, Any], root: list[Any], where: str) -> None:
        """Check that patches result in the value of the whole text."""
        if event["type"] == "chunk.patch":
            try:
                for patch in event["data"]["patches"]:
                    _patch(root, *patch)
            except (LookupError, TypeError) as error:
                self.faults.append(("lost", f"{where}: nothing to patch: {error!r}"))
        elif event["type"] == "chunk.completed" and root[0] is not None:
            text = self._chunks[event["chunk"]].text
            with contextlib.suppress(ValueError):  # a reply that was stopped in the middle of it
                if root[0] == json.loads(text):
                    return
                self.faults.append(("diverged", f"{where}: patches give {root[0]}, not {text}"))


def _patch(root: list[Any], path: list[str | int], op: str, value: Any) -> None:
    """Apply one patch to the value in *root*."""
    container: Any = root
    slot: Any = 0
    for step in path:
        container, slot = container[slot], step
    if op == "append":
        container[slot] += value
    elif isinstance(container, list) and slot == len(container):
        container.append(value)
    else:
        container[slot] = value


def read_snapshot(event: dict[str, Any]) -> dict[str, Reply]:
    """Read the messages that a snapshot event holds."""
    replies = {}
    for message in event["data"]["messages"]:
        chunks = [
            Chunk(chunk["kind"], chunk["tool_name"], chunk["tool_call_id"], chunk["text"])
            for chunk in message["chunks"]
        ]
        notes = [(note["name"], note["data"]) for note in message["annotations"]]
        code = (message["error"] or {}).get("code")
        replies[message["message"]] = Reply(chunks, notes, message["status"], code)
    return replies
