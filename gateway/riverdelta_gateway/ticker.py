"""The loop that lets every socket compare its deadlines with the clock: stalls and expired tokens."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from riverdelta_gateway.sockets import Sockets

_PERIOD_S: Final = 1.0


class Ticker:
    """
    Ticks each socket once a second.

    Args:
        sockets: The sockets of this process.
    """

    def __init__(self, sockets: Sockets) -> None:
        self._sockets = sockets
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="riverdelta-ticker")

    async def shutdown(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def exec(self) -> None:
        """Tick every socket."""
        for socket in self._sockets.all():
            socket.tick()

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            self.exec()
