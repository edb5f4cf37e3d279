"""What every background loop of a worker does: the same verbs, one thing a turn, no end by a fault."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod

from redis.exceptions import RedisError

from riverdelta.core.errors import RiverdeltaError

_log = logging.getLogger("riverdelta.worker")


class Loop(ABC):
    """
    Calls `exec` again and again, *period_s* apart, whatever Redis does meanwhile.

    Args:
        period_s: The pause between two turns, in seconds.
    """

    def __init__(self, period_s: float) -> None:
        self._period_s = period_s
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def exec(self) -> None:
        """One turn."""

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name=f"riverdelta-{self._name}")

    async def shutdown(self) -> None:
        """Stop; a turn under way is cut off."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    @property
    def _name(self) -> str:
        return type(self).__name__.lower()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.exec()
            except (RiverdeltaError, RedisError) as error:
                _log.warning("%s: %s", self._name, error)
