"""Sends the entries of one message under their numbers, and again what a server has forgotten."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final

from riverdelta.broker.store import scripts
from riverdelta.broker.store.scripts import NewEntry, PushLimits, PushReply

if TYPE_CHECKING:
    from riverdelta.broker.producer.message import Message
    from riverdelta.broker.producer.producer import Producer

_UNLIMITED: Final = PushLimits(2**53, 2**53)
"""For what was stored before: no back-pressure holds up what a server has forgotten."""

_STORED: Final = ("stored", "repeat")

_log = logging.getLogger("riverdelta.producer")


class Sender:
    """
    One try each: what an answer means for the message is `Message`'s business.

    Attributes:
        last: Number of the last entry that is known to be stored; the start is 1.
        kept: The entries up to that one, as far as they are kept.
        is_ended: The end is among them.
        chat_fell_back: Another message of the chat was found forgotten since the last answer.
    """

    def __init__(self, producer: Producer, message: Message, start: bytes) -> None:
        self.last = 1
        self.kept = producer.resends.for_message()
        self.is_ended = False
        self.chat_fell_back = False
        self._producer = producer
        self._message = message
        self._keys = producer.client.keys.chat(message.chat_id)
        self._start = start
        self._opener = producer.new_token()
        self._pushed = 0
        self._heard_at = 0.0

    async def start(self) -> PushReply:
        """Open the message; raises as `scripts.open_message`."""
        return await scripts.open_message(
            self._producer.client.pushes,
            self._keys,
            producer=self._producer.id,
            message_id=self._message.id,
            opener=self._opener,
            start=self._start,
            user=self._message.user or "",
        )

    async def push(self, entries: list[NewEntry]) -> PushReply:
        """
        Push *entries*, and in the same step before them whatever the server has forgotten.

        Returns:
            What ``push.lua`` does. ``hole``: what is missing is not kept any more; ``exists``: somebody
            else opened a message of this id on the server that had forgotten ours.
        """
        reply = await self._push_from(self.last + 1, entries, self._producer.limits)
        while reply.status == "hole" or (reply.status == "unknown" and self.is_forgotten(reply)):
            message = self._message
            _log.warning("chat %s: Redis forgot some of message %s", message.chat_id, message.id)
            self._producer.fell_back(message.chat_id)
            if reply.status == "unknown":
                await self._producer.introduce(message)
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
            self.heard(reply)
        return reply

    def heard(self, reply: PushReply) -> None:
        """Note an answer of a server that knows the message."""
        self._pushed, self._heard_at = reply.pushed, time.monotonic()
        self.chat_fell_back = False

    @property
    def stale_s(self) -> float:
        """Age at which an answer proves nothing: what nobody knows now may have expired since."""
        return self._producer.client.settings.retention_s / 2

    def is_forgotten(self, reply: PushReply) -> bool:
        """Whether a message that a server does not know was lost: not expired, or dropped as old."""
        if time.monotonic() - self._heard_at > self.stale_s:
            return False
        # An open message is never dropped. Of one that ended, a chat keeps 50 later ones at most.
        return not self.is_ended or self.chat_fell_back or reply.pushed < self._pushed

    async def _push_from(
        self, number: int, entries: list[NewEntry], limits: PushLimits
    ) -> PushReply:
        return await scripts.push(
            self._producer.client.pushes,
            self._keys,
            producer=self._producer.id,
            message_id=self._message.id,
            number=number,
            entries=entries,
            limits=limits,
        )
