"""Send the entries of one message under their numbers, and again those that a server has lost."""

from __future__ import annotations

import logging
import time
from typing import Final

from riverdelta.broker.producer.registry import Opening, Registry, new_token
from riverdelta.broker.store import scripts
from riverdelta.broker.store.scripts import NewEntry, PushLimits, PushReply

_UNLIMITED: Final = PushLimits(2**53, 2**53)
"""For entries that were stored before: back-pressure does not hold up what a server has lost."""

_STORED: Final = ("stored", "repeat")

_log = logging.getLogger("riverdelta.producer")


class Sender:
    """
    Makes one try each; what an answer means for the message is decided by `Delivery`.

    Args:
        registry: Of the producer.
        opening: Of the message whose entries are sent.

    Attributes:
        last: Number of the last entry that is known to be stored; the start is 1.
        kept: The entries up to that one, as far as they are kept.
        is_ended: The end is among them.
        chat_fell_back: The server was found to have lost some of the chat since its last answer.
    """

    def __init__(self, registry: Registry, opening: Opening) -> None:
        self.last = 1
        self.kept = registry.resends.for_message()
        self.is_ended = False
        self.chat_fell_back = False
        self._registry = registry
        self._opening = opening
        self._keys = registry.client.keys.chat(opening.chat_id)
        self._opener = new_token()
        self._pushed = 0
        self._answered_at = 0.0

    async def start(self) -> PushReply:
        """Open the message; raises as `scripts.open_message`."""
        return await scripts.open_message(
            self._registry.client.pushes,
            self._keys,
            producer=self._registry.id,
            message_id=self._opening.message_id,
            opener=self._opener,
            start=self._opening.start,
            user=self._opening.user or "",
        )

    async def push(self, entries: list[NewEntry]) -> PushReply:
        """
        Push *entries*, and in the same step before them what the server has lost.

        Returns:
            The reply of ``push.lua``. ``hole``: what is missing is not kept any more; ``exists``: on
            the server that had lost ours, somebody else opened a message of this id.
        """
        reply = await self._push_from(self.last + 1, entries, self._registry.limits)
        while reply.status == "hole" or (reply.status == "unknown" and self.is_forgotten(reply)):
            chat_id, message_id, *_ = self._opening
            _log.warning("chat %s: Redis lost some of message %s", chat_id, message_id)
            self._registry.chat_fell_back(chat_id)
            if reply.status == "unknown":
                await self._registry.announce(self._opening)
                reply = await self.start()
                if reply.status == "exists":
                    return reply
            forgotten = self.kept.since(reply.last + 1)
            if forgotten is None:
                return reply._replace(status="hole")
            reply = await self._push_from(reply.last + 1, [*forgotten, *entries], _UNLIMITED)
        if reply.status in _STORED:
            self.last += len(entries)
            self.kept.add(entries)
            self.note_answer(reply)
        return reply

    def note_answer(self, reply: PushReply) -> None:
        """Note an answer of a server that knows the message."""
        self._pushed, self._answered_at = reply.pushed, time.monotonic()
        self.chat_fell_back = False

    @property
    def stale_s(self) -> float:
        """Replies older than this, in seconds, cannot tell loss from expiry."""
        return self._registry.client.settings.retention_s / 2

    def is_forgotten(self, reply: PushReply) -> bool:
        """Whether a message that a server does not know was lost: not expired, or dropped as old."""
        if time.monotonic() - self._answered_at > self.stale_s:
            return False
        # An open message is never dropped. Of one that ended, a chat keeps 50 later ones at most.
        return not self.is_ended or self.chat_fell_back or reply.pushed < self._pushed

    async def _push_from(
        self, number: int, entries: list[NewEntry], limits: PushLimits
    ) -> PushReply:
        return await scripts.push(
            self._registry.client.pushes,
            self._keys,
            producer=self._registry.id,
            message_id=self._opening.message_id,
            number=number,
            entries=entries,
            limits=limits,
        )
