"""A producer's loops go on, whatever the servers do."""

from typing import Any

import pytest
from redis.exceptions import ResponseError

from riverdelta import (
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from tests.support.chats import beat_of, listed, outcome
from tests.support.local_workers import local_workers
from tests.support.producers import die
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import Server, until

LEASE_S = 0.5


pytestmark = [
    pytest.mark.usefixtures("hasty"),
    pytest.mark.settings(lease_s=0.5, producer_lease_s=0.5, push_wait_s=0.3),
]


async def test_a_server_without_memory_does_not_end_the_producers_loops(
    own_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(redis_url=own_server.url, producer_lease_s=LEASE_S)
    checks: list[object] = []
    script = scripts.check

    async def check(*args: Any, **options: Any) -> Any:
        checks.append(args)
        if len(checks) % 2:  # whatever else a server may refuse
            raise ResponseError("MISCONF Errors writing to the AOF file")
        return await script(*args, **options)

    monkeypatch.setattr(scripts, "check", check)
    async with (
        local_workers(settings),
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            await client.chats.execute("CONFIG", "SET", "maxmemory", "1mb")
            seen, counter = len(checks), await beat_of(client, producer)

            async def more_than_a_lease() -> bool:
                beats = await beat_of(client, producer) - counter
                return beats > 2 * settings.producer_lease_s / 0.05 and len(checks) > seen + 4

            await until(more_than_a_lease)
            await client.chats.execute("CONFIG", "SET", "maxmemory", "0")
            await message.push("y")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "xy"


async def test_a_producer_that_was_removed_lists_its_messages_again(
    settings: Settings, workers: None, client: Client, subscriber: Subscriber
) -> None:
    """It came to itself between the reaper's reading of its messages and its removal."""
    producer = await Producer(settings).__aenter__()
    message = await producer.message("c", source="text", message_id="m").__aenter__()
    await message.push("x")

    async def removed() -> bool:
        counter = await beat_of(client, producer)
        return await scripts.remove_producer(
            client.queue, client.keys, producer_id=producer.id, counter=counter
        )

    async def back() -> bool:
        alive = await client.queue.execute("HEXISTS", client.keys.producers, producer.id)
        return bool(alive) and await listed(client, producer) == {b"c m"}

    await until(removed)
    await until(back)
    await die(producer)
    assert outcome(await read_until_ends(subscriber, "c")) == ("failed", "producer_lost")
