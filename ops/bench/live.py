"""
The live shape: many chats at once, 50 tokens a second each, one push per token, against a bare relay.

Producer, Redis, worker and a reader run at once. The yardstick is a bare durable relay of the same
tokens: XADD and SPUBLISH by the producer, XADD and SPUBLISH by one relay process, one connection each,
no logic.

CPU per token is what holds on any machine. Tokens per second and lateness need one that is left alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from bench import bare
from bench.cpu import cpu_ns
from bench.loop import run
from bench.playing import role
from bench.result import Row, quantile, row
from bench.roles import bare_keys, chat_name
from bench.server import BareConnection, BenchServer
from bench.tokens import RATE, due_times
from riverdelta.broker.reader.subscriber import Subscriber

CHATS: Final = (20, 100, 200, 400, 1000)
_QUICK_CHATS: Final = (20, 100)
_SETTLE_S: Final = 1.0
"""Between the first tokens and the window that is measured."""
_START_S: Final = 120.0
"""Past this without an owner of every chat, something is broken."""
_BARS: Final = {200: (1.8, 3.5), 400: (1.8, 3.5)}
"""By chats: CPU of Redis and of the worker against the yardstick's, at most."""
_REACHED: Final = {400: 0.75}
"""By chats: tokens a second against the yardstick's, at least."""

_QUIET: Final = frozenset({"info", "config|resetstat"})
"""Commands of the bench itself."""


@dataclass
class Read:
    """What the reader has got: *tokens* so far, and how late each was, in ms; *chats* have begun."""

    tokens: int = 0
    chats: set[str] = field(default_factory=set)
    late_ms: list[float] = field(default_factory=list)
    _one_more: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, chats: int) -> None:
        """Wait until so many chats have begun."""
        while len(self.chats) < chats:
            self._one_more.clear()
            await self._one_more.wait()

    def begun(self, chat: str) -> None:
        """Note that a chat can be read."""
        self.chats.add(chat)
        self._one_more.set()

    def take(self, text: bytes) -> None:
        """Note the tokens in *text*, as they arrive."""
        now = time.monotonic_ns()
        due = due_times(text)
        self.tokens += len(due)
        self.late_ms += [(now - each) / 1e6 for each in due]


class Sample(NamedTuple):
    """
    What one window gave.

    Attributes:
        tokens_per_s: Read.
        p50_ms, p99_ms: From when a token was due until it was read.
        backlog: Tokens that were sent and not yet read at the end of the window.
        redis_us, worker_us, reader_us: CPU per token read; *worker* is the relay on the other side.
        producer_us: CPU per token sent.
        calls: By command: calls per token, and µs per token as Redis measures them: wall-clock time.
            A script counts under ``evalsha`` as a whole, and each command in it once more.
    """

    tokens_per_s: float
    p50_ms: float
    p99_ms: float
    backlog: int
    redis_us: float
    worker_us: float
    producer_us: float
    reader_us: float
    calls: dict[str, tuple[float, float]]


def measure(
    server: BenchServer, *, quick: bool, chats: Sequence[int] = (), seconds: float = 0.0
) -> tuple[list[Row], list[str]]:
    """
    Measure the live shape at each size.

    Args:
        server: Where.
        quick: A short smoke run.
        chats: Sizes; none: those of the table.
        seconds: Length of a window; 0: 2 in a quick run, else 5.
    """
    seconds = seconds or (2.0 if quick else 5.0)
    repeats = 1 if quick else 3
    server.unpin()
    rows: list[Row] = []
    notes = [
        f"live: {RATE} tokens/s a chat, one push each; windows of {seconds:g} s; none pinned",
        "live: producer, and worker or relay, each in its own process, the reader in this one",
    ]
    for size in chats or (_QUICK_CHATS if quick else CHATS):
        pairs = [_pair(server, size, seconds) for _ in range(repeats)]
        rows += _rows(size, pairs)
        notes.append(_note(size, [mine for mine, _ in pairs]))
    return rows, notes


def _rows(size: int, pairs: list[tuple[Sample, Sample]]) -> list[Row]:
    redis_bar, worker_bar = _BARS.get(size, (None, None))

    def one(what: str, unit: str, name: str, **bar: float | None) -> Row:
        figures = [(getattr(mine, name), getattr(bare_, name)) for mine, bare_ in pairs]
        return row(f"live, {size} chats, {what}", "bare durable relay", unit, figures, **bar)

    return [
        one("tokens reached", "tokens/s", "tokens_per_s", at_least=_REACHED.get(size)),
        one("Redis CPU", "us/token", "redis_us", at_most=redis_bar),
        one("worker CPU", "us/token", "worker_us", at_most=worker_bar),
        one("producer CPU", "us/token", "producer_us"),
        one("reader CPU", "us/token", "reader_us"),
        one("lateness p50", "ms", "p50_ms"),
        one("lateness p99", "ms", "p99_ms"),
    ]


def _note(size: int, samples: list[Sample]) -> str:
    last = samples[-1]
    calls = ", ".join(
        f"{name} {count:.2f} ({micros:.1f} us)"
        for name, (count, micros) in sorted(last.calls.items(), key=lambda each: -each[1][1])
        if micros >= 0.05
    )
    backlogs = ", ".join(f"{sample.backlog:,}" for sample in samples)
    return (
        f"live, {size} chats: backlog at the end {backlogs}; calls per token, last window: {calls}"
    )


def _pair(server: BenchServer, chats: int, seconds: float) -> tuple[Sample, Sample]:
    return run(_ours(server, chats, seconds)), run(_bare(server, chats, seconds))


async def _ours(server: BenchServer, chats: int, seconds: float) -> Sample:
    read = Read()
    with server.connect() as connection:
        connection.reset()
        with role("worker", server.url) as (worker, _):
            async with _subscribed(server.url, chats, read):
                with role("live-producer", server.url, str(chats)) as (producer, _):
                    async with asyncio.timeout(_START_S):
                        await read.wait_for(chats)
                    return await _Side(server, connection, worker, producer, read).window(seconds)


async def _bare(server: BenchServer, chats: int, seconds: float) -> Sample:
    read = Read()
    with server.connect() as connection:
        connection.reset()
        channels = [bare_keys(number).outgoing for number in range(chats)]
        reader = await bare.subscribe(server.port, channels, lambda _, raw: read.take(raw))
        with (
            role("bare-relay", server.url, str(chats)) as (relay, _),
            role("bare-producer", server.url, str(chats)) as (producer, _),
        ):
            sample = await _Side(server, connection, relay, producer, read).window(seconds)
        reader.close()
        return sample


@contextlib.asynccontextmanager
async def _subscribed(url: str, chats: int, read: Read) -> AsyncIterator[None]:
    """Read the texts of all chats meanwhile."""

    async def follow(chat: str) -> None:
        async for event in subscriber.events(chat):
            if event.type == "chunk.delta":
                read.take(event.data["text"].encode())
            elif event.type == "message.started" or (
                event.type == "snapshot" and event.data["messages"]
            ):
                read.begun(chat)  # so it has an owner

    async with Subscriber.from_url(url) as subscriber:
        tasks = [asyncio.create_task(follow(chat_name(number))) for number in range(chats)]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


class _Side:
    """One contender while it runs."""

    def __init__(
        self,
        server: BenchServer,
        connection: BareConnection,
        worker: subprocess.Popen[bytes],
        producer: subprocess.Popen[bytes],
        read: Read,
    ) -> None:
        self._server_pid = server.pid
        self._connection = connection
        self._worker = worker
        self._producer = producer
        self._read = read

    async def window(self, seconds: float) -> Sample:
        """Let the tokens begin, and measure for *seconds*."""
        self._producer.send_signal(signal.SIGUSR2)
        await asyncio.sleep(_SETTLE_S)
        read = self._read
        read.late_ms.clear()
        self._connection.call("CONFIG", "RESETSTAT")
        sent_before, cpu_before, read_before = await self._sent(), self._cpu(), read.tokens
        started = time.perf_counter()
        await asyncio.sleep(seconds)
        wall_s = time.perf_counter() - started
        cpu, tokens, late = self._cpu(), read.tokens - read_before, [*read.late_ms]
        stats = self._connection.command_stats()
        sent = await self._sent()
        if not tokens:
            raise RuntimeError("no token was read in the whole window")
        spent = [(after - before) / 1000 for after, before in zip(cpu, cpu_before, strict=True)]
        redis_us, worker_us, producer_us, reader_us = spent
        return Sample(
            tokens_per_s=tokens / wall_s,
            p50_ms=quantile(late, 0.5),
            p99_ms=quantile(late, 0.99),
            backlog=sent - read.tokens,
            redis_us=redis_us / tokens,
            worker_us=worker_us / tokens,
            producer_us=producer_us / max(1, sent - sent_before),
            reader_us=reader_us / tokens,
            calls={
                name: (calls / tokens, micros / tokens)
                for name, (calls, micros) in stats.items()
                if name not in _QUIET
            },
        )

    def _cpu(self) -> tuple[int, int, int, int]:
        """CPU of the server, the worker, the producer and this process, in nanoseconds."""
        return (
            cpu_ns(self._server_pid),
            cpu_ns(self._worker.pid),
            cpu_ns(self._producer.pid),
            time.process_time_ns(),
        )

    async def _sent(self) -> int:
        """Ask the producer how many tokens it has sent."""
        self._producer.send_signal(signal.SIGUSR1)
        if self._producer.stdout is None:
            return 0
        return int(await asyncio.to_thread(self._producer.stdout.readline))
