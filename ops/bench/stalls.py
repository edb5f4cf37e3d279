"""
Measure how long a chat stalls while another chat of the same workers gets a hostile 1 MiB.

Two workers with redaction and sections on, a few chats that get a token at a steady pace, and one hostile
input after the other. *Longest stall* is the longest time from a push to its reader, over all innocent
chats; it grows with what else the machine does. *Loop held* does not: it is the most CPU time that a worker
took between two turns of its event loop.
``RIVERDELTA_BENCH_WORKER`` names another version's command to measure the same against.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import IO, Any, Final

from bench.loop import run
from bench.result import Row
from bench.server import BenchServer
from bench.turns import FILE, longest_ms
from riverdelta import Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.producer.message import Message

_SIZE: Final = (1 << 20) - 4096
"""With its JSON around it, still a chunk that push accepts."""
_INNOCENT: Final = 4
_PACE_S: Final = 0.05
_MOST_S: Final = 40.0
"""Past this the next input has its turn, and the table says so."""
_START_S: Final = 60.0
_CALM_S: Final = 4.0

Hostile = tuple[str, str, Callable[[Message], Awaitable[None]]]
"""What it is, the message's source, and what is pushed."""


def measure(server: BenchServer, *, quick: bool = False) -> tuple[list[Row], list[str]]:
    """Push every hostile input once; the table is in the notes, since there is no rival."""
    server.unpin()
    return [], run(_measure(server.url, _HOSTILE[:2] if quick else _HOSTILE))


async def _measure(url: str, hostile: list[Hostile]) -> list[str]:
    only = os.environ.get("RIVERDELTA_BENCH_STALLS", "")
    hostile = [entry for entry in hostile if only in entry[0]]
    settings = Settings(redis_url=url)
    lines = [
        f"{'hostile input of 1 MiB':44} {'longest stall':>14} {'loop held':>10} {'took':>8} {'load':>6}"
    ]
    with tempfile.TemporaryFile("w+") as log, tempfile.NamedTemporaryFile() as turns:
        async with (
            _workers(url, log, turns.name),
            Producer(settings) as producer,
            Subscriber(settings) as subscriber,
            Client(settings) as client,
        ):
            innocent = _Innocent(producer, subscriber)
            async with innocent.streaming():
                await asyncio.sleep(
                    _CALM_S
                )  # both workers are up, and have nothing left of the start
                for number, (what, source, push) in enumerate([_nothing(), *hostile]):
                    innocent.longest_s = 0.0
                    began = time.monotonic()
                    ended = await _ends(producer, client, f"hostile-{number}", source, push)
                    took = f"{time.monotonic() - began:.1f} s" if ended else "no end"
                    held_ms = longest_ms(Path(turns.name), began)
                    lines.append(
                        f"{what:44} {innocent.now_longest_s():12.2f} s {held_ms:7.0f} ms {took:>8}"
                        f" {os.getloadavg()[0]:6.1f}"
                    )
                    print(lines[-1], file=sys.stderr, flush=True)
        log.seek(0)
        dead = sum(" is dead;" in line for line in log)
    return [*lines, f"workers declared dead: {dead}"]


async def _ends(
    producer: Producer,
    client: Client,
    chat_id: str,
    source: str,
    push: Callable[[Message], Awaitable[None]],
) -> bool:
    """Push a hostile message and wait for its end; False: it took too long."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_MOST_S):
            message = producer.message(chat_id, source=source)
            async with message:
                await push(message)
            await _until_ended(client, chat_id)
            return True
    return False


async def _until_ended(client: Client, chat_id: str) -> None:
    """Wait until workers are done with all of a chat; asks Redis, so that no reader has to decode it."""
    head = client.keys.chat(chat_id).head
    while True:
        opened, pushed, processed = await client.chats.execute(
            "HMGET", head, "open", "pushed", "processed"
        )
        if opened == b"" and pushed == processed:
            return
        await asyncio.sleep(0.1)


class _Innocent:
    """Chats that get a token at a steady pace. *longest_s*: the longest a token took to its reader."""

    def __init__(self, producer: Producer, subscriber: Subscriber) -> None:
        self._producer = producer
        self._subscriber = subscriber
        self._pushed: list[dict[int, float]] = [{} for _ in range(_INNOCENT)]
        self._running = 0
        self._all_run = asyncio.Event()
        self.longest_s = 0.0

    def now_longest_s(self) -> float:
        """Longest so far, what is under way included."""
        now = time.monotonic()
        waiting = [now - at for pushed in self._pushed for at in pushed.values()]
        return max([self.longest_s, *waiting])

    @contextlib.asynccontextmanager
    async def streaming(self) -> AsyncIterator[None]:
        """Have all of them stream meanwhile."""
        tasks = [asyncio.create_task(self._push(n)) for n in range(_INNOCENT)]
        tasks += [asyncio.create_task(self._read(n)) for n in range(_INNOCENT)]
        async with asyncio.timeout(_START_S):
            await self._all_run.wait()
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)

    async def _push(self, number: int) -> None:
        async with self._producer.message(f"innocent-{number}", source="text") as message:
            length = 0
            while True:
                length += 8
                self._pushed[number][length] = time.monotonic()
                await message.push("a token ")
                await asyncio.sleep(_PACE_S)

    async def _read(self, number: int) -> None:
        pushed = self._pushed[number]
        async for event in self._subscriber.events(f"innocent-{number}", "00000000:0"):
            if event.type != "chunk.delta":
                continue
            self._running += event.data["offset"] == 0
            if self._running == _INNOCENT:
                self._all_run.set()
            now, end = time.monotonic(), event.data["offset"] + len(event.data["text"])
            for length in [length for length in pushed if length <= end]:
                self.longest_s = max(self.longest_s, now - pushed.pop(length))


@contextlib.asynccontextmanager
async def _workers(url: str, log: IO[str], turns: str) -> AsyncIterator[None]:
    command = os.environ.get("RIVERDELTA_BENCH_WORKER") or str(
        Path(sys.executable).with_name("riverdelta")
    )
    env = os.environ | {
        "RIVERDELTA_REDIS_URL": url,
        "RIVERDELTA_REDACT": "true",
        "RIVERDELTA_SECTIONS": "true",
        "RIVERDELTA_PIPELINE": "bench.turns:build",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        FILE: turns,
    }
    workers = [
        await asyncio.create_subprocess_exec(command, "worker", env=env, stderr=log)
        for _ in range(2)
    ]
    try:
        yield
    finally:
        for worker in workers:
            worker.kill()
            await worker.wait()


# -- the inputs ----------------------------------------------------------------------------------


def _filled(unit: str) -> str:
    return unit * (_SIZE // len(unit))


def _result(what: str, unit: str) -> Hostile:
    async def push(message: Message) -> None:
        await message.push_tool_result("call", _filled(unit))

    return f"tool result: {what}", "chunks", push


def _nothing() -> Hostile:
    async def push(message: Message) -> None:
        await message.push("calm")
        await asyncio.sleep(_CALM_S)

    return "none: what the machine does by itself", "text", push


def _text(what: str, unit: str) -> Hostile:
    async def push(message: Message) -> None:
        await message.push(_filled(unit))

    return f"text: {what}", "text", push


def _arguments(what: str, text: str, tool: str) -> Hostile:
    async def push(message: Message) -> None:
        piece = {"chunk": "c", "kind": "tool_call", "tool_name": tool, "tool_call_id": "call"}
        await message.push(piece | {"text": text, "done": True})

    return f"arguments: {what}", "chunks", push


def _repeated() -> Hostile:
    async def push(message: Message) -> None:
        text = _filled("ab")
        await message.push(text)
        await message.restart()
        await message.push(text[:-2] + "!!")

    return "text: said again, other at its end", "text", push


def _openai() -> Hostile:
    async def push(message: Message) -> None:
        delta = {"choices": [{"index": 0, "delta": {"content": _filled("ab ")}}]}
        await message.push(json.dumps(delta))

    return "openai-chat: one chunk", "openai-chat", push


def _sse() -> Hostile:
    async def push(message: Message) -> None:
        line = 'data: {"choices":[{"index":0,"delta":{"content":"a "}}]}\n\n'
        await message.push(_filled(line).encode())

    return "openai-chat+sse: many small events", "openai-chat+sse", push


def _calls() -> Hostile:
    async def push(message: Message) -> None:
        unit = {"index": 0, "id": "i00000", "function": {"name": "n", "arguments": "{}"}}
        count = _SIZE // (len(json.dumps(unit)) + 8)
        calls = [unit | {"index": n, "id": f"i{n}"} for n in range(count)]
        await message.push(json.dumps({"choices": [{"index": 0, "delta": {"tool_calls": calls}}]}))

    return "openai-chat: many calls in one chunk", "openai-chat", push


def _blocks() -> Hostile:
    async def push(message: Message) -> None:
        start = {"type": "content_block_start", "content_block": {"type": "text", "text": "a"}}
        stop = {"type": "content_block_stop"}
        lines = [
            f"data: {json.dumps(event | {'index': n})}\n\n"
            for n in range(_SIZE // 160)
            for event in (start, stop)
        ]
        await message.push("".join(lines).encode())

    return "anthropic+sse: many blocks in one chunk", "anthropic+sse", push


def _parsed_result(what: str, content: Any) -> Hostile:
    async def push(message: Message) -> None:
        await message.push_tool_result("call", content)

    return f"tool result: {what}", "chunks", push


_LONG_KEY: Final = json.dumps({"k" * 4000: [1] * ((_SIZE - 8192) // 3)})
_FILES: Final = json.dumps({"files": [{"name": "n", "yml_content": "a: 1\n" * (_SIZE // 16)}]})
_HOSTILE: Final[list[Hostile]] = [
    _result("1-1-", "1-"),
    _text("ghp_ghp_", "ghp_"),
    _text("a@b.cc a@b.cc", "a@b.cc "),
    _text("card numbers", "4111 1111 1111 1111 "),
    _text("digits and blanks", "1 "),
    _text("<think<think", "<think"),
    _text("<think></think>", "<think>a</think>"),
    _text("```", "```"),
    _text("```a ```", "```a\n```\n"),
    _arguments("one string", json.dumps({"a": _filled("x")[:-64]}), "any"),
    _arguments("escapes", '{"a":"' + "\\u0041" * (_SIZE // 8) + '"}', "any"),
    _arguments("list of numbers", "[" + _filled("1,")[:-64] + "1]", "any"),
    _arguments("list of lists", "[" + _filled("[],")[:-64] + "1]", "any"),
    _arguments(
        "nested lists", "[" + "[" * 99 + "[1]," * (_SIZE // 4 - 128) + "1" + "]" * 100, "any"
    ),
    _arguments("a long key, many values", _LONG_KEY, "any"),
    _arguments("a card of one file", _FILES, "create_metrics"),
    _parsed_result("list of lists", [[]] * (_SIZE // 3 - 64)),
    _repeated(),
    _openai(),
    _sse(),
    _calls(),
    _blocks(),
]
