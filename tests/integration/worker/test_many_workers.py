"""Several worker processes, many chats, and workers that come and go in mid-message."""

import asyncio
import random
import signal

import pytest

from riverdelta import Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import until, worker_processes

CHATS = 100
CHUNKS = 200


@pytest.mark.timeout(600)
@pytest.mark.settings(lease_s=60.0)  # nobody is late here, however busy the machine
async def test_three_workers_a_hundred_chats(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    """Each reader's text equals the producer's, seq has no hole, nobody fought over a chat."""

    async def produce(chat_id: str) -> str:
        pause = random.Random(chat_id)
        sent = []
        async with producer.message(chat_id, source="text", message_id="m") as message:
            for number in range(CHUNKS):
                text = f"{chat_id} {number} äöü🙂 "
                await message.push(text)
                sent.append(text)
                await asyncio.sleep(pause.random() * 0.01)
        return "".join(sent)

    chats = [f"chat-{i}" for i in range(CHATS)]
    async with worker_processes(settings, 3) as workers:
        readings = [
            asyncio.create_task(read_until_ends(subscriber, chat, after=BEGINNING))
            for chat in chats
        ]
        sent = await asyncio.gather(*(produce(chat) for chat in chats))
        received = await asyncio.gather(*readings)
        owners = await asyncio.gather(
            *(
                client.chats.execute("HMGET", client.keys.chat(c).head, "owner", "term")
                for c in chats
            )
        )
        terms = [int(term) for _, term in owners]
        assert len({owner for owner, _ in owners}) > 1, "one worker got every chat"
        workers.stop_all()

    for text, events in zip(sent, received, strict=True):
        assert view_of(events).text("m") == text
        live = [event.seq for event in events if event.type != "snapshot"]
        assert live == list(range(1, len(live) + 1))
        assert len({event.epoch for event in events if event.seq}) == 1
    # A term is a claim; a chat claimed once is attached once.
    assert terms == [1] * CHATS


async def test_claims_are_attachments_and_no_commit_is_refused(settings: Settings) -> None:
    """As above inside this process, where the workers' own counters can be read."""
    from tests.support.local_workers import local_workers  # noqa: PLC0415  # this test only

    async with (
        local_workers(settings, 3) as pumps,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):

        async def talk(chat_id: str) -> None:
            reading = asyncio.create_task(read_until_ends(subscriber, chat_id))
            async with producer.message(chat_id, source="text") as message:
                for number in range(50):
                    await message.push(f"{number} ")
                    await asyncio.sleep(random.random() * 0.005)
            await reading

        await asyncio.gather(*(talk(f"c{i}") for i in range(40)))
        assert sum(pump.attached for pump in pumps) == 40
        assert sum(pump.refused_commits for pump in pumps) == 0


async def test_a_worker_killed_in_mid_message_is_not_noticed_by_readers(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    keys = client.keys.chat("c")
    async with worker_processes(settings, 1) as workers:
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("before ")

            async def committed() -> bool:
                return bool(await client.chats.execute("HGET", keys.head, "processed") == b"2")

            await until(committed)
            victim = workers.processes[0]
            await workers.start(1)
            victim.send_signal(signal.SIGKILL)
            for number in range(20):
                await message.push(f"{number} ")

            async def gone_on() -> bool:
                return bool(await client.chats.execute("HGET", keys.head, "processed") == b"22")

            await until(gone_on)
        events = await reading
    assert view_of(events).text("m") == "before " + "".join(f"{n} " for n in range(20))
    assert [event.seq for event in events[1:]] == list(range(1, len(events)))
    assert len({event.epoch for event in events[1:]}) == 1


async def test_sigterm_hands_over_and_repeats_nothing(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    keys = client.keys.chat("c")
    async with worker_processes(settings, 1) as workers:
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("a")

            async def owned() -> bool:
                return bool(await client.chats.execute("HGET", keys.head, "owner"))

            await until(owned)
            await workers.start(1)
            first = await client.chats.execute("HGET", keys.head, "owner")
            workers.processes[0].terminate()

            async def other() -> bool:
                owner = await client.chats.execute("HGET", keys.head, "owner")
                return bool(owner) and owner != first

            await until(other)
            await message.push("b")
        events = await reading
    assert view_of(events).text("m") == "ab"
    assert [event.seq for event in events[1:]] == list(range(1, len(events)))


async def test_a_frozen_worker_that_wakes_up_again_is_fenced(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    keys = client.keys.chat("c")
    async with worker_processes(settings, 1) as workers:
        reading = asyncio.create_task(read_until_ends(subscriber, "c"))
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("a")

            async def owned() -> bool:
                return bool(await client.chats.execute("HGET", keys.head, "owner"))

            await until(owned)
            await workers.start(1)
            frozen = workers.processes[0]
            frozen.send_signal(signal.SIGSTOP)
            await message.push("b")

            async def taken_over() -> bool:
                return bool(await client.chats.execute("HGET", keys.head, "term") == b"2")

            await until(taken_over)
            frozen.send_signal(signal.SIGCONT)
            for _ in range(20):
                await message.push("c")
                await asyncio.sleep(0.02)
        events = await reading
    assert view_of(events).text("m") == "ab" + "c" * 20
    assert [event.seq for event in events[1:]] == list(range(1, len(events)))
