"""Pushes whose outcome nobody knows: cancelled, cut off, refused after that. Each chunk goes in once."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError

from riverdelta import (
    BackpressureError,
    BrokerUnavailable,
    Message,
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.producer.delivery import Delivery
from riverdelta.broker.store import scripts
from riverdelta.core.outgoing import PushReply
from tests.support.chats import until_idle
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import Server, until


class LostReplies:
    """Lets pushes through, and loses what the server answers, while `on`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, before: bool = False) -> None:
        self.on = False
        self._before = before
        for name in ("push", "open_message"):
            monkeypatch.setattr(scripts, name, self._lossy(getattr(scripts, name)))

    def _lossy(
        self, script: Callable[..., Awaitable[PushReply]]
    ) -> Callable[..., Awaitable[PushReply]]:
        async def call(*args: Any, **options: Any) -> PushReply:
            if self.on and self._before:
                raise BrokerUnavailable("lost on the way there")
            reply = await script(*args, **options)
            if self.on:
                raise BrokerUnavailable("lost on the way back")
            return reply

        return call


@pytest.mark.parametrize("before", [False, True], ids=["stored", "not stored"])
async def test_a_push_without_an_answer_is_settled_by_the_next_call(
    before: bool, settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    lossy = LostReplies(monkeypatch, before=before)
    brief = settings.model_copy(update={"push_wait_s": 0.05})
    async with local_workers(settings), Producer(brief) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("a")
            lossy.on = True
            with pytest.raises(BrokerUnavailable):
                await message.push("b")
            with pytest.raises(BrokerUnavailable):
                await message.push("c")
            lossy.on = False
            await message.push("d")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "abcd"


async def test_a_cancelled_push_never_gives_its_number_to_another_chunk(
    own_server: Server,
) -> None:
    settings = Settings(redis_url=own_server.url)
    async with (
        local_workers(settings),
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        async with producer.message("c", source="text", message_id="m") as message:
            sent = ""
            for number in range(40):
                push = asyncio.create_task(message.push(f"{number} "))
                # Cancelled before it began, under way, or after it was done.
                for _ in range(number % 8):
                    await asyncio.sleep(0)
                push.cancel()
                (result,) = await asyncio.gather(push, return_exceptions=True)
                began = number % 8 > 0
                if result is None or began:
                    sent += f"{number} "
            await message.push("end")
        text = view_of(await read_until_ends(subscriber, "c")).text("m")
    assert text == sent + "end"


async def test_settling_is_exempt_from_back_pressure_and_what_follows_is_not(
    settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    lossy = LostReplies(monkeypatch)
    tight = settings.model_copy(update={"push_wait_s": 0.1, "max_backlog_chunks": 2})
    async with Producer(tight) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            lossy.on = True
            with pytest.raises(BrokerUnavailable):
                await message.push("stored, but nobody said so; ")
            lossy.on = False
            await message.push("taken along by the settling; ")
            with pytest.raises(BackpressureError):
                await message.push("surely not stored")
        async with local_workers(settings):
            text = view_of(await read_until_ends(subscriber, "c")).text("m")
    assert text == "stored, but nobody said so; taken along by the settling; "


async def test_what_is_in_doubt_is_bounded(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    lossy = LostReplies(monkeypatch)
    tight = settings.model_copy(update={"push_wait_s": 0.05, "max_backlog_bytes": 1_000})
    async with local_workers(settings), Producer(tight) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            lossy.on = True
            with pytest.raises(BrokerUnavailable):
                await message.push("a" * 1_000)
            for _ in range(3):
                with pytest.raises(BackpressureError, match="not stored"):
                    await message.push("b")
            lossy.on = False
            await until_idle(client)  # else the backlog may be full for 0.05 s
            await message.push("c")
        text = view_of(await read_until_ends(subscriber, "c")).text("m")
    assert text == "a" * 1_000 + "c"


async def test_a_message_whose_opening_is_in_doubt_gets_its_end(
    settings: Settings, subscriber: Subscriber, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Delivery, "keep_s", 0.1)
    lossy = LostReplies(monkeypatch)
    brief = settings.model_copy(update={"push_wait_s": 0.05})
    async with local_workers(settings), Producer(brief) as producer:
        lossy.on = True
        with pytest.raises(BrokerUnavailable):
            await producer.message("c", source="text", message_id="m").__aenter__()
        lossy.on = False
        events = await read_until_ends(subscriber, "c")
        assert view_of(events).messages[0]["status"] == "failed"

        async def forgotten() -> bool:
            members = client.keys.producer_messages(producer.id)
            return not await client.queue.execute("EXISTS", members)

        await until(forgotten)


async def test_tasks_that_push_at_once_are_stored_in_the_order_of_their_calls(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    async with local_workers(settings):
        async with producer.message("c", source="text", message_id="m") as message:
            await asyncio.gather(*(message.push(f"{number} ") for number in range(300)))
        text = view_of(await read_until_ends(subscriber, "c")).text("m")
    assert text == "".join(f"{number} " for number in range(300))


async def test_hundreds_of_messages_of_one_producer_while_connections_are_cut(
    own_server: Server,
) -> None:
    settings = Settings(redis_url=own_server.url)

    async def talk(message: Message) -> None:
        async with message:
            for number in range(5):
                await message.push(f"{number} ")

    async with (
        local_workers(settings, 2),
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        messages = [producer.message(f"c{i}", source="text", message_id="m") for i in range(300)]
        talking = asyncio.gather(*(talk(message) for message in messages))
        for _ in range(10):
            await asyncio.sleep(0.1)
            await client.chats.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await talking
        for i in range(0, 300, 20):
            events = await read_until_ends(subscriber, f"c{i}")
            assert view_of(events).text("m") == "0 1 2 3 4 "


@pytest.mark.parametrize("in_time", [True, False])
async def test_a_push_that_is_refused_never_lets_its_successor_pass(
    in_time: bool, settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two tasks push at once, and a full server refuses the first of them for a while."""
    script, sent = scripts.push, []

    async def push(*args: Any, entries: Any, **options: Any) -> Any:
        sent.append(entries[0].data)
        if entries[0].data == b"first " and (not in_time or sent.count(b"first ") < 4):
            raise OutOfMemoryError("command not allowed when used memory > 'maxmemory'")
        return await script(*args, entries=entries, **options)

    monkeypatch.setattr(scripts, "push", push)
    brief = settings.model_copy(update={"push_wait_s": 0.3})
    async with local_workers(settings), Producer(brief) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            first, second = await asyncio.gather(
                message.push("first "), message.push("second"), return_exceptions=True
            )
        text = view_of(await read_until_ends(subscriber, "c")).text("m")
    assert second is None
    assert sent.index(b"second") == sent.count(b"first "), "nothing was sent before it was decided"
    if in_time:
        assert (first, text) == (None, "first second")
    else:
        assert (type(first), text) == (BackpressureError, "second")
