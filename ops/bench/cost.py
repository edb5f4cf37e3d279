"""What one delta costs, whether 1 KB or 1 MB of text came before it; and the scripts' CPU in Redis."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import time
from typing import Final, NamedTuple

from bench.loop import run
from bench.result import Row, row
from bench.server import BareConnection, BenchServer, pack
from riverdelta.broker.client import Client
from riverdelta.broker.producer.message import Message
from riverdelta.broker.producer.producer import Producer
from riverdelta.broker.settings import Settings
from riverdelta_workers.pump import Pump

_SMALL: Final = 1024
_LARGE: Final = 1024 * 1024
_DELTA: Final = " delta"
_PIECE: Final = 1024
"""The text before the deltas comes in pieces of this size, a commit each."""
_CHAT: Final = "bench-cost"
_PIPELINED: Final = 16
_HOUSEKEEPING: Final = 10
"""Scripts that the producer may run meanwhile: its heartbeat and checks, each second."""


class Cost(NamedTuple):
    """
    What one delta costs, in µs of CPU.

    Attributes:
        worker: Of the worker's process.
        redis: Of the server, for the worker's read and commit.
        commit: Of *redis*, the script.
        push: Of the server, for the push of one chunk.
    """

    worker: float
    redis: float
    commit: float
    push: float


def measure(server: BenchServer, *, quick: bool) -> tuple[list[Row], list[str]]:
    """Measure what deltas cost."""
    deltas, repeats = (100, 2) if quick else (1000, 7)
    pairs, adds = [], []
    with server.connect() as connection:
        run(_cost(server, connection, _SMALL, deltas))  # warms up
        for _ in range(repeats):
            large = run(_cost(server, connection, _LARGE, deltas))
            pairs.append((large, run(_cost(server, connection, _SMALL, deltas))))
            adds.append(_xadd_us(connection, deltas))
    same = "the same at 1 KB"
    bare = "bare XADD of the same"
    workers = [(large.worker, small.worker) for large, small in pairs]
    redis = [(large.redis, small.redis) for large, small in pairs]
    pushes = [(small.push, add) for (_, small), add in zip(pairs, adds, strict=True)]
    commits = [(small.commit, add) for (_, small), add in zip(pairs, adds, strict=True)]
    rows = [
        row("a delta at 1 MB, worker CPU", same, "us", workers, at_most=1.2),
        row("a delta at 1 MB, Redis CPU", same, "us", redis, at_most=1.2),
        row("push script, Redis CPU", bare, "us/call", pushes),
        row("commit script of one delta, Redis CPU", bare, "us/call", commits),
    ]
    return rows, [
        f"delta: one a commit (batch_chunks=1), Redis CPU: its XREAD and commit; {server.placement}",
        f"ceiling of this server: {_ceiling(server, connection_count=50, quick=quick)}",
    ]


async def _cost(server: BenchServer, connection: BareConnection, size: int, deltas: int) -> Cost:
    """Put *deltas* deltas behind *size* characters of text; their cost."""
    connection.reset()
    settings = Settings(redis_url=server.url, batch_chunks=1)
    async with (
        Producer(settings) as producer,
        Client(settings) as client,
        producer.message(_CHAT, source="text") as message,
    ):
        pump = Pump(client)
        await pump.start()
        await pump.attach(_CHAT, 0)
        await message.push_many("x" * _PIECE for _ in range(size // _PIECE))
        await _settled(pump, connection)
        push_us = await _push_held_back(pump, message, connection, deltas)
        connection.call("CONFIG", "RESETSTAT")
        before = time.process_time_ns()
        pump._doubt([client.keys.chat(_CHAT).wake])  # noqa: SLF001  # as after a reconnect: read everything
        await _drained(pump)
        worker_us = (time.process_time_ns() - before) / 1000 / deltas
        stats = connection.command_stats()
        commits, commit_us = stats["evalsha"]
        _, read_us = stats["xread"]
        if not deltas <= commits <= deltas + _HOUSEKEEPING:
            message_text = f"{commits} commits for {deltas} deltas: this measured something else"
            raise RuntimeError(message_text)
        await pump._pubsub.aclose()  # noqa: SLF001  # pump.close would hand over
    return Cost(worker_us, (commit_us + read_us) / deltas, commit_us / commits, push_us)


async def _push_held_back(
    pump: Pump, message: Message, connection: BareConnection, deltas: int
) -> float:
    """Push while the pump may not take anything up; µs of Redis' CPU for each."""
    pump._closing = True  # noqa: SLF001  # the one thing that keeps wakes from starting a round
    connection.call("CONFIG", "RESETSTAT")
    for _ in range(deltas):
        await message.push(_DELTA)
    calls, micros = connection.command_stats()["evalsha"]
    pump._closing = False  # noqa: SLF001
    return micros / calls


async def _drained(pump: Pump) -> None:
    attachments = pump._chats.values()  # noqa: SLF001  # asking Redis would be work of its own
    while tasks := [entry.task for entry in attachments if entry.task is not None]:
        await asyncio.wait(tasks)


async def _settled(pump: Pump, connection: BareConnection) -> None:
    """Wait until everything pushed was committed."""
    head = pump.client.keys.chat(_CHAT).head
    while True:
        pushed, processed = connection.call("HMGET", head, "pushed", "processed")
        if pushed == processed:
            break
        await asyncio.sleep(0.001)
    await _drained(pump)


def _xadd_us(connection: BareConnection, count: int) -> float:
    """µs of Redis' CPU for storing a chunk by a bare XADD."""
    connection.reset()
    fields = ("message", "m-0123456789abcdef", "type", "chunk", "at", 12, "data", _DELTA)
    connection.pipeline([pack(("XADD", "bench", "*", *fields))] * count)
    calls, micros = connection.command_stats()["xadd"]
    return micros / calls


def _ceiling(server: BenchServer, *, connection_count: int, quick: bool) -> str:
    """How many PINGs a second this server answers at most."""
    tool = shutil.which("redis-benchmark") or shutil.which("valkey-benchmark")
    if tool is None:
        with server.connect() as connection:
            return f"PING {_ping_rate(connection):,.0f}/s (one Python connection; no redis-benchmark here)"
    figures = []
    for pipelined in (1, _PIPELINED):
        count = 20_000 if quick else 100_000 * (1 if pipelined == 1 else 5)
        output = subprocess.run(
            [
                *(tool, "-q", "-t", "ping_mbulk", "-p", str(server.port), "-n", str(count)),
                *("-c", str(connection_count), "-P", str(pipelined)),
            ],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        rates = re.findall(r"([\d.]+) requests per second", output)
        figures.append(f"{float(rates[-1]):,.0f}/s with {pipelined} in a pipeline")
    return f"PING {', '.join(figures)} ({tool}, {connection_count} connections)"


def _ping_rate(connection: BareConnection) -> float:
    count = 100 * _PIPELINED
    packed = [pack(("PING",))] * _PIPELINED
    started = time.perf_counter()
    for _ in range(count // _PIPELINED):
        connection.pipeline(packed)
    return count / (time.perf_counter() - started)
