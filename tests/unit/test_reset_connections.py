"""
A connection that is reset while redis-py writes on it: uvloop calls that a RuntimeError.

Found by `make faults`: worker processes ended of it, because only RedisError and OSError were taken for
the end of a connection.
"""

import asyncio
import logging

import pytest
from redis.asyncio.connection import Connection

from riverdelta.broker.arq_loop import run_until
from riverdelta.broker.endpoint import Endpoint
from riverdelta.core.errors import BrokerUnavailable

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
