"""Readers that are cut off or closed, and channels with junk."""

import asyncio
import contextlib

import pytest

from riverdelta import (
    BrokerUnavailable,
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.redis.pubsub import ShardedPubSub
from tests.support.local_workers import local_workers
from tests.support.reading import check_contiguous, read_until_ends, view_of
from tests.support.servers import DEADLINE_S, Server, until

pytestmark = pytest.mark.settings(lease_s=0.5)


async def test_a_reader_is_not_cancelled_by_another_ones_time_out(own_server: Server) -> None:
    settings = Settings(redis_url=own_server.url, command_timeout_s=0.4)
    async with Subscriber(settings) as subscriber:

        async def read(after_s: float) -> None:
            await asyncio.sleep(after_s)
            await anext(subscriber.events("c"))

        own_server.freeze()
        results = await asyncio.gather(read(0.0), read(0.2), return_exceptions=True)
        own_server.thaw()
    assert [type(result) for result in results] == [BrokerUnavailable] * 2


async def test_open_iterators_end_when_their_subscriber_is_closed(settings: Settings) -> None:
    async with Subscriber(settings) as subscriber:
        streams = [subscriber.events("c") for _ in range(3)]
        for stream in streams:
            assert (await anext(stream)).type == "snapshot"
        waiting = asyncio.gather(*(anext(stream) for stream in streams), return_exceptions=True)
    async with asyncio.timeout(DEADLINE_S):
        results = await waiting
    assert [type(result) for result in results] == [BrokerUnavailable] * 3


async def test_junk_on_the_channel_of_deltas_does_not_end_readers(
    settings: Settings, subscriber: Subscriber, client: Client
) -> None:
    async with local_workers(settings), Producer(settings) as p:
        async with p.message("c", source="text", message_id="m") as m:
            reading = asyncio.create_task(read_until_ends(subscriber, "c"))

            async def subscribed() -> bool:
                return bool(
                    await client.chats.execute(
                        "PUBSUB", "SHARDNUMSUB", client.keys.chat("c").deltas
                    )
                    != [client.keys.chat("c").deltas.encode(), 0]
                )

            await until(subscribed)
            await m.push("x")
            await client.chats.execute("SPUBLISH", client.keys.chat("c").deltas, "hello")
            await m.push("y")
        assert view_of(await reading).text("m") == "xy"


async def test_a_reader_whose_output_buffer_overflowed_is_cut_off_and_misses_nothing(
    own_server: Server,
) -> None:
    settings = Settings(redis_url=own_server.url)
    async with (
        local_workers(settings),
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        limit = f"pubsub {512 * 1024} {512 * 1024} 1"
        await client.chats.execute("CONFIG", "SET", "client-output-buffer-limit", limit)
        stream, events = subscriber.events("c"), []
        events.append(await anext(stream))
        pubsub = subscriber._reader._feeds._pubsub
        assert isinstance(pubsub, ShardedPubSub)
        link = pubsub._link
        assert link is not None
        link.wire._transport.pause_reading()  # type: ignore[attr-defined]  # a socket's transport

        async def cut_off() -> bool:
            channel = client.keys.chat("c").deltas
            _, count = await client.chats.execute("PUBSUB", "SHARDNUMSUB", channel)
            return bool(count == 0)

        text = ""
        async with producer.message("c", source="text", message_id="m") as message:
            while not await cut_off():
                await message.push("x" * 200_000)
                text += "x" * 200_000
            await message.push("and the end")
            link.wire._transport.resume_reading()  # type: ignore[attr-defined]  # as above
        async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(stream):
            async for event in stream:
                events.append(event)
                if event.ends_message or (
                    event.type == "snapshot" and event.data["messages"][-1]["status"] != "open"
                ):
                    break

        async def another() -> bool:
            return pubsub._link not in (None, link)

        await until(another)
    check_contiguous(events)
    assert view_of(events).text("m") == text + "and the end"


async def test_a_log_that_is_trimmed_past_a_slow_readers_position_gives_it_a_snapshot(
    settings: Settings, subscriber: Subscriber
) -> None:
    short = settings.model_copy(update={"log_max_events": 100, "batch_chunks": 10})
    async with local_workers(short), Producer(settings) as producer:
        stream = subscriber.events("c")
        events = [await anext(stream)]
        async with producer.message("c", source="chunks", message_id="m") as message:
            # Two chunks in turn: their deltas do not merge, so that there are many events.
            many = [{"chunk": "ab"[i % 2], "kind": "text", "text": f"{i} "} for i in range(3_000)]
            for i in range(0, len(many), 100):
                await message.push_many(many[i : i + 100])
        await read_until_ends(subscriber, "c")
        async with asyncio.timeout(DEADLINE_S), contextlib.aclosing(stream):
            async for event in stream:
                events.append(event)
                if event.ends_message or event.type == "snapshot":
                    break
    check_contiguous(events)
    assert events[-1].type == "snapshot"
    assert view_of(events).text("m").count(" ") == 3_000
