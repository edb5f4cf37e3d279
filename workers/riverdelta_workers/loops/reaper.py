"""
Reassign chats of dead workers and fail messages of dead producers.

Chats that waited too long for an owner get a new attach job, too. Every worker process reaps, also a full
one; the effects are idempotent, so several may act at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine
from typing import Any, Final

from riverdelta.broker.dispatch.attach_jobs import is_queued, request_owner
from riverdelta.broker.loop import Loop
from riverdelta.broker.store import members, scripts
from riverdelta.broker.store.head import read_ownership
from riverdelta.broker.store.messages import read_producer
from riverdelta.core.lease import LeaseWatch
from riverdelta_workers.fail_message import fail_message
from riverdelta_workers.pump import Pump

_READS_PER_LEASE: Final = 8
_GAP_LEASES: Final = 1
"""Reads further apart than this mean that the observer was away: all leases start over."""

_log = logging.getLogger("riverdelta.worker")


class Reaper(Loop):
    """Reads the counters of workers, producers and waiting chats, eight times per lease."""

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
        """Check all counters once."""
        keys, queue = self._client.keys, self._client.queue
        workers, producers, waiting = await asyncio.gather(
            members.read_workers(queue, keys),
            members.read_producers(queue, keys),
            members.read_waiting(queue, keys),
        )
        now_ms = int(time.monotonic() * 1000)
        dead = self._workers.observe(workers, now_ms)
        living = {name: beats for name, beats in workers.items() if name not in dead}
        overdue = self._waiting.observe(waiting, now_ms)
        self._waiting.renew(overdue, now_ms)
        lost = self._producers.observe(producers, now_ms)
        # Independent of each other: a failed read must not delay the others.
        work: list[Coroutine[Any, Any, None]] = [
            *(self._reassign_chats(worker_id, counter) for worker_id, counter in dead.items()),
            *(self._retry_attach(chat_id, attempt, living) for chat_id, attempt in overdue.items()),
            *(self._end_messages(producer_id, counter) for producer_id, counter in lost.items()),
        ]
        for error in await asyncio.gather(*work, return_exceptions=True):
            if isinstance(error, BaseException):
                _log.warning("reaper: %s", error)

    async def _reassign_chats(self, worker_id: str, counter: int) -> None:
        """Ask for new owners of a dead worker's chats, at once."""
        chats = await scripts.remove_worker(
            self._client.queue, self._client.keys, worker_id=worker_id, counter=counter
        )
        if chats is None:
            return
        _log.warning("worker %s is dead; chats to reassign: %d", worker_id, len(chats))
        results = await asyncio.gather(
            *(self._attach_again(chat_id) for chat_id in chats), return_exceptions=True
        )
        for error in results:
            if isinstance(error, BaseException):
                _log.warning("reaper: a chat has to wait for its lease: %s", error)

    async def _retry_attach(self, chat_id: str, attempt: int, living: dict[str, int]) -> None:
        """Enqueue another attach job for a chat that waited for a lease, once the last job is gone."""
        term = await self._ownerless_term(chat_id, living)
        if term is None:
            return
        if not await is_queued(self._client, chat_id, term=term, attempt=attempt):
            await request_owner(self._client, chat_id, term=term, attempt=attempt + 1)
        elif self._pump.has_room and self._pump.brought_at < time.monotonic() - self._lease_s:
            # arq starts no job although there is room: it cannot on a Redis that is out of memory.
            await self._pump.attach(chat_id, term)
        # Otherwise the job is queued, all workers are full, or there is none: more jobs do not help.

    async def _attach_again(self, chat_id: str) -> None:
        """Enqueue an attach job, unless the chat is gone."""
        term = await self._ownerless_term(chat_id, {})
        if term is not None:
            await request_owner(self._client, chat_id, term=term)

    async def _ownerless_term(self, chat_id: str, living: dict[str, int]) -> int | None:
        """Return the term of a chat without an owner; None: it is gone, or one of *living* owns it."""
        keys = self._client.keys
        found = await read_ownership(self._client.chats, keys.chat(chat_id))
        if found is None or (found.owner and await self._owns(found.owner, chat_id, living)):
            await members.remove_waiting(self._client.queue, keys, chat_id)
            return None
        return found.term

    async def _owns(self, worker_id: str, chat_id: str, living: dict[str, int]) -> bool:
        """Whether a worker is alive and lists the chat as its own (the reply to its claim may be lost)."""
        return worker_id in living and await members.has_chat(
            self._client.queue, self._client.keys, worker_id, chat_id
        )

    async def _end_messages(self, producer_id: str, counter: int) -> None:
        """Fail the open messages of a dead producer, then deregister it."""
        queue, keys = self._client.queue, self._client.keys
        listed = await members.list_messages(queue, keys, producer_id)
        results = await asyncio.gather(
            *(self._fail(member, producer_id) for member in listed),
            return_exceptions=True,
        )
        failures = [error for error in results if isinstance(error, BaseException)]
        for error in failures:
            _log.warning(
                "reaper: a message of producer %s could not be failed, will retry: %s",
                producer_id,
                error,
            )
        if failures:
            return
        if await scripts.remove_producer(
            self._client.queue, self._client.keys, producer_id=producer_id, counter=counter
        ):
            _log.warning("producer %s is dead; open messages failed: %d", producer_id, len(listed))

    async def _fail(self, member: str, producer_id: str) -> None:
        chat_id, _, message_id = member.partition(" ")
        keys = self._client.keys.chat(chat_id)
        # Registered before it was opened: the id may belong to another producer's message.
        if await read_producer(self._client.chats, keys, message_id) != producer_id:
            return
        detail = "the process that produced the reply died"
        await fail_message(self._client, chat_id, message_id, code="producer_lost", detail=detail)
