"""
Finds what nobody cares for any more, and sees that somebody does.

Chats of dead workers and chats that waited too long get a new attach job; messages of dead producers
get their end. Every worker process reaps, a full one too; what two of them do at once is done once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final

from riverdelta.broker.dispatch.attach_jobs import is_queued, request_owner
from riverdelta.broker.loop import Loop
from riverdelta.broker.store import scripts
from riverdelta.core.lease import LeaseWatch
from riverdelta_workers.fail_message import fail_message
from riverdelta_workers.pump import Pump

_READS_PER_LEASE: Final = 8
_GAP_LEASES: Final = 1
"""Reads this many leases apart mean that the observer was away: all leases start anew."""

_log = logging.getLogger("riverdelta.worker")


class Reaper(Loop):
    """Reads the counters of workers, producers and waiting chats, an eighth of a lease apart."""

    def __init__(self, pump: Pump) -> None:
        settings = pump.client.settings
        super().__init__(settings.lease_s / _READS_PER_LEASE, _log)
        self._pump = pump
        self._client = pump.client
        lease_ms, producer_lease_ms = (
            int(settings.lease_s * 1000),
            int(settings.producer_lease_s * 1000),
        )
        self._lease_s = settings.lease_s
        self._workers = LeaseWatch(lease_ms, _GAP_LEASES * lease_ms)
        self._waiting = LeaseWatch(lease_ms, _GAP_LEASES * lease_ms)
        self._producers = LeaseWatch(producer_lease_ms, _GAP_LEASES * lease_ms)

    async def exec(self) -> None:
        """One look at everything."""
        keys, queue = self._client.keys, self._client.queue
        workers, producers, waiting = await asyncio.gather(
            queue.execute("HGETALL", keys.workers),
            queue.execute("HGETALL", keys.producers),
            queue.execute("ZRANGE", keys.waiting, 0, -1, "WITHSCORES"),
        )
        now_ms = int(time.monotonic() * 1000)
        living = _counters(workers)
        dead = self._workers.observe(living, now_ms)
        for worker_id in dead:
            living.pop(worker_id, None)
        overdue = self._waiting.observe(_counters(waiting), now_ms)
        self._waiting.renew(overdue, now_ms)
        lost = self._producers.observe(_counters(producers), now_ms)
        # One by one, and each for itself: what cannot be read must not keep the others waiting.
        work: list[Coroutine[Any, Any, None]] = [
            *(self._bury(worker_id, counter) for worker_id, counter in dead.items()),
            *(self._remind(chat_id, attempt, living) for chat_id, attempt in overdue.items()),
            *(self._end_messages(producer_id, counter) for producer_id, counter in lost.items()),
        ]
        for error in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(error, BaseException):
                _log.warning("reaper: %s", error)

    async def _bury(self, worker_id: str, counter: int) -> None:
        """Others go on with a dead worker's chats, at once."""
        chats = await scripts.bury(
            self._client.queue, self._client.keys, worker_id=worker_id, counter=counter
        )
        if chats is None:
            return
        _log.warning("worker %s is dead; chats that need another: %d", worker_id, len(chats))
        results = await asyncio.gather(
            *(self._attach_again(chat_id) for chat_id in chats), return_exceptions=True
        )
        for error in results:
            if isinstance(error, BaseException):
                _log.warning("reaper: a chat has to wait for its lease: %s", error)

    async def _remind(self, chat_id: str, attempt: int, living: dict[str, int]) -> None:
        """A chat has waited for a lease: make another attempt, once the last one is out of the queue."""
        term = await self._ownerless_term(chat_id, living)
        if term is None:
            return
        if not await is_queued(self._client, chat_id, term=term, attempt=attempt):
            await request_owner(self._client, chat_id, term=term, attempt=attempt + 1)
        elif self._pump.has_room and self._pump.brought_at < time.monotonic() - self._lease_s:
            # arq brings nothing at all, though there is room: it can begin no job on a full server.
            await self._pump.attach(chat_id, term)
        # Else it is in line, or every worker is full, or none is there: more jobs would not help.

    async def _attach_again(self, chat_id: str) -> None:
        """Enqueue an attach job, unless the chat is gone."""
        term = await self._ownerless_term(chat_id, {})
        if term is not None:
            await request_owner(self._client, chat_id, term=term)

    async def _ownerless_term(self, chat_id: str, living: dict[str, int]) -> int | None:
        """Term of a chat that needs an owner; None: it is gone, or one of *living* really has it."""
        head = self._client.keys.chat(chat_id).head
        owner, term = await self._client.chats.execute("HMGET", head, "owner", "term")
        if term is None or (owner and await self._has(owner.decode(), chat_id, living)):
            await self._client.queue.execute("ZREM", self._client.keys.waiting, chat_id)
            return None
        return int(term)

    async def _has(self, worker_id: str, chat_id: str, living: dict[str, int]) -> bool:
        """Whether a worker lives and knows that it has the chat (a claim's reply may have been lost)."""
        listed = self._client.keys.worker_chats(worker_id)
        return worker_id in living and bool(
            await self._client.queue.execute("SISMEMBER", listed, chat_id)
        )

    async def _end_messages(self, producer_id: str, counter: int) -> None:
        """Fail what a dead producer left open, then strike it off."""
        members = await self._client.queue.execute(
            "SMEMBERS", self._client.keys.producer_messages(producer_id)
        )
        results = await asyncio.gather(
            *(self._fail(member.decode(), producer_id) for member in members),
            return_exceptions=True,
        )
        failures = [error for error in results if isinstance(error, BaseException)]
        for error in failures:
            _log.warning("reaper: a message of producer %s is open still: %s", producer_id, error)
        if failures:
            return
        if await scripts.strike(
            self._client.queue, self._client.keys, producer_id=producer_id, counter=counter
        ):
            _log.warning("producer %s is dead; messages it had open: %d", producer_id, len(members))

    async def _fail(self, member: str, producer_id: str) -> None:
        chat_id, _, message_id = member.partition(" ")
        keys = self._client.keys.chat(chat_id)
        # Listed before it was opened: the id may be another producer's message.
        opened_by = await self._client.chats.execute("HGET", keys.message(message_id), "producer")
        if opened_by is None or opened_by.decode() != producer_id:
            return
        detail = "the process that produced the reply died"
        await fail_message(self._client, chat_id, message_id, code="producer_lost", detail=detail)


def _counters(flat: list[bytes]) -> dict[str, int]:
    return {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}
