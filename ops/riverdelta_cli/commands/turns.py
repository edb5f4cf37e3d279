"""``riverdelta turns``: one process that writes replies."""

from __future__ import annotations

import asyncio
import logging
import os

from riverdelta import Settings
from riverdelta_cli.errors import DONE, require_extras
from riverdelta_cli.session import fast_loop, log_to_stderr


def turns(settings: Settings, backend: str | None) -> int:
    """
    Run until SIGTERM or SIGINT; the exit code.

    Args:
        settings: Name the servers.
        backend: Of `TurnSettings`. None: the command line does not name one.
    """
    require_extras("riverdelta turns", "gateway")
    from riverdelta_gateway.turns.settings import TurnSettings  # noqa: PLC0415  # an extra
    from riverdelta_gateway.turns.worker import run_turns  # noqa: PLC0415  # an extra

    log_to_stderr(f"%(asctime)s turns[{os.getpid()}] %(levelname)s %(message)s", logging.INFO)
    chosen = TurnSettings() if backend is None else TurnSettings(backend=backend)
    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(run_turns(settings, chosen))
    return DONE
