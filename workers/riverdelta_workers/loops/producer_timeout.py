"""Fail open messages whose producer is alive but has pushed nothing for too long."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from riverdelta.broker.loop import Loop
from riverdelta.broker.store.head import read_backlog
from riverdelta.broker.store.messages import read_last_message_seqs
from riverdelta.core.lease import LeaseWatch
from riverdelta_workers.attachment import Attachment
from riverdelta_workers.fail_message import fail_message
from riverdelta_workers.pump import Pump

_TURNS_PER_TIMEOUT: Final = 8
_PERIOD_S: Final = 30.0
"""Longest pause between two turns: the most by which a message may exceed its timeout."""

_log = logging.getLogger("riverdelta.worker")


class ProducerTimeout(Loop):
    """
    Watches the number of each open message's last entry, and fails messages where it stood still.

    Only pushes count: heartbeats and checks merely show that the producer's process is alive. The time is
    measured over this process's own successful reads, so it starts over for a new owner. The failure goes
    through the stream: entries that were pushed before it count first.

    Args:
        pump: Owns the chats.
        timeout_s: How long a message may be silent; over 0.
    """

    def __init__(self, pump: Pump, timeout_s: float) -> None:
        period_s = min(_PERIOD_S, timeout_s / _TURNS_PER_TIMEOUT)
        super().__init__(period_s, _log)
        self._pump = pump
        self._detail = f"nothing was pushed for {timeout_s:g} s"
        timeout_ms = int(timeout_s * 1000)
        self._watch = LeaseWatch(timeout_ms, max_gap_ms=timeout_ms)

    async def exec(self) -> None:
        """Check every open message once."""
        looks = await asyncio.gather(
            *(self._last_numbers(attachment) for attachment in self._pump.attachments)
        )
        numbers = {member: number for look in looks for member, number in look.items()}
        silent = self._watch.observe(numbers, int(time.monotonic() * 1000))
        for member in silent:
            chat_id, _, message_id = member.partition(" ")
            _log.warning("message %s of chat %s: %s", message_id, chat_id, self._detail)
            await fail_message(
                self._pump.client,
                chat_id,
                message_id,
                code="producer_timeout",
                detail=self._detail,
            )

    async def _last_numbers(self, attachment: Attachment) -> dict[str, int]:
        """Read the number of the last entry of each open message, as ``<chat> <message>``."""
        hot = attachment.hot
        messages = (
            [] if hot is None else [one for one in hot.state.messages.values() if one.producer]
        )
        if not messages:
            return {}
        chats, settings = self._pump.client.chats, self._pump.client.settings
        opened = [(message.producer, message.id) for message in messages]
        backlog, numbers = await asyncio.gather(
            read_backlog(chats, attachment.keys),
            read_last_message_seqs(chats, attachment.keys, opened),
        )
        if (
            backlog.entries >= settings.max_backlog_chunks
            or backlog.bytes >= settings.max_backlog_bytes
        ):
            return {}  # the backlog is full: the producer may be waiting for us
        return {
            f"{attachment.chat_id} {message.id}": number
            for message, number in zip(messages, numbers, strict=True)
        }
