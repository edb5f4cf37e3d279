"""Base of every background loop: start, exec once per period, shutdown; an error does not end it."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod

from redis.exceptions import RedisError

from riverdelta.core.errors import RiverdeltaError


class Loop(ABC):
    """
    Call `exec` again and again, *period_s* apart, also after errors of Redis.

    Args:
        period_s: The pause before each turn, in seconds.
        log: Gets a warning for each turn that failed.
    """

    def __init__(self, period_s: float, log: logging.Logger) -> None:
        self._period_s = period_s
        self._log = log
        self._task: asyncio.Task[None] | None = None

    @abstractmethod
    async def exec(self) -> None:
        """Do one turn. An error of Redis is logged, and the next turn still comes."""

    async def start(self) -> None:
        """Start the loop; the first turn comes after one period."""
        self._task = asyncio.create_task(self._run(), name=f"riverdelta-{self._name}")

    async def shutdown(self) -> None:
        """Stop the loop; a turn under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait((self._task,))

    @property
    def _name(self) -> str:
        return type(self).__name__.lower()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.exec()
            except (RiverdeltaError, RedisError) as error:
                self._log.warning("%s: %s", self._name, error)
