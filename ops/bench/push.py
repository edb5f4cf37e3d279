"""Pushing: one producer process against bare XADD, many messages at once and one at a time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack

from bench.load import openai_reply
from bench.loop import run
from bench.result import Row, row
from bench.server import BareConnection, BenchServer, pack
from riverdelta.broker.client import Client
from riverdelta.broker.producer.message import Message
from riverdelta.broker.producer.producer import Producer
from riverdelta.broker.redis.executor import Arg, Executor
from riverdelta.broker.settings import Settings
from riverdelta.broker.store import scripts

_COMMAND_TIMEOUT_S = 5.0


def measure(server: BenchServer, *, quick: bool) -> tuple[list[Row], list[str]]:
    """Measure the push rows."""
    messages, each, repeats = (50, 10, 2) if quick else (200, 100, 7)
    replies = [openai_reply(each, seed)[1 : each + 1] for seed in range(messages)]
    single = openai_reply(200 if quick else 2000, 0)[1:-1]
    at_once, over_executor, one_by_one = [], [], []
    with server.connect() as connection:
        for _ in range(repeats):
            ours = _rate(replies, _push(server, connection, replies))
            at_once.append((ours, _rate(replies, _bare_pipelined(connection, replies))))
            rival = _rate(replies, _xadd(server, connection, replies))
            over_executor.append((ours, rival))
            ours = _rate([single], _push(server, connection, [single]))
            rival = _rate([single], _xadd(server, connection, [single]))
            one_by_one.append((ours, rival))
    rows = [
        row(
            f"push, {messages} messages at once",
            f"bare socket, {messages} XADD a pipeline",
            "pushes/s",
            at_once,
            at_least=0.5,
        ),
        row(
            f"push, {messages} messages at once",
            "XADD by as many tasks, same executor",
            "pushes/s",
            over_executor,
        ),
        row("push, one at a time", "XADD, same executor", "pushes/s", one_by_one),
    ]
    return rows, [
        f"push: one producer process; chats have an owner, which does not run; {server.placement}"
    ]


def _rate(replies: list[list[bytes]], seconds: float) -> float:
    return sum(map(len, replies)) / seconds


# -- riverdelta ----------------------------------------------------------------------------------


def _push(server: BenchServer, connection: BareConnection, replies: list[list[bytes]]) -> float:
    connection.reset()
    return run(_pushed_in(server.url, replies))


async def _pushed_in(url: str, replies: list[list[bytes]]) -> float:
    """Push each reply chunk by chunk, all of them at once; seconds."""
    settings = Settings(redis_url=url)
    async with (
        Client(settings) as client,
        Producer(settings) as producer,
        AsyncExitStack() as stack,
    ):
        messages = []
        for number in range(len(replies)):
            chat_id = f"bench-{number:04d}"
            message = producer.message(chat_id, source="openai-chat")
            messages.append(await stack.enter_async_context(message))
            await _own(client, chat_id)
        started = time.perf_counter()
        await asyncio.gather(*map(_push_all, messages, replies))
        return time.perf_counter() - started


async def _push_all(message: Message, chunks: list[bytes]) -> None:
    for chunk in chunks:
        await message.push(chunk)


async def _own(client: Client, chat_id: str) -> None:
    """Claim a chat, so that each push publishes its wake."""
    await scripts.claim(
        client.chats,
        client.keys.chat(chat_id),
        worker_id="w-bench",
        term_seen=0,
        new_epoch="bench",
    )


# -- the rivals ----------------------------------------------------------------------------------


def _xadd_args(number: int, chunk: bytes) -> tuple[Arg, ...]:
    """Encode the XADD that stores what push stores."""
    key = f"rd:{{bench-{number:04d}}}:chunks"
    message_id = f"m-{number:016x}"
    return ("XADD", key, "*", "message", message_id, "type", "chunk", "at", 12, "data", chunk)


def _bare_pipelined(connection: BareConnection, replies: list[list[bytes]]) -> float:
    """Send one XADD of each reply, together, and so on; packed by hiredis, no event loop; seconds."""
    connection.reset()
    started = time.perf_counter()
    for turn in zip(*replies, strict=True):
        connection.pipeline([pack(_xadd_args(number, chunk)) for number, chunk in enumerate(turn)])
    return time.perf_counter() - started


def _xadd(server: BenchServer, connection: BareConnection, replies: list[list[bytes]]) -> float:
    connection.reset()
    return run(_added_in(server.url, replies))


async def _added_in(url: str, replies: list[list[bytes]]) -> float:
    executor = Executor(url, _COMMAND_TIMEOUT_S)
    await executor.connect()
    started = time.perf_counter()
    await asyncio.gather(*(_add_all(executor, *item) for item in enumerate(replies)))
    seconds = time.perf_counter() - started
    await executor.aclose()
    return seconds


async def _add_all(executor: Executor, number: int, chunks: list[bytes]) -> None:
    commands: Iterator[tuple[Arg, ...]] = (_xadd_args(number, chunk) for chunk in chunks)
    for args in commands:
        await executor.execute(*args)
