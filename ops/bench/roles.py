"""
What runs in a process of its own: ``python -m bench.roles worker|relay URL``.

worker: `riverdelta worker`, as it is. relay: the least that can stand between two channels.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Final

from redis.asyncio.connection import Connection

from bench.loop import run
from bench.server import pack
from riverdelta.broker.connection import Endpoint
from riverdelta.broker.settings import Settings
from riverdelta_workers.garbage import collect_less
from riverdelta_workers.jobs import run_worker

HOP_IN: Final = "bench:in"
HOP_OUT: Final = "bench:out"
_TIMEOUT_S: Final = 5.0


async def relay(url: str) -> None:
    """Publish on one channel what comes in on the other, for ever."""
    endpoint = Endpoint(url, _TIMEOUT_S)
    incoming, _ = await endpoint.connect()
    outgoing, _ = await endpoint.connect()
    await incoming.send_command("SSUBSCRIBE", HOP_IN)
    await incoming.read_response(disable_decoding=True)
    print("ready", flush=True)
    unread: deque[None] = deque()
    while True:
        _, _, payload = await incoming.read_response(disable_decoding=True)
        write(outgoing, pack(("SPUBLISH", HOP_OUT, payload)))
        unread.append(None)
        if len(unread) > 1:
            # The reply of the publish before, long since there: read without waiting for one.
            await outgoing.read_response(disable_decoding=True)
            unread.popleft()


def write(connection: Connection, packed: bytes) -> None:
    """Write straight to the transport: redis-py's public way waits for a drain."""
    writer = connection._writer  # noqa: SLF001  # see above
    if writer is None:
        raise ConnectionError(str(connection))
    writer.write(packed)


def main() -> None:
    """Play one role until killed."""
    role, url = sys.argv[1:]
    collect_less()
    if role == "relay":
        run(relay(url))
    else:
        run(run_worker(Settings(redis_url=url)))


if __name__ == "__main__":
    main()
