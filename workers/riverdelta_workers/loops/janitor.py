"""Release chats that have been idle for long enough, so that their keys can expire."""

from __future__ import annotations

import logging
from typing import ClassVar

from riverdelta.broker.loop import Loop
from riverdelta_workers.pump import Pump

_log = logging.getLogger("riverdelta.worker")


class Janitor(Loop):
    """
    Releases idle chats.

    Attributes:
        every_s: Seconds between two turns.
    """

    every_s: ClassVar = 0.5

    def __init__(self, pump: Pump) -> None:
        super().__init__(self.every_s, _log)
        self._pump = pump

    async def exec(self) -> None:
        """Release the chats that are idle now."""
        await self._pump.release_idle()
