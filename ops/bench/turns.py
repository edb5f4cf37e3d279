"""
The pipeline of a worker that `bench.stalls` watches: as its settings say, with a watch on its event loop.

On a busy machine a chat also waits because other processes run. What the worker itself is to blame for is
the CPU time that it takes, in whatever thread, between two turns of its loop.
"""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Final

from riverdelta import Settings
from riverdelta.pipeline import Pipeline
from riverdelta_workers.pipeline import build_pipeline

FILE: Final = "RIVERDELTA_BENCH_TURNS"
"""Names the file that gets a line for each long turn: time on the monotonic clock, CPU ms of it."""

_PAUSE_S: Final = 0.002
_LONG_S: Final = 0.01

_watches: Final[set[asyncio.Task[None]]] = set()


def build(settings: Settings) -> Pipeline:
    """Make the pipeline of the settings, and start the watch on this loop."""
    _watches.add(asyncio.create_task(_watch(Path(os.environ[FILE]))))
    return build_pipeline(settings)


def longest_ms(file: Path, since: float) -> float:
    """Longest CPU time between two turns after *since* (monotonic clock), in ms; 0: none was long."""
    lines = [line.split() for line in file.read_text().splitlines()]
    return max((float(ms) for at, ms in lines if float(at) >= since), default=0.0)


async def _watch(file: Path) -> None:
    with file.open("a", buffering=1) as out:
        while True:
            began = time.process_time()
            await asyncio.sleep(_PAUSE_S)
            taken = time.process_time() - began - _PAUSE_S
            if taken > _LONG_S:
                out.write(f"{time.monotonic():.3f} {taken * 1000:.1f}\n")
