"""Opening a message: twice, cancelled, without a queue, on a full server."""

import asyncio
from typing import Any

import pytest

from riverdelta import (
    BrokerUnavailable,
    MessageEnded,
    MessageExists,
    Producer,
    RiverdeltaError,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store import members, scripts
from riverdelta.broker.store.keys import Keys
from tests.support.chats import listed, outcome
from tests.support.local_workers import local_workers
from tests.support.lost_replies import wrap
from tests.support.producers import die, registry_of, stand_still
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import Server, until

pytestmark = [
    pytest.mark.usefixtures("hasty"),
    pytest.mark.settings(lease_s=0.5, producer_lease_s=0.5, push_wait_s=0.3),
]


async def test_an_id_that_could_not_be_listed_can_be_opened_later(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = scripts.add_messages

    async def away(*_: Any, **__: Any) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(scripts, "add_messages", away)
    async with Producer(settings.model_copy(update={"push_wait_s": 0.05})) as p:
        with pytest.raises(BrokerUnavailable):
            await p.message("c", source="text", message_id="m").__aenter__()
        monkeypatch.setattr(scripts, "add_messages", add)
        async with p.message("c", source="text", message_id="m") as m:
            await m.push("x")


async def test_opening_on_a_full_server_is_our_error_after_push_wait(own_server: Server) -> None:
    s = Settings(redis_url=own_server.url, push_wait_s=0.1)
    async with Producer(s) as p, Client(s) as c:
        await c.chats.execute("CONFIG", "SET", "maxmemory", "1mb")
        with pytest.raises(RiverdeltaError):
            await p.message("c", source="text", message_id="m").__aenter__()
        await c.chats.execute("CONFIG", "SET", "maxmemory", "0")


async def test_a_duplicate_open_leaves_the_original_alone(
    settings: Settings, workers: None, client: Client, subscriber: Subscriber
) -> None:
    async with Producer(settings) as another:
        producer = await Producer(settings).__aenter__()
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        for who in (producer, another):
            with pytest.raises(MessageExists):
                await who.message("c", source="text", message_id="m").__aenter__()
        await message.push("goes on")
        assert await listed(client, producer) == {b"c m"}
        assert await listed(client, another) == set()
        await die(producer)
        events = await read_until_ends(subscriber, "c")
    assert view_of(events).text("m") == "goes on"
    assert outcome(events) == ("failed", "producer_lost")


async def test_a_dead_duplicate_does_not_end_the_original(
    settings: Settings, workers: None, client: Client, subscriber: Subscriber
) -> None:
    """It died between listing the message as its own and opening it."""
    async with Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await client.queue.execute("SADD", client.keys.producer_messages("dead"), "c m")
            await client.queue.execute("HSET", client.keys.producers, "dead", 1)

            async def removed() -> bool:
                return not await client.queue.execute("HEXISTS", client.keys.producers, "dead")

            await until(removed)
            await message.push("goes on")
        events = await read_until_ends(subscriber, "c")
    assert outcome(events) == ("completed", None)


async def test_a_retry_of_a_cancelled_opening_learns_that_it_exists_and_it_ends(
    settings: Settings,
    workers: None,
    client: Client,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script, stored, back = scripts.open_message, asyncio.Event(), asyncio.Event()

    async def unanswered(*args: Any, **options: Any) -> Any:
        reply = await script(*args, **options)
        stored.set()
        await back.wait()  # the caretaker may be here before the patch is gone
        return reply

    async with Producer(settings) as producer:
        monkeypatch.setattr(scripts, "open_message", unanswered)
        opening = asyncio.create_task(
            producer.message("c", source="text", message_id="m").__aenter__()
        )
        await stored.wait()
        opening.cancel()
        await asyncio.wait((opening,))
        monkeypatch.setattr(scripts, "open_message", script)
        back.set()
        for _ in range(2):  # while it is this producer's, and when it is over
            with pytest.raises(MessageExists):
                await producer.message("c", source="text", message_id="m").__aenter__()
            events = await read_until_ends(subscriber, "c")
        assert outcome(events) == ("failed", "producer_error")

        async def forgotten() -> bool:
            return not registry_of(producer).messages() and not await listed(client, producer)

        await until(forgotten)


async def test_a_check_does_not_forget_what_is_still_being_opened(
    settings: Settings,
    workers: None,
    client: Client,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    checks = 0

    async def count() -> None:
        nonlocal checks
        checks += 1

    async def checked() -> bool:
        return checks > 3

    wrap(monkeypatch, "check", count)
    wrap(monkeypatch, "open_message", lambda: until(checked))
    producer = await Producer(settings).__aenter__()
    message = await producer.message("c", source="text", message_id="m").__aenter__()
    await message.push("x")
    assert await listed(client, producer) == {b"c m"}
    await die(producer)
    assert outcome(await read_until_ends(subscriber, "c")) == ("failed", "producer_lost")


async def test_opening_waits_for_a_queue_that_is_away(
    settings: Settings, workers: None, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, tries = scripts.add_messages, 0

    async def away(queue: Commands, keys: Keys, **listed: Any) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise BrokerUnavailable("away")
        await add(queue, keys, **listed)

    monkeypatch.setattr(scripts, "add_messages", away)
    async with Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
        assert outcome(await read_until_ends(subscriber, "c")) == ("completed", None)
    assert tries == 4


async def test_a_start_that_nobody_can_read_fails_its_message_and_leaves_nothing(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    """As a newer producer may send it, with a source that these workers do not know."""
    brief = settings.model_copy(update={"retention_s": 1.0, "idle_release_s": 0.0})
    async with local_workers(brief), Producer(settings) as producer:
        message = producer.message("c", source="text", message_id="m")
        delivery = message._delivery
        start = delivery.opening.start.replace(b'"text"', b'"telepathy"')
        delivery.opening = delivery.opening._replace(start=start)
        await message.__aenter__()
        assert outcome(await read_until_ends(subscriber, "c")) == ("failed", "fold_error")
        with pytest.raises(MessageEnded):
            await message.push("x")

        async def gone() -> bool:
            keys = await client.chats.execute("KEYS", f"{client.keys.prefix}:{{c}}*")
            return not keys and not registry_of(producer).messages()

        await until(gone)


async def test_a_message_that_is_over_leaves_the_list_even_when_it_was_listed_again(
    settings: Settings, workers: None, client: Client, subscriber: Subscriber
) -> None:
    """As when listing all passes the removal on its way: the member would stay while the producer lives."""
    async with Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
        await read_until_ends(subscriber, "c")

        async def forgotten() -> bool:
            return not registry_of(producer).messages() and not await listed(client, producer)

        await until(forgotten)
        await registry_of(producer)._list([message._delivery.opening])
        await until(forgotten)


async def test_a_producer_that_was_declared_dead_opens_a_message_and_is_killed(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    """Before it learns that it is no longer listed: opening lists it, so its message fails."""
    async with Producer(settings) as producer:
        await stand_still(producer)
        async with local_workers(settings):

            async def declared_dead() -> bool:
                return not await members.read_producers(client.queue, client.keys)

            await until(declared_dead)
            await producer.message("c", source="text", message_id="m").__aenter__()
            await die(producer)
            assert outcome(await read_until_ends(subscriber, "c")) == ("failed", "producer_lost")
