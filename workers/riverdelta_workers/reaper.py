"""
Finds what nobody cares for any more, and sees that somebody does.

Chats of dead workers and chats that waited too long get a new attach job; messages of dead producers
get their end. Every worker process reaps, a full one too; what two of them do at once is done once.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import Final

import orjson
from redis.exceptions import ResponseError

from riverdelta.broker import scripts
from riverdelta.broker.client import Client
from riverdelta.broker.queue import request_owner
from riverdelta.broker.scripts import NewEntry, PushLimits
from riverdelta.broker.state import REAPER
from riverdelta.core.errors import RiverdeltaError
from riverdelta.core.lease import LeaseWatch

_READS_PER_LEASE: Final = 8
_GAP_LEASES: Final = 1
"""Reads this many leases apart mean that the observer was away: all leases start anew."""

_log = logging.getLogger("riverdelta.worker")


class Reaper:
    """Reads the counters of workers, producers and waiting chats, an eighth of a lease apart."""

    def __init__(self, client: Client) -> None:
        settings = client.settings
        self._client = client
        self._period_s = settings.lease_s / _READS_PER_LEASE
        lease_ms, producer_lease_ms = (
            int(settings.lease_s * 1000),
            int(settings.producer_lease_s * 1000),
        )
        self._workers = LeaseWatch(lease_ms, _GAP_LEASES * lease_ms)
        self._waiting = LeaseWatch(lease_ms, _GAP_LEASES * lease_ms)
        self._producers = LeaseWatch(producer_lease_ms, _GAP_LEASES * lease_ms)
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to reap."""
        self._task = asyncio.create_task(self._run(), name="riverdelta-reaper")

    async def shutdown(self) -> None:
        """Stop."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

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
        for worker_id, counter in self._workers.observe(living, now_ms).items():
            await self._bury(worker_id, counter)
            living.pop(worker_id, None)
        overdue = self._waiting.observe(_counters(waiting), now_ms)
        for chat_id, attempt in overdue.items():
            await self._attach_again(chat_id, attempt + 1, living)
        for producer_id, counter in self._producers.observe(_counters(producers), now_ms).items():
            await self._end_messages(producer_id, counter)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await self.exec()
            except (RiverdeltaError, ResponseError) as error:
                _log.warning("reaper: %s", error)

    async def _bury(self, worker_id: str, counter: int) -> None:
        """Others go on with a dead worker's chats, at once."""
        chats = await scripts.bury(
            self._client.queue, self._client.keys, worker_id=worker_id, counter=counter
        )
        if chats is None:
            return
        _log.warning("worker %s is dead; chats that need another: %d", worker_id, len(chats))
        await asyncio.gather(*(self._attach_again(chat_id, 0, {}) for chat_id in chats))

    async def _attach_again(self, chat_id: str, attempt: int, living: dict[str, int]) -> None:
        """Enqueue another attach job, unless the chat is gone or one of *living* has it."""
        head = self._client.keys.chat(chat_id).head
        owner, term = await self._client.chats.execute("HMGET", head, "owner", "term")
        if term is None or (owner and owner.decode() in living):
            await self._client.queue.execute("ZREM", self._client.keys.waiting, chat_id)
            return
        await request_owner(self._client, chat_id, term=int(term), attempt=attempt)

    async def _end_messages(self, producer_id: str, counter: int) -> None:
        """Fail what a dead producer left open, then strike it off."""
        members = await self._client.queue.execute(
            "SMEMBERS", self._client.keys.producer_messages(producer_id)
        )
        for member in members:
            chat_id, _, message_id = member.decode().partition(" ")
            await self._fail(chat_id, message_id)
        if await scripts.strike(
            self._client.queue, self._client.keys, producer_id=producer_id, counter=counter
        ):
            _log.warning("producer %s is dead; messages it had open: %d", producer_id, len(members))

    async def _fail(self, chat_id: str, message_id: str) -> None:
        lost = {"code": "producer_lost", "detail": "the process that produced the reply died"}
        reply = await scripts.push(
            self._client.chats,
            self._client.keys.chat(chat_id),
            producer=REAPER,
            message_id=message_id,
            number=1,
            entries=[NewEntry("fail", 0, orjson.dumps(lost))],
            limits=PushLimits(0, 0),
        )
        if not reply.owner and reply.pushed > reply.processed:
            await request_owner(self._client, chat_id, term=reply.term)


def _counters(flat: list[bytes]) -> dict[str, int]:
    return {flat[i].decode(): int(flat[i + 1]) for i in range(0, len(flat), 2)}
