"""``riverdelta gateway``: one gateway process."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

from riverdelta import Settings
from riverdelta_cli.errors import DONE, require_extras
from riverdelta_cli.session import Interrupt, fast_loop, log_to_stderr

_log = logging.getLogger("riverdelta.gateway")


def gateway(settings: Settings, **options: Any) -> int:
    """
    Run until a signal; the exit code.

    Args:
        settings: Name the servers.
        options: Of `GatewaySettings`, those that the command line names; None: it does not.
    """
    require_extras("riverdelta gateway", "gateway")
    from riverdelta_gateway.settings import GatewaySettings  # noqa: PLC0415  # an extra

    log_to_stderr(f"%(asctime)s gateway[{os.getpid()}] %(levelname)s %(message)s", logging.INFO)
    given = {name: value for name, value in options.items() if value is not None}
    chosen = GatewaySettings(**given)

    async def serve() -> None:
        from riverdelta_gateway.serve import gateway_server  # noqa: PLC0415  # an extra

        interrupt = Interrupt()
        async with gateway_server(settings, chosen) as running:
            _log.info("listening at %s%s", running.url, " without tokens" if chosen.dev else "")
            await interrupt.asked.wait()
            _log.info(
                "shutting down: asking %d sockets to reconnect", len(running.services.sockets)
            )

    with asyncio.Runner(loop_factory=fast_loop()) as runner:
        runner.run(serve())
    return DONE
