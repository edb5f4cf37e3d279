"""Run arq's worker loop until it loses its Redis. Does not import arq: the caller passes the worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any, Final, Protocol

from redis.exceptions import RedisError

_LOST: Final = (RedisError, OSError, RuntimeError)
"""Errors of a lost Redis. RuntimeError: uvloop, when redis-py writes to a connection just reset."""
_RESTART_S: Final = 0.5
_CANCEL_AGAIN_S: Final = 0.05
"""Long enough for arq to clean up; short, because chats are handed over only after it."""


class ArqWorker(Protocol):
    """The part of `arq.Worker` that is used here."""

    tasks: dict[str, asyncio.Task[Any]]

    async def async_run(self) -> None:
        """Run jobs until cancelled."""

    async def close(self) -> None:
        """Cancel the running jobs, and close the connections to Redis."""


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
            # redis-py checks an idle connection with a timeout of 0, and takes a cancellation at that
            # moment for its own: the loop would go on polling, and find no pool after close().
            running.cancel()
            await asyncio.wait((running,), timeout=_CANCEL_AGAIN_S)
        await asyncio.gather(running, return_exceptions=True)
        with contextlib.suppress(asyncio.CancelledError, *_LOST):
            await worker.close()
        # close() stops waiting at the first cancelled job; each job still needs our pool to requeue itself.
        await asyncio.gather(*worker.tasks.values(), return_exceptions=True)
