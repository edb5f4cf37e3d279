"""Send the heartbeat of a producer process. Needs only the queue's Redis, not the chats'."""

from __future__ import annotations

import logging
from typing import Final

from riverdelta.broker.loop import Loop
from riverdelta.broker.producer.registry import Registry
from riverdelta.broker.standby import Standby
from riverdelta.broker.store import scripts

_EVERY_S: Final = 1.0
_BEATS_PER_LEASE: Final = 5
"""At least; with a lease shorter than five seconds, more than one beat per second."""

_log = logging.getLogger("riverdelta.producer")


class Heartbeat(Loop):
    """
    Raises the producer's counter, and keeps its list of messages complete.

    A thread stands in while the event loop is busy (`Standby`).
    """

    def __init__(self, registry: Registry) -> None:
        client, lease_s = registry.client, registry.client.settings.producer_lease_s
        period_s = min(_EVERY_S, lease_s / _BEATS_PER_LEASE)
        super().__init__(period_s, _log)
        self._registry = registry
        self._standby = Standby(
            client.settings, client.keys.producers, period_s=period_s, lease_s=lease_s, log=_log
        )

    async def start(self) -> None:
        """
        Register the producer, and start the loop.

        Raises:
            BrokerUnavailable: The queue's Redis did not answer.
        """
        await self._beat(first=True)
        await super().start()

    async def shutdown(self) -> None:
        """Stop the loop and its thread."""
        await super().shutdown()
        await self._standby.shutdown()

    async def exec(self) -> None:
        """Raise the counter once, and list messages again if the list is incomplete."""
        if await self._beat(first=False):
            await self._registry.reconcile()
            return
        # Declared dead: this process was frozen, and its messages were failed, as their checks will
        # find. Register again for later messages.
        _log.warning(
            "producer %s was frozen and declared dead; registering it again", self._registry.id
        )
        await self._registry.list_all()
        await self._beat(first=True)

    async def _beat(self, *, first: bool) -> bool:
        """Raise the counter; False: the producer was declared dead."""
        client = self._registry.client
        counter = await scripts.beat(
            client.queue, client.keys.producers, self._registry.id, first=first
        )
        if counter is None:
            return False
        self._standby.loop_beat(self._registry.id)
        return True
