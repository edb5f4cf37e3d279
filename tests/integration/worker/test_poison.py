"""An entry that kills workers is found; other deaths are not blamed on entries."""

from typing import Any

import pytest

from riverdelta import BrokerUnavailable, Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from riverdelta_workers.poison import CLAIMS_BEFORE_DEAD_LETTER
from tests.support.chats import head, rejected, until_idle, until_owned
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, read_until_ends, view_of
from tests.support.servers import worker_processes

pytestmark = pytest.mark.settings(lease_s=0.5)


async def test_rolling_restarts_with_something_unread_kill_nothing(
    settings: Settings, client: Client, subscriber: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis takes no commits, and one worker after the other is asked to end."""
    commit = scripts.commit

    async def refused(*_: Any) -> int:
        raise BrokerUnavailable("no commits today")

    async with Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            async with local_workers(settings):
                await message.push("before ")
                await until_idle(client)
            await message.push("innocent")
            monkeypatch.setattr(scripts, "commit", refused)
            for _ in range(CLAIMS_BEFORE_DEAD_LETTER + 1):
                async with local_workers(settings) as (pump,):
                    await until_owned(client, pump)
            monkeypatch.setattr(scripts, "commit", commit)
        async with local_workers(settings):
            events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert (view_of(events).text("m"), rejected(events)) == ("before innocent", [])


async def test_workers_that_die_with_a_quiet_chat_do_not_count(
    settings: Settings, client: Client, subscriber: Subscriber
) -> None:
    keys = client.keys.chat("c")
    async with Producer(settings) as producer:
        async with producer.message("c", source="text", message_id="m") as message:
            async with local_workers(settings):
                await message.push("before ")
                await until_idle(client)
            for _ in range(CLAIMS_BEFORE_DEAD_LETTER + 1):
                term = int((await head(client))["term"])
                await scripts.claim(
                    client.chats, keys, worker_id="dead", term_seen=term, new_epoch="e"
                )
            await message.push("innocent")
        async with local_workers(settings):
            events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert (view_of(events).text("m"), rejected(events)) == ("before innocent", [])


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
