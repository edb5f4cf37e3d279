"""
What must not grow: the cost per byte with the length of a text, a chat's latency with what hangs beside it.

CPU time in one process, the small size against the large one in turns; and push to reader through a
worker, with and without a filter agent and an observer that hang. Run as one of run.py's measurements.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections.abc import Callable
from typing import Final

from bench.result import Row, row
from bench.server import BenchServer
from riverdelta import Event, Observer, Pipeline, Producer, Settings, Subscriber
from riverdelta.core.codecs import make_codec
from riverdelta.core.stitch import Stitcher
from riverdelta_workers.jobs import bring_chats
from riverdelta_workers.process import WorkerProcess

_SMALL: Final = 4_000
_LARGE: Final = 64_000
_LINE: Final = "".join(f"{n:05d}, " for n in range(10_000))
_STITCHED: Final[dict[str, Callable[[int], tuple[str, str]]]] = {
    "from its start": lambda size: (_LINE[:size], _LINE[:size] + "and more"),
    "from its middle": lambda size: (_LINE[:size], _LINE[size // 2 : size] + "and more"),
    "one word changed": lambda size: (_LINE[:size], _LINE[: size - 9] + "X" * 20),
    "one letter only": lambda size: ("b" + "a" * size, "a" * (size - 1) + "c"),
    "lines begin alike": lambda size: ("the same, " * (size // 10), "the same, X" * 9),
    "fails at each letter": lambda size: (
        "".join("a" * n + "b" for n in range(int(size**0.5))),
        "a" * int(size**0.5) + "c",
    ),
}
"""Delivered text and the text of the retried call: the worst that a search in them can meet."""


def measure(server: BenchServer, *, quick: bool = False) -> tuple[list[Row], list[str]]:
    """Measure the stitcher and the SSE parser at two lengths, and a chat beside others that hang."""
    repeats = 1 if quick else 5
    rows = []
    for name, make in _STITCHED.items():
        pairs = [(_stitch_ns(make(_LARGE)), _stitch_ns(make(_SMALL))) for _ in range(repeats)]
        # Sixteen times the text; a square would cost 256 times as much.
        rows.append(row(f"stitch, {name}: 64 kB", "4 kB", "ns", pairs, at_most=100))
    pairs = [(_sse_ns(128_000), _sse_ns(_SMALL)) for _ in range(repeats)]
    rows.append(row("SSE by single bytes: frame of 128 kB", "4 kB", "ns/byte", pairs, at_most=4))
    settings = Settings(
        redis_url=server.url,
        key_prefix="ratios",
        observer_timeout_s=600,
        pipeline="bench.ratios:hanging",
    )
    pairs = [asyncio.run(_latencies_ms(settings, str(n))) for n in range(repeats)]
    name = "push to reader beside 3 chats whose observer hangs"
    rows.append(row(name, "alone", "ms", pairs, at_most=3))
    return rows, []


def _stitch_ns(texts: tuple[str, str]) -> float:
    delivered, new = texts
    stitcher = Stitcher(delivered)
    began = time.process_time_ns()
    for at in range(0, len(new), 4):
        stitcher.add(new[at : at + 4])
    stitcher.finish()
    return max(time.process_time_ns() - began, 1_000)


def _sse_ns(size: int) -> float:
    codec = make_codec("openai-chat+sse")
    raw = b'data: {"x":"' + b"a" * size + b'"}\n\n'
    began = time.process_time_ns()
    for at in range(len(raw)):
        codec.decode(raw[at : at + 1])
    return (time.process_time_ns() - began) / size


class _Hanging(Observer):
    """Hangs in the chats that are named for it."""

    async def on_chunk(self, event: Event) -> None:
        if event.chat.startswith("hangs"):
            await asyncio.Event().wait()


def hanging(_: Settings) -> Pipeline:
    """Make the pipeline of the measured worker, which finds it by its name."""
    return Pipeline(observers=[_Hanging()])


async def _latencies_ms(settings: Settings, repeat: str) -> tuple[float, float]:
    """Median from push to reader: beside chats that hang, and alone."""
    stop = asyncio.Event()
    async with (
        WorkerProcess(settings) as process,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
        contextlib.AsyncExitStack() as stack,
    ):
        bringing = asyncio.create_task(bring_chats(process.pump, stop))
        alone = await _typical_ms(producer, subscriber, f"alone-{repeat}")
        for number in range(3):
            opening = producer.message(f"hangs-{repeat}-{number}", source="text")
            message = await stack.enter_async_context(opening)
            await message.push("x")
        beside = await _typical_ms(producer, subscriber, f"beside-{repeat}")
        await stack.aclose()
        stop.set()
        await bringing
    return beside, alone


async def _typical_ms(producer: Producer, subscriber: Subscriber, chat_id: str) -> float:
    times = []
    async with (
        producer.message(chat_id, source="text") as message,
        contextlib.aclosing(subscriber.events(chat_id, "00000000:0")) as events,
    ):
        for number in range(60):
            began = time.perf_counter()
            await message.push(f"x{number} ")
            async for event in events:
                if event.type == "chunk.delta" and f"x{number} " in event.data["text"]:
                    break
            times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)
