"""History stores: what a backend gets of a chat's earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from riverdelta.broker.reader.chat_reader import ChatReader
from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.backends.base import Said
from riverdelta_gateway.parts import reply_text
from riverdelta_gateway.turn import turn_of


class HistoryStore(Protocol):
    """
    Stores what was said in chats. Implement it for your own store, such as a database.

    Attributes:
        saves: Whether `save` is called.
    """

    @property
    def saves(self) -> bool:
        """Whether `save` is called."""

    async def load(self, chat_id: str, without: Sequence[str]) -> Sequence[Said]:
        """
        Return what was said, oldest first.

        Args:
            chat_id: The chat; it need not exist.
            without: Ids of messages that are being replaced.
        """

    async def save(self, chat_id: str, message_id: str, said: Sequence[Said]) -> None:
        """Store a turn's prompt and reply, in order. Called when the turn is over."""


class ChatHistory:
    """
    Reads the chat itself: the model gets what the readers see.

    It saves nothing: a chat's own keys are its history, until ``retention_s`` after its last activity.

    Args:
        subscriber: Reads chats.
    """

    saves = False

    def __init__(self, subscriber: ChatReader) -> None:
        self._subscriber = subscriber

    async def load(self, chat_id: str, without: Sequence[str]) -> Sequence[Said]:
        """Return what the chat's last fifty messages said, without open ones."""
        snapshot = await self._subscriber.snapshot(chat_id)
        messages: list[SnapshotMessage] = snapshot.data["messages"]
        return [
            said
            for message in messages
            if message["message"] not in without and message["status"] != "open"
            for said in what_was_said(message)
        ]

    async def save(self, chat_id: str, message_id: str, said: Sequence[Said]) -> None:
        """Do nothing: the chat has it."""


def what_was_said(message: SnapshotMessage) -> list[Said]:
    """Return a turn's prompt and reply; a message of another producer is a reply without a prompt."""
    said = []
    turn = turn_of(message["metadata"])
    if turn is not None and turn.get("prompt"):
        said.append(Said("user", turn["prompt"]))
    elif turn is not None and turn.get("asset_id"):
        said.append(Said("user", f"Open the {turn.get('asset_type')} {turn['asset_id']}."))
    if text := reply_text(message):
        said.append(Said("assistant" if message["role"] != "user" else "user", text))
    return said


def latest(said: Sequence[Said], max_chars: int) -> list[Said]:
    """Return the last contributions, *max_chars* together at most, beginning with a user's."""
    kept: list[Said] = []
    for one in reversed(said):
        max_chars -= len(one.text)
        if max_chars < 0:
            break
        kept.append(one)
    while kept and kept[-1].role == "assistant":
        kept.pop()
    return kept[::-1]
