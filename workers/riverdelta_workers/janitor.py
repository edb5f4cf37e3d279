"""Gives up the chats that have been idle for long enough, so that their keys can expire."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Final

from redis.exceptions import RedisError

from riverdelta.core.errors import RiverdeltaError
from riverdelta_workers.pump import Pump

_PERIOD_S: Final = 0.5

_log = logging.getLogger("riverdelta.worker")


class Janitor:
    """Looks for idle chats twice a second."""

    def __init__(self, pump: Pump) -> None:
        self._pump = pump
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to look."""
        self._task = asyncio.create_task(self._run(), name="riverdelta-janitor")

    async def shutdown(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def exec(self) -> None:
        """One look."""
        await self._pump.release_idle()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            try:
                await self.exec()
            except (RiverdeltaError, RedisError) as error:
                _log.warning("janitor: %s", error)
