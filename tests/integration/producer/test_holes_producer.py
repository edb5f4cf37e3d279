"""Holes that a hostile review found, on the producer's side: each stays closed."""

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import ResponseError

from riverdelta import (
    BrokerUnavailable,
    Event,
    MessageEnded,
    MessageExists,
    MessageLost,
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.producer.caretaker import Caretaker
from riverdelta.broker.producer.delivery import Delivery
from riverdelta.broker.redis.commands import Commands
from riverdelta.broker.store import members, scripts
from riverdelta.broker.store.keys import Keys
from riverdelta_workers.attachment import Attachment
from riverdelta_workers.loops.producer_timeout import Silence
from riverdelta_workers.pump import Pump
from tests.support.local_workers import local_workers
from tests.support.producers import die, registry_of
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import Server, binaries, until

LEASE_S = 0.5
"""Of producers and workers: what takes a lease takes a test half a second."""


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Producers beat and look after their messages twenty times a second."""
    monkeypatch.setattr(Caretaker, "every_s", 0.05)
    monkeypatch.setattr(Delivery, "keep_s", 0.1)


@pytest.fixture
def settings(server: Server) -> Settings:
    return Settings(
        redis_url=server.url,
        key_prefix=f"t{secrets.token_hex(4)}",
        lease_s=LEASE_S,
        producer_lease_s=LEASE_S,
        push_wait_s=0.3,
    )


@pytest.fixture
async def workers(settings: Settings) -> AsyncIterator[None]:
    async with local_workers(settings):
        yield


def wrap(monkeypatch: pytest.MonkeyPatch, name: str, before: Callable[[], Awaitable[Any]]) -> None:
    """Have *before* run, and perhaps raise, before each call of a script."""
    script = getattr(scripts, name)

    async def call(*args: Any, **options: Any) -> Any:
        await before()
        return await script(*args, **options)

    monkeypatch.setattr(scripts, name, call)


async def listed(client: Client, producer: Producer) -> set[bytes]:
    return set(await client.queue.execute("SMEMBERS", client.keys.producer_messages(producer.id)))


def outcome(events: list[Event]) -> tuple[str, str | None]:
    (message,) = view_of(events).messages
    error = message["error"]
    return message["status"], None if error is None else error["code"]


# -- opening -------------------------------------------------------------------------------------


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

            async def struck() -> bool:
                return not await client.queue.execute("HEXISTS", client.keys.producers, "dead")

            await until(struck)
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
    script, stored = scripts.open_message, asyncio.Event()

    async def unanswered(*args: Any, **options: Any) -> Any:
        await script(*args, **options)
        stored.set()
        await asyncio.Event().wait()

    async with Producer(settings) as producer:
        monkeypatch.setattr(scripts, "open_message", unanswered)
        opening = asyncio.create_task(
            producer.message("c", source="text", message_id="m").__aenter__()
        )
        await stored.wait()
        opening.cancel()
        await asyncio.wait((opening,))
        monkeypatch.setattr(scripts, "open_message", script)
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
    add, tries = members.add_messages, 0

    async def away(queue: Commands, keys: Keys, producer_id: str, *listed: str) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise BrokerUnavailable("away")
        await add(queue, keys, producer_id, *listed)

    monkeypatch.setattr(members, "add_messages", away)
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
        sender = message._delivery._sender
        start = sender._opening.start.replace(b'"text"', b'"telepathy"')
        sender._opening = sender._opening._replace(start=start)
        await message.__aenter__()
        assert outcome(await read_until_ends(subscriber, "c")) == ("failed", "fold_error")
        with pytest.raises(MessageEnded):
            await message.push("x")

        async def gone() -> bool:
            keys = await client.chats.execute("KEYS", f"{client.keys.prefix}:{{c}}*")
            return not keys and not registry_of(producer).messages()

        await until(gone)


# -- ending --------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["by an exception", "by end", "by a cancelled end"])
async def test_an_end_that_could_not_be_stored_is_stored_later(
    how: str,
    settings: Settings,
    workers: None,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Delivery, "fail_wait_s", 0.1)
    script, away = scripts.push, asyncio.Event()

    async def lost(*args: Any, **options: Any) -> Any:
        away.set()
        if how == "by a cancelled end":
            await asyncio.Event().wait()
        raise BrokerUnavailable("away")

    async def talk() -> None:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            monkeypatch.setattr(scripts, "push", lost)
            if how == "by an exception":
                raise ZeroDivisionError

    async with Producer(settings) as producer:
        talking = asyncio.create_task(talk())
        await away.wait()
        if how == "by a cancelled end":
            talking.cancel()
        await asyncio.wait((talking,))
        monkeypatch.setattr(scripts, "push", script)
        events = await read_until_ends(subscriber, "c")
    failed = how == "by an exception"
    assert outcome(events) == (("failed", "producer_error") if failed else ("completed", None))
    assert view_of(events).text("m") == "x"


async def test_half_a_surrogate_pair_anywhere_does_not_cost_the_entry(
    settings: Settings, workers: None, subscriber: Subscriber
) -> None:
    """A cut emoji in what is not text of the reply: it becomes U+FFFD, and everything is readable."""
    cut = "cut \ud83d"
    async with Producer(settings) as producer:
        async with producer.message("c", source="text", metadata={cut: cut}) as message:
            await message.push_tool_result("t1", cut)
            await message.annotate(cut, {cut: [cut]})
            await message.fail("tool_error", cut)
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert [event.type for event in events if event.type == "input.rejected"] == []
    (seen,) = view_of(events).messages
    assert events[0].data["metadata"] == {"cut �": "cut �"}
    assert seen["chunks"][0]["text"] == "cut �"
    assert seen["annotations"] == [{"name": "cut �", "data": {"cut �": ["cut �"]}}]
    assert seen["error"] == {"code": "tool_error", "detail": "cut �"}


# -- the loops that look after messages ----------------------------------------------------------


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
                return beats > 2 * LEASE_S / 0.05 and len(checks) > seen + 4

            await until(more_than_a_lease)
            await client.chats.execute("CONFIG", "SET", "maxmemory", "0")
            await message.push("y")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "xy"


async def beat_of(client: Client, producer: Producer) -> int:
    return int(await client.queue.execute("HGET", client.keys.producers, producer.id))


async def test_a_producer_that_was_struck_off_lists_its_messages_again(
    settings: Settings, workers: None, client: Client, subscriber: Subscriber
) -> None:
    """It came to itself between the reaper's reading of its messages and its strike."""
    producer = await Producer(settings).__aenter__()
    message = await producer.message("c", source="text", message_id="m").__aenter__()
    await message.push("x")

    async def struck() -> bool:
        counter = await beat_of(client, producer)
        return await scripts.strike(
            client.queue, client.keys, producer_id=producer.id, counter=counter
        )

    async def back() -> bool:
        alive = await client.queue.execute("HEXISTS", client.keys.producers, producer.id)
        return bool(alive) and await listed(client, producer) == {b"c m"}

    await until(struck)
    await until(back)
    await die(producer)
    assert outcome(await read_until_ends(subscriber, "c")) == ("failed", "producer_lost")


# -- producers that live, and say nothing ---------------------------------------------------------


async def test_a_message_that_nothing_was_pushed_to_for_the_time_out_fails(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    """Its producer lives and checks on it all the time; the one beside it pushes now and then."""
    brief = settings.model_copy(update={"producer_timeout_s": 1.0})
    async with local_workers(brief), Producer(settings) as producer:
        silent = await producer.message("c", source="text", message_id="silent").__aenter__()
        slow = await producer.message("c", source="text", message_id="slow").__aenter__()
        await silent.push("last words")
        began = time.monotonic()
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        said = 0
        while not reading.done():
            await slow.push("x")
            said += 1
            await asyncio.wait((reading,), timeout=0.4)
        assert 1.0 <= time.monotonic() - began < 4.0
        with pytest.raises(MessageEnded):
            await silent.push("late")
        await slow.end()
        view = view_of(await read_until_ends(subscriber, "c", ends=2))
    failed, completed = view.messages
    assert (failed["message"], failed["error"]) == (
        "silent",
        {"code": "producer_timeout", "detail": "nothing was pushed for 1 s"},
    )
    assert view.text("silent") == "last words"
    assert (completed["status"], view.text("slow")) == ("completed", "x" * said)


async def test_a_producer_that_waits_for_room_is_not_silent(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    brief = settings.model_copy(
        update={"producer_timeout_s": 0.4, "max_backlog_chunks": 2, "push_wait_s": 10.0}
    )
    filtered, looks = Pump._filter, 0
    last_numbers = Silence._last_numbers

    async def looked(silence: Silence, attachment: Attachment) -> dict[str, int]:
        nonlocal looks
        looks += 1
        return await last_numbers(silence, attachment)

    async def slow(pump: Pump, attachment: Attachment, hot: Any, entries: Any) -> Any:
        if entries[0].type != "start":
            await until(more_than_twice)
        return await filtered(pump, attachment, hot, entries)

    async def more_than_twice() -> bool:
        return looks > 16  # eighths of the time-out

    monkeypatch.setattr(Silence, "_last_numbers", looked)
    monkeypatch.setattr(Pump, "_filter", slow)
    async with local_workers(brief), Producer(brief) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            for word in ("a", "b", "c", "d"):
                await message.push(word)
        events = await read_until_ends(subscriber, "c")
    assert (view_of(events).text("m"), outcome(events)) == ("abcd", ("completed", None))


# -- servers that come back with less ------------------------------------------------------------


async def test_a_message_that_cannot_be_sent_again_fails_with_data_lost(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("forgetful")
    with Server(str(binaries()["valkey"]), folder) as server:
        settings = Settings(redis_url=server.url, lease_s=LEASE_S, resend_bytes=0)
        async with (
            Client(settings) as client,
            Producer(settings) as producer,
            Subscriber(settings) as subscriber,
        ):
            message = await producer.message("c", source="text", message_id="m").__aenter__()
            await message.push("kept")
            await client.chats.execute("SAVE")
            await message.push("lost")
            server.kill()
            server.start()
            with pytest.raises(MessageLost):
                await message.push("refused")
            with pytest.raises(MessageLost):
                await message.push("refused as well")
            async with local_workers(settings):
                events = await read_until_ends(subscriber, "c")
    assert view_of(events).text("m") == "kept"
    assert outcome(events) == ("failed", "data_lost")
