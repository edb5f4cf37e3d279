"""Runs arq's loop as long as it can run: it ends with its Redis. Needs no arq: it is handed the worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

_LOST: Final = (RedisError, OSError, RuntimeError)
"""How a lost Redis shows; the last is uvloop's, where redis-py writes on a connection just reset."""
_RESTART_S: Final = 0.5
_CANCEL_AGAIN_S: Final = 0.05
"""Not at once: it may be tidying up, and must be left to. But soon: chats are handed over after it."""


class ArqWorker(Protocol):
    """What is used of `arq.Worker`."""

    tasks: dict[str, asyncio.Task[Any]]

    async def async_run(self) -> None:
        """Pick jobs, for ever."""

    async def close(self) -> None:
        """Cancel what runs, and let go of Redis."""


async def run_until(worker: ArqWorker, stop: asyncio.Event, log: logging.Logger) -> None:
    """Run arq's loop until it loses its Redis or *stop* is set; the caller may then start another."""
    running = asyncio.create_task(worker.async_run(), name="riverdelta-arq")
    stopping = asyncio.create_task(stop.wait(), name="riverdelta-stop")
    await asyncio.wait((running, stopping), return_when=asyncio.FIRST_COMPLETED)
    try:
        if running.done():
            running.result()
    except _LOST as error:
        log.warning("arq lost its Redis, starting it again: %s", error)
        await asyncio.wait((stopping,), timeout=_RESTART_S)
    finally:
        stopping.cancel()
        while not running.done():
            # redis-py looks into an idle connection with a timeout of 0, and takes a cancellation that
            # comes just then for its own: the loop would poll on, and find no pool after close().
            running.cancel()
            await asyncio.wait((running,), timeout=_CANCEL_AGAIN_S)
        await asyncio.gather(running, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError, *_LOST):
            await worker.close()
        # close() stops waiting at the first job that was cancelled; each puts itself back with our pool.
        await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
