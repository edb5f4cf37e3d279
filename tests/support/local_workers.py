"""Workers inside the test's own process, so that a test can look into them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from riverdelta import Settings
from riverdelta_workers.jobs import bring_chats
from riverdelta_workers.process import WorkerProcess
from riverdelta_workers.pump import Pump


@contextlib.asynccontextmanager
async def local_workers(settings: Settings, count: int = 1) -> AsyncIterator[list[Pump]]:
    """Run *count* whole workers (pump, heartbeat, reaper, arq's loop) on this loop."""
    stop = asyncio.Event()
    async with contextlib.AsyncExitStack() as stack:
        pumps = []
        loops = []
        for _ in range(count):
            process = await stack.enter_async_context(WorkerProcess(settings))
            pumps.append(process.pump)
            loops.append(asyncio.create_task(bring_chats(process.pump, stop)))
        try:
            yield pumps
        finally:
            stop.set()
            await asyncio.gather(*loops)
