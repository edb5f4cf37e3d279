"""arq's side of a worker process: the job that attaches a chat, and the loop that picks such jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from typing import Any, Final

import orjson
from arq.connections import ArqRedis, RedisSettings
from arq.worker import Worker, func
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

from riverdelta.broker.arq_loop import run_until
from riverdelta.broker.keys import Keys
from riverdelta.broker.queue import ATTACH_JOB
from riverdelta.broker.settings import Settings
from riverdelta_workers.process import WorkerProcess
from riverdelta_workers.pump import Pump

_JOB_TIMEOUT_S: Final = 60
_ROOM_WAIT_S: Final = 50.0
"""How long a full process holds arq's job slots, which keeps arq from picking more; then once more."""
_MAX_JOBS: Final = 32
_POLL_S: Final = 0.02
"""Pickup in 12 ms at the median, for 0.6 % of a core when idle."""

_log = logging.getLogger("riverdelta.worker")


async def attach_chat(ctx: dict[str, Any], chat_id: str, term: int) -> None:
    """
    Attach a chat to the process that picks this job; milliseconds.

    While the process is full the job stays in its slot, so that arq picks no more here; another
    process gets the chat from a reaper, which sees it wait.
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
        "redis_settings": RedisSettings.from_dsn(settings.effective_queue_url),
        "poll_delay": _POLL_S,
        "keep_result": 0,
        "max_jobs": _MAX_JOBS,
        "job_timeout": _JOB_TIMEOUT_S,
        "max_tries": 1_000,
        "job_serializer": orjson.dumps,
        "job_deserializer": orjson.loads,
        "log_results": False,
    }


def worker_settings(settings: Settings) -> type:
    """Make the class that ``arq riverdelta_workers.WorkerSettings`` runs."""
    hooks = {
        "on_startup": _on_startup,
        "on_shutdown": _on_shutdown,
        "ctx": {"settings": settings},
        # arq skips on_shutdown, and with it the hand-over, when it has to cancel a job at its end.
        "job_completion_wait": 1,
    }
    return type("WorkerSettings", (), arq_options(settings) | hooks)


async def run_worker(settings: Settings) -> None:
    """
    Run one worker process until SIGTERM or SIGINT.

    Raises:
        BrokerUnavailable: Redis was not there at the start.
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

    arq's loop ends whenever its Redis does; it is started again, and the chats stay attached.
    """
    options = arq_options(pump.client.settings)
    del options["redis_settings"]
    while not stop.is_set():
        # A pool of ours: arq's own leaves connections open when Redis goes away while it is made.
        pool = ArqRedis(
            ConnectionPool.from_url(pump.client.settings.effective_queue_url),
            job_serializer=options["job_serializer"],
            job_deserializer=options["job_deserializer"],
            default_queue_name=options["queue_name"],
        )
        worker = Worker(redis_pool=pool, handle_signals=False, ctx={"pump": pump}, **options)
        try:
            await run_until(worker, stop, _log)
        finally:
            with contextlib.suppress(RedisError, OSError):
                await pool.aclose(close_connection_pool=True)
