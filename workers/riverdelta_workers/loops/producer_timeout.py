"""Fails the open messages of this process's chats whose producer lives and has been silent for too long."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from riverdelta.broker.loop import Loop
from riverdelta.core.lease import LeaseWatch
from riverdelta_workers.attachment import Attachment
from riverdelta_workers.fail_message import fail_message
from riverdelta_workers.pump import Pump

_LOOKS_PER_TIMEOUT: Final = 8
_PERIOD_S: Final = 30.0
"""Longest pause between two looks: the most by which a message outlives its time-out."""

_log = logging.getLogger("riverdelta.worker")


class Silence(Loop):
    """
    Reads the number of each open message's last entry, and ends a message where it stood still.

    What counts is what was pushed: heartbeats and checks say only that the producer's process lives.
    The time is this process's own, over its own successful reads, so a chat's new owner begins anew.
    The end goes through the stream like any other: what was pushed before it counts first.

    Args:
        pump: Whose chats.
        timeout_s: How long a message may be silent; over 0.
    """

    def __init__(self, pump: Pump, timeout_s: float) -> None:
        period_s = min(_PERIOD_S, timeout_s / _LOOKS_PER_TIMEOUT)
        super().__init__(period_s, _log)
        self._pump = pump
        self._detail = f"nothing was pushed for {timeout_s:g} s"
        timeout_ms = int(timeout_s * 1000)
        self._watch = LeaseWatch(timeout_ms, max_gap_ms=timeout_ms)

    async def exec(self) -> None:
        """One look."""
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
        """Number of the last entry of each open message, as ``<chat> <message>``."""
        messages = [] if attachment.hot is None else list(attachment.hot.state.messages.values())
        if not messages:
            return {}
        execute, settings = self._pump.client.chats.execute, self._pump.client.settings
        fields = [f"{message.producer}:{message.id}" for message in messages]
        backlog, numbers = await asyncio.gather(
            execute(
                "HMGET",
                attachment.keys.head,
                "pushed",
                "processed",
                "pushed_bytes",
                "processed_bytes",
            ),
            execute("HMGET", attachment.keys.producers, *fields),
        )
        pushed, processed, pushed_bytes, processed_bytes = (int(value or 0) for value in backlog)
        if (
            pushed - processed >= settings.max_backlog_chunks
            or pushed_bytes - processed_bytes >= settings.max_backlog_bytes
        ):
            return {}  # it may be waiting for room: that is our silence
        return {
            f"{attachment.chat_id} {message.id}": int(number or 0)
            for message, number in zip(messages, numbers, strict=True)
        }
