"""
Memory stays bounded, in Redis and in a worker, whatever comes and goes.

The suite's sizes keep it short. The full ones, 20,000 chats and a message of a million chunks, take some
minutes: ``TEST_FULL_SIZE=1 make test ARGS=tests/integration/worker/test_bounded_memory.py``. Both print
what they measured.
"""

import asyncio
import contextlib
import os
import random
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from riverdelta import BackpressureError, Producer, Settings, Stopped, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.producer.caretaker import Caretaker
from riverdelta.broker.producer.delivery import Delivery
from tests.support.local_workers import local_workers
from tests.support.producers import stand_still
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import Server, binaries, until, worker_processes

FULL_SIZE = os.environ.get("TEST_FULL_SIZE") == "1"
CHATS = 20_000 if FULL_SIZE else 1_000
CHUNKS = 1_000_000 if FULL_SIZE else 50_000
AT_ONCE = 50
MIB = 1024 * 1024

pytestmark = pytest.mark.timeout(1_800 if FULL_SIZE else 300)


def chunk(text: str) -> dict[str, Any]:
    """A few letters in the form of a provider."""
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": None}
    return {
        "id": "chatcmpl-9fGTVlQ4P2Zr",
        "object": "chat.completion.chunk",
        "created": 1_763_600_000,
        "model": "gpt-4o-2024-08-06",
        "system_fingerprint": "fp_5d58a6052a",
        "choices": [choice],
    }


async def side_by_side(
    names: Iterable[str], work: Callable[[str], Awaitable[None]], at_once: int = AT_ONCE
) -> None:
    """Do *work* for each name, a few at a time."""
    waiting = iter(names)

    async def one_after_the_other() -> None:
        for name in waiting:
            await work(name)

    await asyncio.gather(*(one_after_the_other() for _ in range(at_once)))


async def scan(client: Client, pattern: str = "*") -> list[str]:
    """Every key there is."""
    found: list[bytes] = []
    cursor = b"0"
    while True:
        cursor, page = await client.chats.execute("SCAN", cursor, "MATCH", pattern, "COUNT", 1_000)
        found += page
        if cursor == b"0":
            return sorted(key.decode() for key in found)


async def info(client: Client, field: str) -> int:
    text = (await client.chats.execute("INFO", "memory")).decode()
    return int(text.partition(f"\n{field}:")[2].split()[0])


# -- keys ----------------------------------------------------------------------------------------


async def test_no_key_of_a_finished_chat_remains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of its messages; and when everybody has gone, no key at all."""
    monkeypatch.setattr(Caretaker, "every_s", 0.1)
    monkeypatch.setattr(Delivery, "keep_s", 0.2)
    with Server(str(binaries()["valkey"]), tmp_path) as server:
        settings = Settings(
            redis_url=server.url,
            retention_s=1.0,
            idle_release_s=0.0,
            lease_s=0.5,
            producer_lease_s=0.5,
        )
        rng = random.Random(11)

        async def talk(producer: Producer, subscriber: Subscriber, chat: str) -> None:
            fate = rng.choice(("completed", "failed", "stopped", "dead letters", "left open"))
            message = producer.message(chat, source="openai-chat", user=rng.choice(("u1", None)))
            with contextlib.suppress(ZeroDivisionError, Stopped):
                if fate == "left open":
                    await message.__aenter__()
                    await message.push(chunk("x"))
                    return
                async with message:
                    await message.push_many([chunk("some "), chunk("text")])
                    if fate == "dead letters":
                        await message.push_many(["{", "}"])
                    if fate == "stopped":
                        await subscriber.stop(chat, message.id)
                    if fate == "failed":
                        raise ZeroDivisionError
                    await message.push(chunk(" and more"))

        async with Client(settings) as client, Subscriber(settings) as subscriber:
            async with local_workers(settings, 2), Producer(settings) as producer:
                names = [f"c{i}" for i in range(200)]
                await side_by_side(names, lambda name: talk(producer, subscriber, name), 20)
                await stand_still(producer)  # dies with what is open

                async def only_the_workers_are_left() -> bool:
                    """Also no attach job: a chat that came by another way may be gone before its job."""
                    ours = {client.keys.workers, f"{client.keys.queue}:health-check"}
                    return set(await scan(client)) <= ours

                await until(only_the_workers_are_left)

            async def all_gone() -> bool:
                return await scan(client) == []

            await until(all_gone)


# -- a worker ------------------------------------------------------------------------------------


def resident_bytes(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


async def test_a_workers_memory_does_not_grow_with_the_chats_that_came_and_went(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the first half of them to the second, by no more than 5 %."""
    with Server(str(binaries()["valkey"]), tmp_path) as server:
        settings = Settings(redis_url=server.url, idle_release_s=0.0, retention_s=2.0)
        async with (
            worker_processes(settings) as workers,
            Client(settings) as client,
            Producer(settings) as producer,
            Subscriber(settings) as subscriber,
        ):
            (worker,) = workers.processes

            async def talk(chat: str) -> None:
                async with producer.message(chat, source="openai-chat") as message:
                    await message.push_many([chunk(f"{i} ") for i in range(10)])
                await read_until_ends(subscriber, chat)

            async def idle() -> bool:
                keys = client.keys
                listed = await client.queue.execute("HKEYS", keys.workers)
                owned = [
                    await client.queue.execute("SCARD", keys.worker_chats(name.decode()))
                    for name in listed
                ]
                return not any(owned)

            async def run(first: int, last: int) -> int:
                await side_by_side([f"c{i}" for i in range(first, last)], talk)
                await until(idle)
                return resident_bytes(worker.pid)

            begin = await run(0, CHATS // 20)
            half = await run(CHATS // 20, CHATS // 2)
            end = await run(CHATS // 2, CHATS)
    with capsys.disabled():
        sys.stdout.write(
            f"\nworker: {begin / MIB:.1f} MiB after {CHATS // 20:,} chats, {half / MIB:.1f} after "
            f"{CHATS // 2:,}, {end / MIB:.1f} after {CHATS:,}: {(end - half) / half:+.1%}\n"
        )
    assert end <= 1.05 * half


# -- Redis ---------------------------------------------------------------------------------------


async def test_a_long_message_keeps_redis_within_the_logs_cap_and_its_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Server(str(binaries()["valkey"]), tmp_path) as server:
        settings = Settings(
            redis_url=server.url, log_max_bytes=2 * MIB, max_backlog_bytes=2 * MIB, resend_bytes=0
        )
        async with (
            local_workers(settings),
            Client(settings) as client,
            Producer(settings) as producer,
        ):
            async with producer.message("warm", source="openai-chat") as message:
                await message.push(chunk("up"))
            before, peak, text_bytes = await info(client, "used_memory_dataset"), 0, 0
            message = await producer.message("c", source="openai-chat").__aenter__()
            for number in range(CHUNKS // 100):
                texts = [f"{number}.{i} " for i in range(100)]
                await message.push_many([chunk(text) for text in texts])
                text_bytes += sum(map(len, texts))
                if number % 20 == 0:
                    peak = max(peak, await info(client, "used_memory_dataset") - before)
            await message.end()
            peak = max(peak, await info(client, "used_memory_dataset") - before)
    # The backlog is JSON that was not read yet. A stream's and a hash's own needs: half as much again.
    cap = 1.5 * (settings.log_max_bytes + settings.max_backlog_bytes + text_bytes)
    with capsys.disabled():
        sys.stdout.write(
            f"\nRedis: {CHUNKS:,} chunks, {text_bytes / MIB:.1f} MiB of text: {peak / MIB:.1f} MiB "
            f"at most (allowed: {cap / MIB:.1f})\n"
        )
    assert peak <= cap


async def test_a_full_server_recovers_by_itself_when_workers_and_readers_drain_it(
    tmp_path: Path,
) -> None:
    with Server(str(binaries()["valkey"]), tmp_path, "--maxmemory-policy", "noeviction") as server:
        settings = Settings(
            redis_url=server.url, push_wait_s=0.2, retention_s=2.0, idle_release_s=0.0, lease_s=0.5
        )
        patient = settings.model_copy(update={"push_wait_s": 60.0})
        async with (
            Client(settings) as client,
            Producer(settings) as producer,
            Producer(patient) as waiting,
            Subscriber(settings) as subscriber,
        ):
            await client.chats.execute("CONFIG", "SET", "maxmemory", 12 * MIB)
            messages, said = [], []
            with pytest.raises(BackpressureError, match="out of memory"):
                for number in range(1_000):
                    message = producer.message(f"c{number}", source="openai-chat", message_id="m")
                    await message.__aenter__()
                    messages.append(message)
                    said.append(0)
                    for _ in range(4):
                        await message.push_many([chunk("x")] * 100)
                        said[-1] += 100
            late = waiting.message("late", source="openai-chat", message_id="m")
            opening = asyncio.create_task(late.__aenter__())
            async with local_workers(settings, 2):
                await opening
                await late.push(chunk("there is room again"))
                await late.end()
                view = view_of(await read_until_ends(subscriber, "late"))
                assert view.text("m") == "there is room again"
                for number, message in enumerate(messages):
                    with contextlib.suppress(BackpressureError):
                        await message.end()
                    view = view_of(await read_until_ends(subscriber, f"c{number}"))
                    assert view.text("m") == "x" * said[number]

                async def gone() -> bool:
                    return await scan(client, "rd:{*") == []

                await until(gone)
