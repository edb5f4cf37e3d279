"""The loops of a worker go on, whatever its servers do."""

import asyncio

import pytest

from riverdelta import (
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.producer.caretaker import Caretaker
from tests.support.chats import until_beaten, until_idle
from tests.support.local_workers import local_workers
from tests.support.producers import stand_still
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import DEADLINE_S, Server, until

LEASE_S = 0.5

pytestmark = pytest.mark.settings(lease_s=0.5)


BEATING = ["caretaker", "heartbeat", "heartbeat", "janitor", "pubsub", "pubsub", "reaper"]
LOOPS = [f"riverdelta-{name}" for name in BEATING]


async def test_workers_outlive_a_queue_that_came_back_empty(
    settings: Settings, forgetful_server: Server, client: Client, subscriber: Subscriber
) -> None:
    """It forgot who lives and who has what: all count as dead, and nobody lists their chats."""
    apart = settings.model_copy(update={"queue_url": forgetful_server.url})
    async with local_workers(apart, 2) as pumps, Producer(apart) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            await until_idle(client)
            ids = {pump.worker_id for pump in pumps}
            forgetful_server.kill()
            forgetful_server.start()

            async def new() -> bool:
                return ids.isdisjoint(pump.worker_id for pump in pumps)

            await until(new)
            await message.push("y")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "xy"


async def test_nobody_is_declared_dead_because_the_chats_server_stands_still(
    own_server: Server, forgetful_server: Server
) -> None:
    """Hearts beat on the queue's server; the chats' one answers nobody for more than every lease."""
    settings = Settings(
        redis_url=own_server.url,
        queue_url=forgetful_server.url,
        lease_s=LEASE_S,
        producer_lease_s=1.5,
        idle_release_s=0.2,
    )
    async with (
        local_workers(settings, 2) as pumps,
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            async with producer.message("idle", source="text") as other:
                await other.push("to be released while nobody answers")
            await until_idle(client)
            ids = [pump.worker_id for pump in pumps]
            producers = client.keys.producers
            beats = int(await client.queue.execute("HGET", producers, producer.id))
            own_server.freeze()

            async def beaten() -> bool:
                now = await client.queue.execute("HGET", producers, producer.id)
                return int(now or 0) >= beats + 3  # a second apart

            await until(beaten)
            await until_beaten(client, 5)
            own_server.thaw()
            await message.push("y")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "xy"
        assert [pump.worker_id for pump in pumps] == ids


async def test_a_server_that_loads_its_data_ends_no_loop(
    own_server: Server, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """LOADING is an error reply that stands for no connection: it must not become a result."""
    monkeypatch.setattr(Caretaker, "every_s", 0.1)
    settings = Settings(redis_url=own_server.url, lease_s=LEASE_S)
    async with (
        local_workers(settings),
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            # Redis answers between 1,024 commands of the AOF, and is to do so a few times.
            fill = "for i = 1, 12000 do redis.call('SET', 'filler:' .. i, 'x') end"
            await client.chats.execute("EVAL", fill, 0)
            loops = [t for t in asyncio.all_tasks() if t.get_name() in LOOPS]
            own_server.kill()
            own_server._command += ["--key-load-delay", "50"]  # µs for each
            starting = asyncio.create_task(asyncio.to_thread(own_server.start))
            await message.push("y")
            await starting
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "xy"
        assert sorted(loop.get_name() for loop in loops) == LOOPS
        assert [loop for loop in loops if loop.done()] == []
    warned = {
        f"{record.name} {record.getMessage().partition(':')[0]}"
        for record in caplog.records
        if "loading the dataset" in record.getMessage()
    }
    loops_of = {"worker heartbeat", "worker reaper", "producer heartbeat"}
    assert warned >= {f"riverdelta.{loop}" for loop in loops_of}, "each has met it"


async def test_one_chat_that_cannot_be_read_does_not_keep_the_reaper_from_the_others(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    await client.chats.execute("SET", client.keys.chat("bad").head, "not a hash")
    await client.queue.execute("ZADD", client.keys.waiting, 0, "bad")
    await client.queue.execute("HSET", client.keys.workers, "dead", 1)
    await client.queue.execute("SADD", client.keys.worker_chats("dead"), "bad")
    hasty = settings.model_copy(update={"producer_lease_s": settings.lease_s})
    async with Producer(settings) as producer:
        await producer.message("c", source="text", message_id="m").__aenter__()
        await stand_still(producer)  # dies
        async with local_workers(hasty):
            events = await read_until_ends(subscriber, "c")
    error = view_of(events).messages[0]["error"]
    assert error is not None
    assert error["code"] == "producer_lost"


async def test_one_message_that_cannot_be_failed_does_not_keep_a_dead_producers_others_open(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    s = settings.model_copy(update={"producer_lease_s": 0.5})
    for i in range(5):
        await client.chats.execute("SET", client.keys.chat(f"bad{i}").message("m"), "not a hash")
    async with Producer(settings) as p:
        for i in range(5):
            await client.queue.execute("SADD", client.keys.producer_messages(p.id), f"bad{i} m")
        await p.message("c", source="text", message_id="m").__aenter__()
        await stand_still(p)
        async with local_workers(s), asyncio.timeout(DEADLINE_S):
            (message,) = view_of(await read_until_ends(subscriber, "c")).messages
    assert message["error"] is not None
    assert message["error"]["code"] == "producer_lost"
