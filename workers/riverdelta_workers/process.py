"""One worker process: its pump and its loops. The loop of arq (`jobs`) brings it chats."""

from __future__ import annotations

import logging
from typing import Self

from redis.exceptions import RedisError

from riverdelta.broker.client import Client
from riverdelta.broker.settings import Settings
from riverdelta.core.errors import RiverdeltaError
from riverdelta_workers.filters.agents import FilterChain
from riverdelta_workers.filters.http import http_agent
from riverdelta_workers.loops.heartbeat import Heartbeat
from riverdelta_workers.loops.janitor import Janitor
from riverdelta_workers.loops.producer_timeout import ProducerTimeout
from riverdelta_workers.loops.reaper import Reaper
from riverdelta_workers.loops.turn_wait import TurnWait
from riverdelta_workers.pipeline import load_pipeline
from riverdelta_workers.pump import Pump

_log = logging.getLogger("riverdelta.worker")


class WorkerProcess:
    """
    Everything in a worker process except the loop of arq. An async context manager.

    Leaving it hands every chat over (within a second), so that other workers continue at once.
    """

    def __init__(self, settings: Settings) -> None:
        self.client = Client(settings)
        self._filters = FilterChain(
            [
                http_agent(agent, max_chunk_bytes=settings.max_chunk_bytes)
                for agent in settings.filter_agents
            ],
            max_chunk_bytes=settings.max_chunk_bytes,
            calls_per_chat=settings.filter_calls_per_chat,
            spare_calls=settings.filter_spare_calls,
        )
        self.pump = Pump(self.client, self._filters, load_pipeline(settings))
        self._heartbeat = Heartbeat(self.pump)
        self._reaper = Reaper(self.pump)
        self._janitor = Janitor(self.pump)
        self._turn_wait = TurnWait(self.pump)
        timeout_s = settings.producer_timeout_s
        self._silence = ProducerTimeout(self.pump, timeout_s) if timeout_s else None

    async def __aenter__(self) -> Self:
        """
        Connect and start.

        Raises:
            BrokerUnavailable: Redis is not reachable.
            ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
        """
        await self.client.__aenter__()
        await self.pump.start()
        await self._heartbeat.start()
        await self._reaper.start()
        await self._janitor.start()
        await self._turn_wait.start()
        if self._silence is not None:
            await self._silence.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Hand over all chats and close."""
        if self._silence is not None:
            await self._silence.shutdown()
        await self._turn_wait.shutdown()
        await self._janitor.shutdown()
        await self._reaper.shutdown()
        try:
            await self.pump.close()
            await self._heartbeat.shutdown()
        except (RiverdeltaError, RedisError) as error:
            _log.warning("worker %s could not deregister: %s", self.pump.worker_id, error)
        finally:
            await self._filters.aclose()
            await self.client.aclose()
