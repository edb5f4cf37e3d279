"""Workers inside the test's own process, so that a test can look into them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from arq.worker import Worker

from riverdelta import Settings
from riverdelta_workers.jobs import _close, arq_options
from riverdelta_workers.process import WorkerProcess
from riverdelta_workers.pump import Pump


@contextlib.asynccontextmanager
async def local_workers(settings: Settings, count: int = 1) -> AsyncIterator[list[Pump]]:
    """Run *count* whole workers (pump, heartbeat, reaper, arq's loop) on this loop."""
    async with contextlib.AsyncExitStack() as stack:
        pumps = []
        for _ in range(count):
            process = await stack.enter_async_context(WorkerProcess(settings))
            await stack.enter_async_context(_arq(settings, process.pump))
            pumps.append(process.pump)
        yield pumps


@contextlib.asynccontextmanager
async def _arq(settings: Settings, pump: Pump) -> AsyncIterator[None]:
    worker = Worker(handle_signals=False, ctx={"pump": pump}, **arq_options(settings))
    running = asyncio.create_task(worker.async_run())
    try:
        yield
    finally:
        running.cancel()
        await _close(worker)
        with contextlib.suppress(asyncio.CancelledError):
            await running
