"""``riverdelta worker``: one worker process."""

from __future__ import annotations

import asyncio
import logging
import os

from riverdelta import Settings
from riverdelta_cli.errors import DONE, require_extras
from riverdelta_cli.processes.garbage import collect_less
from riverdelta_cli.session import fast_loop, log_to_stderr


def worker(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT, under uvloop where it is installed; the exit code."""
    require_extras("riverdelta worker", "workers")
    from riverdelta_workers import run_worker  # noqa: PLC0415  # an extra

    log_to_stderr(f"%(asctime)s worker[{os.getpid()}] %(levelname)s %(message)s", logging.INFO)
    collect_less()

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(run_worker(settings))
    return DONE
