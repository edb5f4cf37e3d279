"""What observers have been told, and are being told, of one chat that this process owns."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field


@dataclass(slots=True)
class Hooks:
    """
    A chat's place in the memory of those who call its observers; made when there is something to tell.

    Attributes:
        begun: Open messages whose first text has been told, or was told by another owner.
        silenced: Message and observer's name: live no more, it raised or was too slow.
        live: Live hooks under way.
        owed: By message and observer's name: who is calling `on_complete` or `on_error`.
    """

    begun: set[str] = field(default_factory=set)
    silenced: set[tuple[str, str]] = field(default_factory=set)
    live: set[asyncio.Task[str]] = field(default_factory=set)
    owed: dict[tuple[str, str], asyncio.Task[None]] = field(default_factory=dict)

    def ended(self, message_id: str) -> None:
        """Forget a message: nothing more of it is told live."""
        self.begun.discard(message_id)
        self.silenced -= {known for known in self.silenced if known[0] == message_id}


def reason(error: BaseException) -> str:
    """Say in one short line what went wrong."""
    return f"{type(error).__name__}: {error}".rstrip(": ")[:500]
