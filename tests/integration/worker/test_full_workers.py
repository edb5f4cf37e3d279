"""Workers that have no room take no more chats."""

import asyncio
import gc
import warnings

import pytest

from riverdelta import (
    Producer,
    Settings,
)
from riverdelta.broker.client import Client
from riverdelta_workers import jobs
from riverdelta_workers.loops.janitor import Janitor
from riverdelta_workers.pump import Pump
from tests.support.chats import until_beaten
from tests.support.local_workers import local_workers
from tests.support.servers import until

pytestmark = pytest.mark.settings(lease_s=0.5)


async def test_full_workers_do_not_fill_the_queue_and_never_take_too_many(
    settings: Settings, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    count, slots, held = 5, 2, []
    monkeypatch.setattr(Janitor, "every_s", 0.05)
    monkeypatch.setattr(jobs, "MAX_JOBS", slots)  # a full worker holds as many, and arq lists them
    update_room = Pump._update_room

    def note(pump: Pump) -> None:
        held.append(len(pump._chats) + len(pump._attaching))
        update_room(pump)

    monkeypatch.setattr(Pump, "_update_room", note)
    tight = settings.model_copy(update={"max_chats": 1, "idle_release_s": 0.0})
    async with local_workers(tight) as (pump,), Producer(settings) as producer:
        messages = {f"c{i}": producer.message(f"c{i}", source="text") for i in range(count)}
        for message in messages.values():
            await message.__aenter__()
        await until_beaten(client, 16)  # four leases
        assert await client.queue.execute("ZCARD", client.keys.queue) <= count - 1 + slots
        for _ in range(2):
            (owned,) = pump.chats
            await messages.pop(owned).end()

            async def other(before: str = owned) -> bool:
                return pump.chats not in ([], [before])

            await until(other)
        for message in messages.values():
            await message.end()

        async def done() -> bool:
            return not await client.queue.execute("EXISTS", client.keys.waiting, client.keys.queue)

        await until(done)
    assert max(held) == 1


async def test_stopping_a_full_worker_leaves_no_connection(settings: Settings) -> None:
    s = settings.model_copy(update={"max_chats": 1, "lease_s": 0.3})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for run in range(4):
            async with local_workers(s) as (pump,), Producer(s) as p:
                for i in range(5):
                    await p.message(f"c{run}-{i}", source="text").__aenter__()

                async def full() -> bool:
                    return bool(pump.chats)

                await until(full)
                await asyncio.sleep(0.5)
        await asyncio.sleep(0.1)
        gc.collect()
    assert [str(w.message) for w in caught if "unclosed" in str(w.message)] == []
