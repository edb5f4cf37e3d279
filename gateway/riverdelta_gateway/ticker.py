"""The loop that lets every socket compare its deadlines with the clock: stalls and expired tokens."""

from __future__ import annotations

import logging
from typing import Final

from riverdelta.broker.loop import Loop
from riverdelta_gateway.sockets import Sockets

_PERIOD_S: Final = 1.0

_log = logging.getLogger("riverdelta.gateway")


class Ticker(Loop):
    """
    Ticks each socket once a second.

    Args:
        sockets: The sockets of this process.
    """

    def __init__(self, sockets: Sockets) -> None:
        super().__init__(_PERIOD_S, _log)
        self._sockets = sockets

    async def exec(self) -> None:
        """Tick every socket."""
        for socket in self._sockets.all():
            socket.tick()
