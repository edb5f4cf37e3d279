"""The arq side of a worker process: the job that attaches a chat, and the loop that runs such jobs."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from typing import Any, Final

import orjson
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func

from riverdelta.broker.dispatch.arq_loop import run_until
from riverdelta.broker.dispatch.attach_jobs import ATTACH_JOB
from riverdelta.broker.dispatch.queue_pool import open_queue_pool, queue_pool
from riverdelta.broker.redis.urls import several
from riverdelta.broker.settings import Settings
from riverdelta.broker.store.keys import Keys
from riverdelta_workers.process import WorkerProcess
from riverdelta_workers.pump import Pump

_JOB_TIMEOUT_S: Final = 60
_ROOM_WAIT_S: Final = 50.0
"""How long a full process keeps arq's job slots occupied, so that arq picks no more jobs; repeated."""
MAX_JOBS: Final = 32
_POLL_S: Final = 0.02
"""Jobs start after 12 ms (median), at 0.6 % of a core when idle."""

_log = logging.getLogger("riverdelta.worker")


async def attach_chat(ctx: dict[str, Any], chat_id: str, term: int) -> None:
    """
    Attach a chat to the process that runs this job; takes milliseconds.

    While the process is full the job keeps its slot, so that arq picks no more jobs here; a reaper sees the
    chat wait, and another process gets it.
    """
    pump: Pump = ctx["pump"]
    pump.brought_at = time.monotonic()
    if await pump.room(_ROOM_WAIT_S):
        await pump.attach(chat_id, term)


async def _on_startup(ctx: dict[str, Any]) -> None:
    ctx["process"] = process = await WorkerProcess(ctx["settings"]).__aenter__()
    ctx["pump"] = process.pump


async def _on_shutdown(ctx: dict[str, Any]) -> None:
    await ctx["process"].__aexit__()


def arq_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of `arq.Worker`, the same however it is started."""
    return {
        "functions": [func(attach_chat, name=ATTACH_JOB)],
        "queue_name": Keys(settings.key_prefix).queue,
        "poll_delay": _POLL_S,
        "keep_result": 0,
        "max_jobs": MAX_JOBS,
        "job_timeout": _JOB_TIMEOUT_S,
        "max_tries": 1_000,
        "job_serializer": orjson.dumps,
        "job_deserializer": orjson.loads,
        "log_results": False,
    }


def _redis_options(settings: Settings) -> dict[str, Any]:
    """Keyword arguments of `ArqRedis` that fit `arq_options`."""
    return {
        "job_serializer": orjson.dumps,
        "job_deserializer": orjson.loads,
        "default_queue_name": Keys(settings.key_prefix).queue,
    }


def worker_settings(settings: Settings) -> type:
    """Make the class that ``arq riverdelta_workers.WorkerSettings`` runs."""
    url = settings.effective_queue_url
    redis: dict[str, Any] = (
        {"redis_settings": RedisSettings.from_dsn(url)}
        if several(url) is None
        # arq's settings support only half of what a sentinel URL may contain.
        else {"redis_pool": ArqRedis(queue_pool(settings), **_redis_options(settings))}
    )
    hooks = {
        "on_startup": _on_startup,
        "on_shutdown": _on_shutdown,
        "ctx": {"settings": settings},
        # arq skips on_shutdown, and with it the hand-over, if it has to cancel a running job.
        "job_completion_wait": 1,
    }
    return type("WorkerSettings", (), arq_options(settings) | redis | hooks)


async def run_worker(settings: Settings) -> None:
    """
    Run one worker process until SIGTERM or SIGINT.

    Raises:
        BrokerUnavailable: Redis was not reachable at the start.
        ServerTooOld: Use Redis >= 7.0 or Valkey >= 7.2.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with WorkerProcess(settings) as process:
        _log.info("worker %s is ready", process.pump.worker_id)
        await bring_chats(process.pump, stop)


async def bring_chats(pump: Pump, stop: asyncio.Event) -> None:
    """
    Run arq's loop for *pump* until *stop* is set.

    arq's loop ends when its Redis fails; it is started again, and the chats stay attached.
    """
    settings = pump.client.settings
    while not stop.is_set():
        # Our own connections: arq's leak if Redis disappears while they are opened.
        async with open_queue_pool(settings) as connections:
            worker = Worker(
                redis_pool=ArqRedis(connections, **_redis_options(settings)),
                handle_signals=False,
                ctx={"pump": pump},
                **arq_options(settings),
            )
            await run_until(worker, stop, _log)
