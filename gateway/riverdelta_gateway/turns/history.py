"""What was said in a chat before: what a backend is told of earlier turns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from riverdelta.broker.reader.subscriber import Subscriber
from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.backends.base import Said
from riverdelta_gateway.parts import reply_text
from riverdelta_gateway.turn import turn_of


class HistoryStore(Protocol):
    """
    Remembers chats. A store of one's own (a database, say) implements this.

    Attributes:
        saves: Whether `save` is to be called at all.
    """

    @property
    def saves(self) -> bool:
        """Whether `save` is to be called at all."""

    async def load(self, chat_id: str, without: Sequence[str]) -> Sequence[Said]:
        """
        Give what was said, oldest first.

        Args:
            chat_id: The chat; it need not exist.
            without: Ids of messages that are being replaced.
        """

    async def save(self, chat_id: str, message_id: str, said: Sequence[Said]) -> None:
        """Keep what a turn came to. Called once the turn is over, with *said* in order."""


class ChatHistory:
    """
    Reads the chat itself: what its readers see is what the model is told.

    Nothing has to be saved: a chat's own keys are its history, until ``retention_s`` after its last
    activity.

    Args:
        subscriber: Reads chats.
    """

    saves = False

    def __init__(self, subscriber: Subscriber) -> None:
        self._subscriber = subscriber

    async def load(self, chat_id: str, without: Sequence[str]) -> Sequence[Said]:
        """Give what the chat's last messages (fifty of them) said; those still open are left out."""
        snapshot = await self._subscriber.snapshot(chat_id)
        messages: list[SnapshotMessage] = snapshot.data["messages"]
        return [
            said
            for message in messages
            if message["message"] not in without and message["status"] != "open"
            for said in what_was_said(message)
        ]

    async def save(self, chat_id: str, message_id: str, said: Sequence[Said]) -> None:
        """Do nothing: it is in the chat."""


def what_was_said(message: SnapshotMessage) -> list[Said]:
    """Give a turn's prompt and reply; what another producer wrote is a reply without a prompt."""
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
    """Give the last contributions that have *max_chars* together; none begins with the assistant's."""
    kept: list[Said] = []
    for one in reversed(said):
        max_chars -= len(one.text)
        if max_chars < 0:
            break
        kept.append(one)
    while kept and kept[-1].role == "assistant":
        kept.pop()
    return kept[::-1]
