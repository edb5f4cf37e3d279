"""What breaks at night, one at a time. (The harness that breaks everything at once is its own suite.)"""

import asyncio
import os
import signal
import subprocess
import sys
from typing import Any

import pytest

from riverdelta import Message, MessageEnded, Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.redis.pubsub import ShardedPubSub
from riverdelta.broker.store import scripts
from riverdelta.core.codecs.pieces import Piece
from riverdelta.core.codecs.plain import TextCodec
from tests.support.local_workers import local_workers
from tests.support.producers import stand_still
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import DEADLINE_S, Server, until, worker_processes


async def talk(message: Message, first: int, last: int, pause_s: float = 0.002) -> str:
    text = ""
    for number in range(first, last):
        text += f"{number} "
        await message.push(f"{number} ")
        await asyncio.sleep(pause_s)
    return text


async def test_a_server_that_dies_and_comes_back_with_all_it_had(own_server: Server) -> None:
    settings = Settings(redis_url=own_server.url)
    async with (
        local_workers(settings, 2),
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            text = await talk(message, 0, 50)
            own_server.kill()
            pushing = asyncio.create_task(talk(message, 50, 100))
            await asyncio.sleep(0.5)
            own_server.start()
            text += await pushing
        events = await reading
        assert view_of(events).text("m") == text


async def test_a_server_that_stands_still_for_longer_than_the_time_out(own_server: Server) -> None:
    """Every reply under way is lost, every command took effect: nothing may happen twice."""
    settings = Settings(redis_url=own_server.url, command_timeout_s=1.0)
    async with (
        local_workers(settings, 2),
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            text = await talk(message, 0, 30)
            own_server.freeze()
            pushing = asyncio.create_task(talk(message, 30, 60))
            await asyncio.sleep(2.5)
            own_server.thaw()
            text += await pushing
        assert view_of(await reading).text("m") == text


@pytest.mark.parametrize("kind", ["normal", "pubsub"])
async def test_connections_that_are_cut(kind: str, own_server: Server) -> None:
    settings = Settings(redis_url=own_server.url)
    async with (
        local_workers(settings),
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            pushing = asyncio.create_task(talk(message, 0, 200))
            for _ in range(5):
                await asyncio.sleep(0.05)
                await client.chats.execute("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
            text = await pushing
        assert view_of(await reading).text("m") == text


async def test_a_wake_that_was_lost_is_made_up_for_by_the_producers_check(
    settings: Settings,
    producer: Producer,
    subscriber: Subscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with local_workers(settings) as (pump,):
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("received ")

            async def attached() -> bool:
                return pump._chats["c"].task is None if "c" in pump._chats else False

            await until(attached)
            offered = []
            assert isinstance(pump._pubsub, ShardedPubSub)
            link = pump._pubsub._link
            assert link is not None
            on_message = link._on_message
            monkeypatch.setattr(link, "_on_message", lambda _, payload: offered.append(payload))
            await message.push("unheard")

            async def lost() -> bool:
                return bool(offered)

            await until(lost)
            monkeypatch.setattr(link, "_on_message", on_message)
        assert view_of(await reading).text("m") == "received unheard"


async def test_a_job_that_arq_lost_is_enqueued_again(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    async with producer.message("c", source="text", message_id="m") as message:
        await message.push("x")

        async def enqueued() -> bool:
            return bool(await client.queue.execute("ZCARD", client.keys.queue))

        await until(enqueued)
    await stand_still(producer)  # or its check would mend it first
    await client.queue.execute("DEL", client.keys.queue)
    async with local_workers(settings):
        events = await read_until_ends(subscriber, "c")
    assert view_of(events).text("m") == "x"


async def test_a_worker_killed_between_pick_and_claim(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    """arq holds the job's id for its time-out; the next attempt has another id."""
    async with local_workers(settings):
        job = f"{client.keys.prefix}:attach:c:0:0"
        await client.queue.execute("SET", f"arq:in-progress:{job}", "1", "EX", 3_600)
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"


async def test_a_worker_killed_between_registering_and_claiming(
    settings: Settings, client: Client, producer: Producer, subscriber: Subscriber
) -> None:
    await scripts.beat(client.queue, client.keys.workers, "ghost", first=True)
    await client.queue.execute("SADD", client.keys.worker_chats("ghost"), "c")
    async with local_workers(settings):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"

        async def buried() -> bool:
            return not await client.queue.execute("HEXISTS", client.keys.workers, "ghost")

        await until(buried)


async def test_a_chunk_that_breaks_the_fold_is_a_dead_letter(  # noqa: PLR0917  # fixtures
    settings: Settings,
    producer: Producer,
    subscriber: Subscriber,
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    decode = TextCodec.decode

    def fragile(self: TextCodec, raw: bytes) -> list[Piece]:
        if raw == b"poison":
            raise ZeroDivisionError("as if we had a bug")
        return decode(self, raw)

    monkeypatch.setattr(TextCodec, "decode", fragile)
    async with local_workers(settings):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push_many(["a", "b", "poison", "c", "poison", "d"])
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
        dead = await client.chats.execute("XRANGE", client.keys.chat("c").dead, "-", "+")
    assert view_of(events).text("m") == "abcd"
    assert [e.data["code"] for e in events if e.type == "input.rejected"] == ["fold_error"] * 2
    assert [fields[9] for _, fields in dead] == [b"poison", b"poison"]
    assert "ZeroDivisionError" in caplog.text


async def test_an_entry_that_killed_three_workers_is_passed_over(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    keys = client.keys.chat("c")
    async with producer.message("c", source="text", message_id="m") as message:
        async with local_workers(settings):
            await message.push("good")

            async def committed() -> bool:
                return bool(await client.chats.execute("HGET", keys.head, "processed") == b"2")

            await until(committed)
        await message.push("poison")
        for _ in range(3):
            term = int(await client.chats.execute("HGET", keys.head, "term"))
            await scripts.claim(client.chats, keys, worker_id="dead", term_seen=term, new_epoch="e")
        async with local_workers(settings):
            await message.push(" and better")
            await message.end()
            events = await read_until_ends(subscriber, "c", after=BEGINNING)
    rejected = [event.data["code"] for event in events if event.type == "input.rejected"]
    assert rejected == ["killed_workers"]
    assert view_of(events).text("m") == "good and better"


async def test_a_dead_producers_message_fails(settings: Settings, subscriber: Subscriber) -> None:
    brief = settings.model_copy(update={"producer_lease_s": 2.0})
    code = (
        "import asyncio, sys\n"
        "from riverdelta import Producer\n"
        "async def main():\n"
        "    async with Producer.from_url(sys.argv[1], key_prefix=sys.argv[2]) as producer:\n"
        "        async with producer.message('c', source='text', message_id='m') as message:\n"
        "            await message.push('last words')\n"
        "            print('pushed', flush=True)\n"
        "            await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    async with local_workers(brief):
        command = [sys.executable, "-c", code, settings.redis_url, settings.key_prefix]
        victim = await asyncio.create_subprocess_exec(*command, stdout=subprocess.PIPE)
        assert victim.stdout is not None
        assert await victim.stdout.readline() == b"pushed\n"
        victim.kill()
        await victim.wait()
        events = await read_until_ends(subscriber, "c")
    (message,) = view_of(events).messages
    assert message["error"] == {
        "code": "producer_lost",
        "detail": "the process that produced the reply died",
    }
    assert message["chunks"][0]["text"] == "last words"


async def test_a_producer_that_was_declared_dead_learns_of_it(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    brief = settings.model_copy(update={"producer_lease_s": 0.5})
    async with local_workers(brief), Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
            await stand_still(producer)  # stands still
            await read_until_ends(subscriber, "c")
            with pytest.raises(MessageEnded):
                await message.push("y")
        async with producer.message("c", source="text", message_id="n") as message:
            await message.push("alive again")
            await producer._heartbeat.exec()


async def test_full_workers_take_no_more_and_the_rest_waits(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    tight = settings.model_copy(update={"max_chats": 2, "idle_release_s": 0.0})
    async with local_workers(tight, 2) as pumps:
        messages = [producer.message(f"c{i}", source="text", message_id="m") for i in range(4)]
        for message in messages:
            await message.__aenter__()

        async def all_have_one() -> bool:
            return sum(len(pump.chats) for pump in pumps) == 4

        await until(all_have_one)
        assert [len(pump.chats) for pump in pumps] == [2, 2]
        async with producer.message("late", source="text", message_id="m") as late:
            await late.push("patience")
        await messages[0].end()
        assert view_of(await read_until_ends(subscriber, "late")).text("m") == "patience"
        for message in messages[1:]:
            await message.end()


async def test_chats_of_one_server_with_two_prefixes_do_not_meet(server: Server) -> None:
    prefixes = [Settings(redis_url=server.url, key_prefix=name) for name in ("left", "right")]
    for settings in prefixes:
        async with (
            local_workers(settings),
            Producer(settings) as producer,
            Subscriber(settings) as subscriber,
        ):
            async with producer.message("same", source="text", message_id="m") as message:
                await message.push(settings.key_prefix)
            events = await read_until_ends(subscriber, "same")
            assert view_of(events).text("m") == settings.key_prefix


async def test_arqs_own_command_runs_a_worker_too(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    environment = os.environ | {
        "RIVERDELTA_REDIS_URL": settings.redis_url,
        "RIVERDELTA_KEY_PREFIX": settings.key_prefix,
    }
    command = [sys.executable, "-m", "arq", "riverdelta_workers.WorkerSettings"]
    worker = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)
    try:
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"
        worker.send_signal(signal.SIGTERM)
        worker.wait(DEADLINE_S)
        assert await client.queue.execute("EXISTS", client.keys.workers) == 0
    finally:
        worker.kill()
        worker.wait()


async def test_a_worker_process_outlives_its_redis(own_server: Server) -> None:
    settings = Settings(redis_url=own_server.url)
    async with worker_processes(settings) as workers:
        own_server.kill()
        await asyncio.sleep(1.0)
        own_server.start()
        async with Producer(settings) as producer, Subscriber(settings) as subscriber:
            async with producer.message("c", source="text", message_id="m") as message:
                await message.push("x")
            assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"
        assert workers.processes[0].poll() is None


async def test_nothing_of_a_finished_chat_remains_after_its_retention(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    brief = settings.model_copy(update={"retention_s": 0.2, "idle_release_s": 0.0})

    def chunk(text: str) -> dict[str, Any]:
        return {"chunk": "t", "kind": "text", "text": text}

    async with local_workers(brief):
        for chat in ("c1", "c2"):
            async with producer.message(chat, source="chunks") as message:
                await message.push(chunk("a"))
                await message.push("poison")
            await read_until_ends(subscriber, chat)

        async def gone() -> bool:
            found = await client.chats.execute("KEYS", f"{client.keys.prefix}:{{*")
            return bool(found == [])

        await until(gone)
    waiting = (client.keys.waiting, client.keys.queue)
    assert await client.queue.execute("EXISTS", *waiting) == 0
