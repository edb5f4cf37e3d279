"""Check the state of every message of a producer each second."""

from __future__ import annotations

import asyncio
import logging
from typing import ClassVar

from redis.exceptions import RedisError

from riverdelta.broker.loop import Loop
from riverdelta.broker.producer.registry import Registered, Registry
from riverdelta.core.errors import RiverdeltaError

_log = logging.getLogger("riverdelta.producer")


class Caretaker(Loop):
    """
    Check the messages that are due; deregister those that need no more checks.

    A check finds stops, ends by workers, lost wakes and entries that the server lost.

    Attributes:
        every_s: Seconds between two turns.
    """

    every_s: ClassVar = 1.0

    def __init__(self, registry: Registry) -> None:
        super().__init__(self.every_s, _log)
        self._registry = registry

    async def exec(self) -> None:
        """Check every message that is due, all of them at once."""
        due = [message for message in self._registry.messages() if message.is_due()]
        await asyncio.gather(*(self._check(message) for message in due))

    async def _check(self, message: Registered) -> None:
        try:
            if await message.check():
                await self._registry.forget(message)
        except (RiverdeltaError, RedisError) as error:
            chat_id, message_id, *_ = message.opening
            _log.warning("message %s of chat %s: %s", message_id, chat_id, error)
