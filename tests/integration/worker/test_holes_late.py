"""What comes too late, or at the same moment: commits, claims, releases; and readers cut off."""

import asyncio
import contextlib
import secrets
from typing import Any

import pytest
from redis.exceptions import OutOfMemoryError

from riverdelta import BackpressureError, BrokerUnavailable, Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.redis.pubsub import ShardedPubSub
from riverdelta.broker.store import scripts
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, check_contiguous, read_until_ends, view_of
from tests.support.servers import Server, until, worker_processes

LEASE_S = 0.5


@pytest.fixture
def settings(server: Server) -> Settings:
    return Settings(redis_url=server.url, key_prefix=f"t{secrets.token_hex(4)}", lease_s=LEASE_S)


# -- commits -------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["before the next commit", "after the next commit"])
async def test_a_commit_whose_reply_was_lost_and_that_lands_late(
    when: str, settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that a cut connection left under way: whichever comes first, the other is refused."""
    script = scripts.commit
    under_way: list[tuple[Any, ...]] = []
    refused: list[bool] = []

    async def land() -> None:
        while under_way:
            refused.append(isinstance(await script(*under_way.pop()), scripts.Refused))

    lost = 0

    async def commit(*args: Any) -> Any:
        nonlocal lost
        if lost < 3 and not under_way:
            lost += 1
            under_way.append(args)
            raise BrokerUnavailable("no answer")
        if when == "before the next commit":
            await land()
        reply = await script(*args)
        await land()
        return reply

    monkeypatch.setattr(scripts, "commit", commit)
    async with local_workers(settings) as (pump,), Producer(settings) as producer:
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            for number in range(20):
                await message.push(f"{number} ")
                await asyncio.sleep(0.005)
        events = await reading
        late_won = when == "before the next commit"

        async def landed() -> bool:
            return refused == [not late_won] * lost and pump.refused_commits == lost * late_won

        await until(landed)
        assert lost > 0
    assert view_of(events).text("m") == "".join(f"{number} " for number in range(20))


# -- pushes --------------------------------------------------------------------------------------


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


# -- owners --------------------------------------------------------------------------------------


async def test_of_workers_that_claim_at_once_one_gets_the_chat(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    async with local_workers(settings, 4) as pumps, Producer(settings) as producer:
        for chat in (f"c{i}" for i in range(10)):
            async with producer.message(chat, source="text", message_id="m") as message:
                await message.push("x")
                results = await asyncio.gather(*(pump.attach(chat, 0) for pump in pumps))
                assert sum(results) <= 1  # arq may have been faster than all of them
                await message.push("y")
            events = await read_until_ends(subscriber, chat)
            assert view_of(events).text("m") == "xy"
            term = await client.chats.execute("HGET", client.keys.chat(chat).head, "term")
            assert term == b"1"
        assert sum(pump.attached for pump in pumps) == 10
        assert sum(pump.refused_commits for pump in pumps) == 0


@pytest.mark.parametrize("side", ["just before", "just after"])
async def test_a_message_that_is_opened_around_a_release(
    side: str, settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripts.release
    answers: list[str] = []
    hasty = settings.model_copy(update={"idle_release_s": 0.0})
    async with local_workers(hasty) as (pump,), Producer(settings) as producer:
        second = producer.message("c", source="text", message_id="second")

        async def release(*args: Any, **options: Any) -> str:
            if answers:
                return await script(*args, **options)
            if side == "just before":
                await second.__aenter__()
            answers.append(await script(*args, **options))
            if side == "just after":
                await second.__aenter__()
            return answers[0]

        monkeypatch.setattr(scripts, "release", release)
        async with producer.message("c", source="text", message_id="first") as message:
            await message.push("one")

        async def released() -> bool:
            return bool(answers) and second._delivery._opened

        await until(released)
        await second.push("two")
        await second.end()
        async with asyncio.timeout(10):
            events = await read_until_ends(subscriber, "c", ends=2)
        assert answers == ["busy" if side == "just before" else "released"]
        assert pump.attached == (1 if side == "just before" else 2)
    assert [view_of(events).text(name) for name in ("first", "second")] == ["one", "two"]


@pytest.mark.timeout(90)
async def test_a_chunk_that_kills_its_worker_processes(
    settings: Settings, client: Client, producer: Producer, subscriber: Subscriber
) -> None:
    """As a bug in an extension would, that takes the whole process with it."""
    deadly = (
        "import os\n"
        "from riverdelta.core.codecs.plain import TextCodec\n"
        "decode = TextCodec.decode\n"
        "def kill(codec, raw):\n"
        "    if raw == b'poison': os._exit(9)\n"
        "    return decode(codec, raw)\n"
        "TextCodec.decode = kill\n"
    )
    async with worker_processes(settings, 0) as workers:
        await workers.start(6, prelude=deadly)
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push_many(["good ", "poison", "and better"])
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
        dead = [process for process in workers.processes if process.poll() is not None]
    rejected = [event.data["code"] for event in events if event.type == "input.rejected"]
    # One with the batch, one after what was good in it was committed, three with nothing before it.
    assert (rejected, len(dead)) == (["killed_workers"], 5)
    assert view_of(events).text("m") == "good and better"
    assert await client.chats.execute("XLEN", client.keys.chat("c").dead) == 1


# -- readers -------------------------------------------------------------------------------------


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
        pubsub = subscriber._pubsub
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
        async with asyncio.timeout(30), contextlib.aclosing(stream):
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
        async with asyncio.timeout(30), contextlib.aclosing(stream):
            async for event in stream:
                events.append(event)
                if event.ends_message or event.type == "snapshot":
                    break
    check_contiguous(events)
    assert events[-1].type == "snapshot"
    assert view_of(events).text("m").count(" ") == 3_000
