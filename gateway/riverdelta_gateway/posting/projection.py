"""
Project a chat's events onto the frames of ``/chats/post``. Pure.

The input is the chat's log alone, so every gateway process of the user makes the same frames. The frames
of a turn, in order: ``initializeChat``; ``generatingTitle``, ``generatingReasoningMessage`` and
``generatingResponseMessage``, mixed; exactly one ``complete``, however the turn ends. After a snapshot,
``initializeChat`` comes again with the whole chat.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from riverdelta.core.events import END_TYPES, Event, Failure, SnapshotChunk
from riverdelta.core.view import ChatView
from riverdelta_gateway.parts import Part, card_part, text_part, whole_part
from riverdelta_gateway.posting.chat import chat_document
from riverdelta_gateway.posting.failures import safe_failure
from riverdelta_gateway.turn import TITLE, title_text, turn_of


class PostFrame(NamedTuple):
    """One response of the route ``/chats/post``. *failure*: why the turn failed, if it did."""

    event: str
    payload: dict[str, Any]
    failure: Failure | None = None


class Projection:
    """
    Projects one chat.

    Args:
        chat_id: The chat.
    """

    def __init__(self, chat_id: str) -> None:
        self._chat_id = chat_id
        self._view = ChatView()
        self._awaited: set[str] = set()
        """Expected turns: accepted here, or begun but with messages still to be replaced."""
        self._open: set[str] = set()
        """Turns with an ``initializeChat``, and no ``complete`` yet."""
        self._over: set[str] = set()
        """Turns without further frames."""

    @property
    def idle(self) -> bool:
        """Whether no turn runs or is expected."""
        return not self._awaited and not self._open

    @property
    def under_way(self) -> bool:
        """Whether a turn runs."""
        return bool(self._open)

    def greet(self) -> list[PostFrame]:
        """Make the frames that a socket needs which came while turns run: the chat so far, for each."""
        return [PostFrame("initializeChat", self._chat(one)) for one in sorted(self._open)]

    def expect(self, message_id: str) -> None:
        """Expect a message, perhaps a turn: it gets frames even if it ends before the chat is read."""
        if message_id not in self._open and message_id not in self._over:
            self._awaited.add(message_id)

    def apply(self, event: Event) -> list[PostFrame]:
        """Take the next event of the chat; return its frames, in order."""
        self._view.apply(event)
        if event.type == "snapshot":
            return self._catch_up()
        if event.type in {"message.started", "message.replaced"} and event.message is not None:
            return self._begin(event.message, event.type, event.data)
        if event.message in self._open:
            return self._go_on(event.message, event)
        return []

    # -- turns -----------------------------------------------------------------------------------

    def _begin(self, message_id: str, type_: str, data: dict[str, Any]) -> list[PostFrame]:
        if type_ == "message.started":
            turn = turn_of(data["metadata"])
            if turn is None or message_id in self._over:
                self._awaited.discard(message_id)
                return []
            if turn.get("replaces"):
                self._awaited.add(message_id)  # first show the chat without the replaced messages
                return []
        elif message_id not in self._awaited:
            return []
        return [self._initialize(message_id)]

    def _catch_up(self) -> list[PostFrame]:
        """Make frames for every turn that runs or is expected; old ones get none."""
        frames = []
        seen = set()
        for message in self._view.messages:
            message_id = message["message"]
            if turn_of(message["metadata"]) is None:
                self._awaited.discard(message_id)
                continue
            seen.add(message_id)
            is_wanted = message_id in self._open or message_id in self._awaited
            if message_id not in self._over and (is_wanted or message["status"] == "open"):
                frames.append(self._initialize(message_id))
                if message["status"] != "open":
                    frames.append(self._complete(message_id))
            elif message["status"] != "open":
                self._over.add(message_id)
        frames += [self._complete(message_id) for message_id in sorted(self._open - seen)]
        self._over &= seen
        return frames

    def _initialize(self, message_id: str) -> PostFrame:
        self._awaited.discard(message_id)
        self._open.add(message_id)
        return PostFrame("initializeChat", self._chat(message_id))

    def _complete(self, message_id: str) -> PostFrame:
        self._open.discard(message_id)
        self._over.add(message_id)
        error = None
        for message in self._view.messages:
            if message["message"] == message_id:
                error = message["error"]
        failure = None if error is None else safe_failure(error, message_id)
        return PostFrame("complete", self._chat(message_id), failure)

    def _chat(self, message_id: str) -> dict[str, Any]:
        return {**chat_document(self._chat_id, self._view.messages), "message_id": message_id}

    # -- the frames of a turn --------------------------------------------------------------------

    def _go_on(self, message_id: str, event: Event) -> list[PostFrame]:
        if event.type in END_TYPES:
            return [self._complete(message_id)]
        if event.type == "message.annotated":
            return self._title(message_id, event.data)
        if event.chunk is not None:
            part = self._part(message_id, event.chunk, event.type, event.data)
            return [] if part is None else [self._generating(message_id, part)]
        return []

    def _title(self, message_id: str, note: dict[str, Any]) -> list[PostFrame]:
        if note["name"] != TITLE or not isinstance(note["data"], dict):
            return []
        title, new = title_text(note["data"]), note["data"].get("title_chunk")
        payload = {
            "chat_id": self._chat_id,
            "message_id": message_id,
            "title": title,
            "title_chunk": new,
            "progress": "in_progress" if title is None else "completed",
        }
        return [PostFrame("generatingTitle", payload)]

    def _part(
        self, message_id: str, chunk_id: str, type_: str, data: dict[str, Any]
    ) -> Part | None:
        chunk = self._chunk(message_id, chunk_id)
        if type_ == "chunk.delta":
            return text_part(chunk_id, chunk["kind"], "loading", text=None, new=data["text"])
        if type_ == "chunk.output":
            return card_part(chunk["tool_name"], data["processor"], data["output"])
        if type_ in {"chunk.completed", "chunk.failed", "chunk.reset"} and not chunk["outputs"]:
            return whole_part(chunk)
        return None

    def _chunk(self, message_id: str, chunk_id: str) -> SnapshotChunk:
        index = int(chunk_id.rpartition(".")[2])
        return self._view.message(message_id)["chunks"][index]

    def _generating(self, message_id: str, part: Part) -> PostFrame:
        name, field = {
            "response": ("generatingResponseMessage", "response_message"),
            "reasoning": ("generatingReasoningMessage", "reasoning"),
        }[part.side]
        payload = {"chat_id": self._chat_id, "message_id": message_id, field: part.body}
        return PostFrame(name, payload)
