"""Send this process's heartbeat, and keep its list of chats correct. Uses only the queue's Redis."""

from __future__ import annotations

import logging
from typing import Final

from riverdelta.broker.loop import Loop
from riverdelta.broker.standby import Standby
from riverdelta.broker.store import members, scripts
from riverdelta_workers.pump import Pump

_BEATS_PER_LEASE: Final = 4

_log = logging.getLogger("riverdelta.worker")


class Heartbeat(Loop):
    """
    Raises this worker's counter four times per lease; reapers read it.

    A thread stands in while the event loop is busy (`Standby`).
    """

    def __init__(self, pump: Pump) -> None:
        client, lease_s = pump.client, pump.client.settings.lease_s
        period_s = lease_s / _BEATS_PER_LEASE
        super().__init__(period_s, _log)
        self._pump = pump
        self._client = client
        self._standby = Standby(
            client.settings, client.keys.workers, period_s=period_s, lease_s=lease_s, log=_log
        )
        self._surplus: set[str] = set()

    async def start(self) -> None:
        """Register this worker, and start the heartbeat."""
        await self._beat(first=True)
        await super().start()

    async def shutdown(self) -> None:
        """Stop the heartbeat and deregister this worker; chats that it still has go on the waiting list."""
        await super().shutdown()
        await self._standby.shutdown()
        keys, queue, worker_id = self._client.keys, self._client.queue, self._pump.worker_id
        # One more beat tells the counter, which the thread may have raised.
        counter = await scripts.beat(queue, keys.workers, worker_id, first=False)
        if counter is not None:
            await scripts.remove_worker(queue, keys, worker_id=worker_id, counter=counter)

    async def exec(self) -> None:
        """Send one heartbeat, and reconcile the list of chats."""
        await self._beat(first=False)
        await self._pump.find_owners()
        await self._reconcile()

    async def _beat(self, *, first: bool) -> None:
        keys, queue = self._client.keys, self._client.queue
        counter = await scripts.beat(queue, keys.workers, self._pump.worker_id, first=first)
        if counter is None:
            await self._pump.restart_with_new_id()
            await scripts.beat(queue, keys.workers, self._pump.worker_id, first=True)
        self._standby.loop_beat(self._pump.worker_id)

    async def _reconcile(self) -> None:
        """Make the list of chats in Redis match memory; they differ only after a fault."""
        queue, keys = self._client.queue, self._client.keys
        worker_id = self._pump.worker_id
        if await members.count_chats(queue, keys, worker_id) == len(self._pump.chats):
            self._surplus = set()
            return
        listed = await members.list_chats(queue, keys, worker_id)
        owned = set(self._pump.chats)
        if missing := owned - listed:
            await scripts.add_chats(queue, keys.worker_chats(worker_id), *missing)
        # Seen twice in a row, so it is not just being released. It may be claimed in our name (the
        # reply to a claim was lost): a reaper finds out which worker owns it.
        for chat in self._surplus & (listed - owned):
            await members.add_waiting(queue, keys, chat)
            await members.remove_chat(queue, keys, worker_id, chat)
        self._surplus = listed - owned
