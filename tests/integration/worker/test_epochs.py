"""A server that came back with less than it had: a new epoch, and no position used twice."""

import asyncio
from typing import Any

import pytest

from riverdelta import (
    BrokerUnavailable,
    Event,
    MessageLost,
    Producer,
    Settings,
    Subscriber,
)
from riverdelta.broker.client import Client
from riverdelta.broker.store import scripts
from tests.support.chats import say, until_idle
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import DEADLINE_S, Server, binaries, until


async def test_positions_of_what_the_server_lost_are_never_used_again(
    forgetful_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit was published and its reply lost; then the server fell back to the version before it."""
    settings = Settings(redis_url=forgetful_server.url, resend_bytes=0)
    script = scripts.commit
    fallen: list[Event] = []
    async with (
        local_workers(settings),
        Client(settings) as client,
        Producer(settings) as producer,
        Subscriber(settings) as subscriber,
    ):
        message = await producer.message("c", source="text", message_id="m").__aenter__()
        await message.push("kept")
        await until_idle(client)
        await client.chats.execute("SAVE")
        stream = subscriber.events("c")
        assert view_of([await anext(stream)]).text("m") == "kept"

        async def commit(*args: Any) -> Any:
            reply = await script(*args)
            if not fallen:
                fallen.append(await anext(stream))
                forgetful_server.kill()
                forgetful_server.start()
                raise BrokerUnavailable("lost on the way back")
            return reply

        monkeypatch.setattr(scripts, "commit", commit)
        await message.push("LOST")

        async def fell() -> bool:
            return bool(fallen)

        await until(fell)
        await stream.aclose()
        async with Producer(settings) as another:
            await say(another, "hello", "n")
        await read_until_ends(subscriber, "c")
        resumed = await anext(subscriber.events("c", after=fallen[0].position))
        assert fallen[0].data["text"] == "LOST"
        assert (resumed.type, view_of([resumed]).text("n")) == ("snapshot", "hello")
        with pytest.raises(MessageLost):
            await message.end()


async def test_an_owner_notices_that_the_server_fell_back_behind_it(tmp_path: Any) -> None:
    with Server(str(binaries()["valkey"]), tmp_path) as srv:
        s = Settings(redis_url=srv.url, resend_bytes=0)
        async with local_workers(s), Client(s) as c, Producer(s) as p, Subscriber(s) as sub:
            m = await p.message("c", source="text", message_id="m").__aenter__()
            await m.push("kept")
            await until_idle(c)
            await c.chats.execute("SAVE")
            await m.push("lost")
            await until_idle(c)
            srv.kill()
            srv.start()
            with pytest.raises(MessageLost):
                await m.push("refused")
            async with asyncio.timeout(DEADLINE_S):
                events = await read_until_ends(sub, "c")
    error = view_of(events).messages[0]["error"]
    assert error is not None
    assert error["code"] == "data_lost"
