"""What a turn is: as a job says it, and as the chat's own messages say it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from riverdelta.core.events import SnapshotMessage
from riverdelta_gateway.assets import AssetType

METADATA_KEY: Final = "turn"
"""Under this name a message's metadata says that it is a turn, and which."""

TITLE: Final = "title"
"""Name of the annotations that carry a title: ``title_chunk`` parts, and ``title`` at the end."""


@dataclass(frozen=True, slots=True)
class Turn:
    """
    A turn as its job has it.

    Attributes:
        chat_id: The chat; it need not exist yet.
        message_id: Of the reply: the turn's own id, and the key that keeps it from running twice.
        user: Whose turn it is.
        prompt: What they wrote. None: nothing; the asset is shown as it is.
        prompt_id: The client's own id of the prompt, if it has one.
        asset_type: Of the asset that the turn is about, if any.
        asset_id: Same.
        from_message: That message and all that follow it are replaced by this turn.
    """

    chat_id: str
    message_id: str
    user: str
    prompt: str | None = None
    prompt_id: str | None = None
    asset_type: AssetType | None = None
    asset_id: str | None = None
    from_message: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Spell it for the job."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """Undo `to_json`; fields of a newer gateway are passed over."""
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})

    def metadata(self, replaces: Sequence[str], title: str | None) -> dict[str, Any]:
        """
        Say in the message's metadata what it is: with the start, so no reader sees half of it.

        Args:
            replaces: Ids of the messages that it replaces.
            title: The chat's title so far; messages that carried it may be forgotten by and by.
        """
        return {
            METADATA_KEY: {
                "prompt": self.prompt,
                "prompt_id": self.prompt_id,
                "asset_type": self.asset_type,
                "asset_id": self.asset_id,
                "replaces": list(replaces),
                "title": title,
            }
        }


def turn_of(metadata: Mapping[str, Any]) -> dict[str, Any] | None:
    """Give what a message's metadata says of a turn; None: it is none of ours."""
    turn = metadata.get(METADATA_KEY)
    return turn if isinstance(turn, dict) else None


def title_of(messages: Sequence[SnapshotMessage]) -> str | None:
    """Give a chat's title: the last one that a message said."""
    for message in reversed(messages):
        for note in reversed(message["annotations"]):
            if note["name"] == TITLE and (title := title_text(note["data"])) is not None:
                return title
        if (turn := turn_of(message["metadata"])) is not None and turn.get("title"):
            return str(turn["title"])
    return None


def title_text(data: Any) -> str | None:
    """Give the whole title in a title annotation; backends of one's own may call it ``text``."""
    if isinstance(data, dict):
        for name in ("title", "text"):
            if isinstance(data.get(name), str) and data[name]:
                return str(data[name])
    return None


def from_message_on(messages: Sequence[SnapshotMessage], message_id: str | None) -> list[str]:
    """Ids of *message_id* and of what follows it; none where it is not there."""
    ids = [message["message"] for message in messages]
    return ids[ids.index(message_id) :] if message_id in ids else []
