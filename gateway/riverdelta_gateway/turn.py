"""A turn: one prompt and its reply, in a job and in a message's metadata. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.assets import AssetType

METADATA_KEY: Final = "turn"
"""Key of the turn in a message's metadata."""

TITLE: Final = "title"
"""Name of annotations with a title: parts as ``title_chunk``, and ``title`` at the end."""


_ID_DIGITS: Final = 32
"""128 bits: nobody finds two prompts of one id."""


@dataclass(frozen=True, slots=True)
class Turn:
    """
    A turn as its job describes it.

    Attributes:
        chat_id: The chat; it need not exist yet.
        message_id: Id of the reply, and of the turn: it keeps the turn from running twice.
        user: Id of the user who asks.
        prompt: The user's text. None: the asset is shown as it is.
        prompt_id: The client's own id of the prompt, if it has one.
        asset_type: Type of the asset that the turn is about, if any.
        asset_id: Id of that asset.
        from_message: The turn replaces this message and all behind it; None: it replaces none. Only where
            the turn was not accepted.
        accepted: The chat has the turn's message. False: whoever runs the turn opens it, as a gateway of
            the version before expects.
        reply_number: How many replies to the same prompt came before.
        replaces: Ids of the messages that it replaces.
        title: The chat's title when it was accepted: the message that had it may be replaced.
        behind: Ids of the turns of the chat that end first.
    """

    chat_id: str
    message_id: str
    user: str
    prompt: str | None = None
    prompt_id: str | None = None
    asset_type: AssetType | None = None
    asset_id: str | None = None
    from_message: str | None = None
    accepted: bool = False
    reply_number: int = 0
    replaces: Sequence[str] = ()
    title: str | None = None
    behind: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Encode the turn for its job."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Decode what `to_json` made; fields of a newer gateway are ignored."""
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})

    def metadata(self, replaces: Sequence[str], title: str | None) -> dict[str, Any]:
        """
        Make the metadata of the turn's message; it is stored with the message's start.

        Args:
            replaces: Ids of the messages that it replaces.
            title: The chat's title so far: the message that had it may expire.
        """
        return {
            METADATA_KEY: {
                "prompt": self.prompt,
                "prompt_id": self.prompt_id,
                "reply_number": self.reply_number,
                "asset_type": self.asset_type,
                "asset_id": self.asset_id,
                "replaces": list(replaces),
                "title": title,
            }
        }


def turn_message_id(chat_id: str, prompt_id: str, number: int) -> str:
    """
    Make the id of a turn's message: the same prompt, posted twice at once, is one reply.

    Args:
        chat_id: The chat.
        prompt_id: The client's own id of the prompt.
        number: How many replies to this prompt came before.
    """
    name = f"{chat_id}\0{prompt_id}\0{number}".encode()
    return f"m-{hashlib.sha256(name).hexdigest()[:_ID_DIGITS]}"


def turn_of(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the turn in a message's metadata; None: the message is not a turn."""
    turn = metadata.get(METADATA_KEY)
    return turn if isinstance(turn, dict) else None


def title_of(messages: Sequence[SnapshotMessage]) -> str | None:
    """Return a chat's title: the last one in its messages; None: it has none."""
    for message in reversed(messages):
        for note in reversed(message["annotations"]):
            if note["name"] == TITLE and (title := title_text(note["data"])) is not None:
                return title
        if (turn := turn_of(message["metadata"])) is not None and turn.get("title"):
            return str(turn["title"])
    return None


def title_text(data: Any) -> str | None:
    """Return the whole title in an annotation (``title`` or ``text``); None: it has only a part."""
    if isinstance(data, dict):
        for name in ("title", "text"):
            if isinstance(data.get(name), str) and data[name]:
                return str(data[name])
    return None


def from_message_on(messages: Sequence[SnapshotMessage], message_id: str | None) -> list[str]:
    """List *message_id* and the ids behind it; empty if it is not there."""
    ids = [message["message"] for message in messages]
    return ids[ids.index(message_id) :] if message_id in ids else []
