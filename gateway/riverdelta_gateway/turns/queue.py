"""The queue of turns: an arq queue, beside the one of attach jobs."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from riverdelta.broker.dispatch.queue_pool import open_queue_pool
from riverdelta.broker.settings import Settings
from riverdelta.broker.store.keys import Keys
from riverdelta.core.errors import BrokerUnavailable
from riverdelta_gateway.turn import Turn

TURN_JOB: Final = "run_turn"
"""Name of the arq function that runs a turn."""

SERIALIZERS: Final[dict[str, Any]] = {
    "job_serializer": orjson.dumps,
    "job_deserializer": orjson.loads,
}
"""Jobs are JSON: readable with redis-cli, and without pickled code."""


_CLOCKS_DIFFER: Final = timedelta(hours=1)
"""Jobs are due this long before now: arq compares that with the clock of the process that picks them. With
"now", a gateway whose clock is 5 s ahead would delay each reply by 5 s. Their order stays."""
_KEPT: Final = timedelta(days=1)
"""A job that no process picks for this long is dropped; arq's own default."""


@contextlib.asynccontextmanager
async def arq_pool(settings: Settings) -> AsyncIterator[ArqRedis]:
    """Make arq's pool of connections to the queue's Redis; each command connects as needed."""
    async with open_queue_pool(settings) as connections:
        yield ArqRedis(
            connections, default_queue_name=Keys(settings.key_prefix).turns, **SERIALIZERS
        )


class TurnQueue:
    """
    Queues turns.

    Args:
        pool: See `arq_pool`.
        settings: Have the prefix of the queue.
        now_s: Clock of this machine: Unix time in seconds.
    """

    def __init__(
        self, pool: ArqRedis, settings: Settings, *, now_s: Callable[[], float] = time.time
    ) -> None:
        self._pool = pool
        self._now_s = now_s
        self._keys = Keys(settings.key_prefix)

    async def ask(self, turn: Turn) -> None:
        """
        Queue *turn*, once, however often this is called for it.

        Raises:
            BrokerUnavailable: Redis did not answer; repeating it is safe.
        """
        job_id = self._keys.turn_job(turn.chat_id, turn.message_id)
        due = datetime.fromtimestamp(self._now_s(), UTC) - _CLOCKS_DIFFER
        try:
            await self._pool.enqueue_job(
                TURN_JOB,
                turn.to_json(),
                _job_id=job_id,
                _defer_until=due,
                _expires=_KEPT,
            )
        except (RedisError, OSError) as error:
            raise BrokerUnavailable(f"the turn could not be queued: {error}") from error
