"""From push to reader, against a bare relay with as many hops: publish, republish, receive."""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import subprocess
import time
from collections.abc import Awaitable, Callable
from typing import Self

from redis.asyncio.connection import Connection

from bench.load import openai_reply
from bench.loop import run
from bench.playing import role
from bench.result import Row, quantile, row
from bench.roles import HOP_IN, HOP_OUT, write
from bench.server import BenchServer, pack
from riverdelta.broker.producer.message import Message
from riverdelta.broker.producer.producer import Producer
from riverdelta.broker.reader.subscriber import Subscriber
from riverdelta.broker.redis.executor import Endpoint

_PAUSE_S = (0.001, 0.003)
_TIMEOUT_S = 5.0

Send = Callable[[bytes], Awaitable[None]]
Receive = Callable[[], Awaitable[None]]


def measure(server: BenchServer, *, quick: bool) -> tuple[list[Row], list[str]]:
    """Measure the latency rows."""
    blocks, each = (2, 50) if quick else (9, 400)
    server.unpin()
    with role("worker", server.url) as (worker, _), role("relay", server.url) as (relay, _):
        pairs = run(_blocks(server.url, worker, relay, blocks, each))
    rows = [
        row(
            f"push to reader, {name}",
            "bare two-hop relay",
            "us",
            [(quantile(ours, q), quantile(rival, q)) for ours, rival in pairs],
            at_most=at_most,
        )
        for name, q, at_most in (("p50", 0.5, 1.5), ("p99", 0.99, 3.0))
    ]
    return rows, [
        "latency: producer and reader in this process, worker and relay each in its own, none pinned",
        f"latency: {blocks} blocks of {each} chunks, one at a time; only the measured contender runs",
    ]


async def _blocks(
    url: str,
    worker: subprocess.Popen[bytes],
    relay: subprocess.Popen[bytes],
    blocks: int,
    each: int,
) -> list[tuple[list[float], list[float]]]:
    """Measure in turns; µs of every chunk, ours and the rival's, a pair a block."""
    chunks = openai_reply(each, 0)[1:-1]
    results = []
    relay.send_signal(signal.SIGSTOP)
    async with _Riverdelta(url) as ours, _Relay(url) as rival:
        await _timed(ours.send, ours.receive, chunks)  # warms up
        for block in range(blocks + 1):
            mine = await _timed(ours.send, ours.receive, chunks)
            worker.send_signal(signal.SIGSTOP)
            relay.send_signal(signal.SIGCONT)
            theirs = await _timed(rival.send, rival.receive, chunks)
            relay.send_signal(signal.SIGSTOP)
            worker.send_signal(signal.SIGCONT)
            await asyncio.sleep(0.05)
            if block:  # the first one warms up
                results.append((mine, theirs))
    return results


async def _timed(send: Send, receive: Receive, chunks: list[bytes]) -> list[float]:
    """µs from before *send* until *receive* has it, one chunk at a time."""
    micros = []
    for chunk in chunks:
        await asyncio.sleep(random.uniform(*_PAUSE_S))
        received = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        started = time.perf_counter_ns()
        sent = asyncio.ensure_future(send(chunk))
        await received
        micros.append((time.perf_counter_ns() - started) / 1000)
        await sent
    return micros


class _Riverdelta:
    """A message of a chat, and a reader of it."""

    def __init__(self, url: str) -> None:
        self._producer = Producer.from_url(url)
        self._subscriber = Subscriber.from_url(url)
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._stack.enter_async_context(self._producer)
        await self._stack.enter_async_context(self._subscriber)
        message = self._producer.message("bench-latency", source="openai-chat")
        self._message: Message = await self._stack.enter_async_context(message)
        self._events = self._subscriber.events("bench-latency")
        await anext(self._events)
        await self._message.push(openai_reply(1, 0)[1])
        while (await anext(self._events)).type != "chunk.delta":
            pass
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._events.aclose()
        await self._stack.aclose()

    async def send(self, chunk: bytes) -> None:
        await self._message.push(chunk)

    async def receive(self) -> None:
        await anext(self._events)


class _Relay:
    """One publishing and one subscribed connection, with nothing in between."""

    def __init__(self, url: str) -> None:
        self._endpoint = Endpoint(url, _TIMEOUT_S)

    async def __aenter__(self) -> Self:
        self._out: Connection = (await self._endpoint.connect())[0]
        self._in: Connection = (await self._endpoint.connect())[0]
        await self._in.send_command("SSUBSCRIBE", HOP_OUT)
        await self._in.read_response(disable_decoding=True)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._out.disconnect(nowait=True)
        await self._in.disconnect(nowait=True)

    async def send(self, chunk: bytes) -> None:
        write(self._out, pack(("SPUBLISH", HOP_IN, chunk)))
        await self._out.read_response(disable_decoding=True)

    async def receive(self) -> None:
        await self._in.read_response(disable_decoding=True)
