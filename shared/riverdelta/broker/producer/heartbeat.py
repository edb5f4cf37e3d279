"""Shows that a producer process lives. Needs the queue's Redis only, whatever the chats' Redis does."""

from __future__ import annotations

import logging
from typing import Final

from riverdelta.broker.loop import Loop
from riverdelta.broker.producer.registry import Registry
from riverdelta.broker.store import scripts

_EVERY_S: Final = 1.0
_BEATS_PER_LEASE: Final = 5
"""At least; a lease shorter than five seconds has more than one beat a second."""

_log = logging.getLogger("riverdelta.producer")


class Heartbeat(Loop):
    """Raises the producer's counter, and keeps its list of messages complete."""

    def __init__(self, registry: Registry) -> None:
        lease_s = registry.client.settings.producer_lease_s
        super().__init__(min(_EVERY_S, lease_s / _BEATS_PER_LEASE), _log)
        self._registry = registry

    async def start(self) -> None:
        """
        List the producer, and begin to beat.

        Raises:
            BrokerUnavailable: The queue's Redis did not answer.
        """
        await self._beat(first=True)
        await super().start()

    async def exec(self) -> None:
        """Beat once."""
        if await self._beat(first=False):
            await self._registry.reconcile()
            return
        # Declared dead: this process stood still, and its messages were failed; the checks find that
        # out. List it again for the messages to come.
        _log.warning("producer %s stood still and was declared dead", self._registry.id)
        await self._registry.enlist_all()
        await self._beat(first=True)

    async def _beat(self, *, first: bool) -> bool:
        """Raise the counter; False: the producer was declared dead."""
        client = self._registry.client
        counter = await scripts.beat(
            client.queue, client.keys.producers, self._registry.id, first=first
        )
        return counter is not None
