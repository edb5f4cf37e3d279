"""
How a lost connection shows: uvloop says RuntimeError where redis-py writes on one just reset.

Found by `make faults`: worker processes ended of it, because only RedisError and OSError were taken for
the end of a connection; and hand-overs took over a second, because a cancellation was repeated too late.
"""

import asyncio
import contextlib
import logging

import pytest
from redis.asyncio.connection import Connection

from riverdelta.broker.dispatch.arq_loop import run_until
from riverdelta.broker.redis.endpoint import Endpoint
from riverdelta.core.errors import BrokerUnavailable
from tests.support.servers import DEADLINE_S

CLOSED = "unable to perform operation on <TCPTransport closed=True>; the handler is closed"


class ResetWorker:
    """An arq worker whose Redis is reset."""

    def __init__(self) -> None:
        self.tasks: dict[str, asyncio.Task[object]] = {}
        self.closed = False

    async def async_run(self) -> None:
        raise RuntimeError(CLOSED)

    async def close(self) -> None:
        self.closed = True


async def test_arqs_loop_is_given_back_to_be_started_again() -> None:
    worker = ResetWorker()
    await run_until(worker, asyncio.Event(), logging.getLogger("test"))
    assert worker.closed


async def test_a_server_that_resets_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    async def reset(_: Connection) -> None:
        raise RuntimeError(CLOSED)

    monkeypatch.setattr(Connection, "connect", reset)
    with pytest.raises(BrokerUnavailable, match="handler is closed"):
        await Endpoint("redis://localhost:1", 1.0).connect()


class DeafWorker(ResetWorker):
    """An arq worker that takes the first cancellation for a timeout of its own, as redis-py does."""

    async def async_run(self) -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(3_600)
        await asyncio.sleep(3_600)


async def test_a_cancellation_that_was_swallowed_is_repeated() -> None:
    stop = asyncio.Event()
    running = asyncio.create_task(run_until(DeafWorker(), stop, logging.getLogger("test")))
    await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(DEADLINE_S):
        await running
