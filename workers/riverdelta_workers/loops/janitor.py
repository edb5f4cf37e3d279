"""Release chats that have been idle for long enough, so that their keys can expire."""

from __future__ import annotations

import logging
from typing import Final

from riverdelta.broker.loop import Loop
from riverdelta_workers.pump import Pump

_PERIOD_S: Final = 0.5

_log = logging.getLogger("riverdelta.worker")


class Janitor(Loop):
    """Releases idle chats, twice a second."""

    def __init__(self, pump: Pump) -> None:
        super().__init__(_PERIOD_S, _log)
        self._pump = pump

    async def exec(self) -> None:
        """Release the chats that are idle now."""
        await self._pump.release_idle()
