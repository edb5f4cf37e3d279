"""Chats get one owner, and an owner when they need one, whatever is lost on the way."""

import asyncio
import time
from typing import Any

import pytest

from riverdelta import (
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta_workers.poison import CLAIMS_BEFORE_DEAD_LETTER
from riverdelta_workers.pump import Pump
from tests.support.chats import rejected, say, until_owned
from tests.support.local_workers import local_workers
from tests.support.lost_replies import lose_first_reply
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import DEADLINE_S, until

pytestmark = pytest.mark.settings(lease_s=0.5)


async def test_a_chat_whose_claims_reply_was_lost_is_found_again(
    settings: Settings, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = lose_first_reply(monkeypatch, "claim")
    async with local_workers(settings, 2), Producer(settings) as producer:
        await say(producer, "x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"
    assert len(claims) == 2


async def test_a_chat_whose_releases_reply_was_lost_has_an_owner_when_it_goes_on(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = lose_first_reply(monkeypatch, "release")
    hasty = settings.model_copy(update={"idle_release_s": 0.0})
    async with local_workers(hasty) as (pump,), Producer(settings) as producer:
        await say(producer, "one")

        async def released() -> bool:
            return bool(releases)

        await until(released)
        async with producer.message("c", source="text", message_id="n") as message:
            await until_owned(client, pump)
            await message.push("two")
        events = await read_until_ends(subscriber, "c", ends=2)
    assert view_of(events).text("n") == "two"


async def test_a_claim_of_a_worker_that_is_declared_dead_meanwhile_is_made_up_for(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripts.claim
    workers: list[Pump] = []
    buried: list[str] = []

    async def claim(*args: Any, worker_id: str, **options: Any) -> Any:
        if buried:
            return await script(*args, worker_id=worker_id, **options)
        buried.append(worker_id)
        (pump,) = (pump for pump in workers if pump.worker_id == worker_id)
        counter = int(await client.queue.execute("HGET", client.keys.workers, worker_id))
        await scripts.remove_worker(client.queue, client.keys, worker_id=worker_id, counter=counter)
        claimed = await script(*args, worker_id=worker_id, **options)
        await (
            pump.restart_with_new_id()
        )  # as its heartbeat does, before the claim's reply is looked at
        return claimed

    monkeypatch.setattr(scripts, "claim", claim)
    async with local_workers(settings, 2) as pumps, Producer(settings) as producer:
        workers += pumps
        await say(producer, "x")
        assert view_of(await read_until_ends(subscriber, "c")).text("m") == "x"


async def test_a_chat_of_the_future_is_passed_on_and_left_whole(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    """Old workers pass it on until an upgraded one comes; those claims killed nobody."""
    key = client.keys.chat("c").head
    async with Producer(settings) as producer:
        await say(producer, "innocent")
        await client.chats.execute("HSET", key, "v", "99")
        async with local_workers(settings, 2) as pumps:

            async def tried() -> bool:
                return sum(pump.attached for pump in pumps) > CLAIMS_BEFORE_DEAD_LETTER

            await until(tried)
        await client.chats.execute("HSET", key, "v", "1")
        async with local_workers(settings):
            events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert (view_of(events).text("m"), rejected(events)) == ("innocent", [])


async def test_a_chat_of_the_future_is_tried_once_a_lease(
    settings: Settings, client: Client
) -> None:
    s = settings.model_copy(update={"lease_s": 0.8})
    async with Producer(s) as p:
        async with p.message("c", source="text", message_id="m") as m:
            await m.push("x")
        await client.chats.execute("HSET", client.keys.chat("c").head, "v", "99")
        async with local_workers(s, 2) as pumps:

            async def tried() -> bool:
                return sum(pump.attached for pump in pumps) >= 4

            began = time.monotonic()
            await until(tried)
            took_s = time.monotonic() - began
        await client.chats.execute("HSET", client.keys.chat("c").head, "v", "1")
    assert took_s > 2 * 0.8, f"4 claims took {took_s:.2f} s"  # 3 leases lie between 4 claims


async def test_an_orphaned_claim_leaves_no_subscription(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = scripts.claim
    pumps: list[Pump] = []
    buried: list[str] = []

    async def claim(*args: Any, worker_id: str, **options: Any) -> Any:
        if buried:
            return await script(*args, worker_id=worker_id, **options)
        buried.append(worker_id)
        (pump,) = (pump for pump in pumps if pump.worker_id == worker_id)
        counter = int(await client.queue.execute("HGET", client.keys.workers, worker_id))
        await scripts.remove_worker(client.queue, client.keys, worker_id=worker_id, counter=counter)
        claimed = await script(*args, worker_id=worker_id, **options)
        await pump.restart_with_new_id()
        return claimed

    monkeypatch.setattr(scripts, "claim", claim)
    s = settings.model_copy(update={"lease_s": 0.5})
    async with local_workers(s, 2) as ws, Producer(s) as p:
        pumps += ws
        async with p.message("c", source="text", message_id="m") as m:
            await m.push("x")
        await read_until_ends(subscriber, "c")
        for pump in ws:
            assert set(pump._pubsub._wanted) == {client.keys.chat(c).wake for c in pump.chats}


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
            return bool(answers) and second._delivery.outgoing.opened

        await until(released)
        await second.push("two")
        await second.end()
        async with asyncio.timeout(DEADLINE_S):
            events = await read_until_ends(subscriber, "c", ends=2)
        assert answers == ["busy" if side == "just before" else "released"]
        assert pump.attached == (1 if side == "just before" else 2)
    assert [view_of(events).text(name) for name in ("first", "second")] == ["one", "two"]
