import asyncio
import contextlib

import pytest

from riverdelta import Producer, Settings, Stopped
from riverdelta_gateway.serve import Running, gateway_server
from riverdelta_gateway.settings import GatewaySettings
from tests.support.gateway.clients import client, first_seq, view_of
from tests.support.local_workers import local_workers
from tests.support.producers import registry_of
from tests.support.reading import BEGINNING
from tests.support.servers import until


async def test_a_client_gets_a_reply_as_it_streams(
    gateway: Running, settings: Settings, producer: Producer
) -> None:
    async with local_workers(settings), client(gateway.url) as browser:
        await browser.subscribe("c1")
        async with producer.message("c1", source="text", message_id="m1") as message:
            for word in ("Hello", " wide", " world"):
                await message.push(word)
        events = await browser.until_end()
    assert events[0].type == "snapshot"
    assert view_of(events).text("m1") == "Hello wide world"


async def test_a_position_resumes_exactly_behind_it(
    gateway: Running, settings: Settings, producer: Producer
) -> None:
    async with local_workers(settings), client(gateway.url) as first:
        await first.subscribe("c1")
        async with producer.message("c1", source="text", message_id="m1") as message:
            await message.push("one")
            await message.push(" two")
        events = await first.until_end()
        for seen in range(1, len(events)):
            async with client(gateway.url) as second:
                if seen == len(events) - 1:
                    break
                await second.subscribe("c1", events[seen].position)
                rest = await second.until_end()
                assert [event.seq for event in rest][-1] == events[-1].seq
                view_of([*events[: seen + 1], *rest])


async def test_two_chats_on_one_socket_and_two_sockets_on_one_chat(
    gateway: Running, settings: Settings, producer: Producer
) -> None:
    async with local_workers(settings), client(gateway.url) as one, client(gateway.url) as two:
        await one.subscribe("a")
        await one.subscribe("b")
        await two.subscribe("a")

        async def reply(chat_id: str) -> None:
            async with producer.message(chat_id, source="text", message_id="m") as message:
                await message.push(f"this is {chat_id}")

        await asyncio.gather(reply("a"), reply("b"))
        both = await one.until_end(2)
        for chat_id in ("a", "b"):
            view = view_of([event for event in both if event.chat == chat_id])
            assert view.text("m") == f"this is {chat_id}"
        assert view_of(await two.until_end()).text("m") == "this is a"
        assert gateway.services.hub.chats == 2


async def test_every_socket_gets_every_delta_of_its_chat_in_order(
    settings: Settings, producer: Producer
) -> None:
    """The size of this is in the bench: `make bench ARGS='--only gateway'`."""
    chats = [f"c{number}" for number in range(10)]
    limits = GatewaySettings(dev=True, port=0, max_sockets_per_user=200)
    async with (
        local_workers(settings),
        gateway_server(settings, limits) as running,
        contextlib.AsyncExitStack() as stack,
    ):
        readers = []
        for chat_id in chats * 10:
            browser = await stack.enter_async_context(client(running.url))
            await browser.subscribe(chat_id, BEGINNING)
            readers.append(asyncio.create_task(browser.until_end()))

        async def reply(chat_id: str) -> None:
            async with producer.message(chat_id, source="text", message_id="m") as message:
                for number in range(20):
                    await message.push(f"{chat_id}.{number} ")

        await asyncio.gather(*(reply(chat_id) for chat_id in chats))
        for chat_id, events in zip(chats * 10, await asyncio.gather(*readers), strict=True):
            assert first_seq(events[0]) == 1
            text = view_of(events).text("m")
            assert text == "".join(f"{chat_id}.{number} " for number in range(20))
        assert running.services.hub.chats == len(chats)


async def test_a_chat_without_readers_is_left_after_a_while(
    settings: Settings, producer: Producer
) -> None:
    limits = GatewaySettings(dev=True, port=0, linger_s=0.2)
    async with gateway_server(settings, limits) as running, client(running.url) as browser:
        hub = running.services.hub
        await browser.subscribe("c")
        assert (await anext(browser.events())).type == "snapshot"
        await browser.ask("/chats/unsubscribe", {"chat_id": "c"})
        assert hub.chats == 1
        await browser.subscribe("c")

        async def left() -> bool:
            return hub.chats == 0

        with pytest.raises(AssertionError):
            await until(left, deadline_s=0.5)
        await browser.ask("/chats/unsubscribe", {"chat_id": "c"})
        await until(left)


async def test_a_void_position_gives_a_snapshot(
    gateway: Running, settings: Settings, producer: Producer
) -> None:
    async with local_workers(settings):
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("all of it")
        for void in ("feedbeef:3", "00000000:7"):
            async with client(gateway.url) as browser:
                await browser.subscribe("c", void)
                assert view_of(await browser.until_end()).text("m") == "all of it"


async def test_a_reader_stops_a_reply(
    gateway: Running, settings: Settings, producer: Producer
) -> None:
    async with local_workers(settings), client(gateway.url) as browser:
        await browser.subscribe("c")
        message = producer.message("c", source="text", message_id="m")
        await message.__aenter__()
        answer = await browser.ask("/chats/stop", {"chat_id": "c", "message_id": "m"})
        assert answer["payload"] == {"chat_id": "c", "message_ids": ["m"]}
        with pytest.raises(Stopped):
            await message.push("more")
        assert (await browser.until_end())[-1].type == "message.stopped"


async def test_chats_that_are_left_before_their_turn_leave_nothing_behind(
    settings: Settings,
) -> None:
    limits = GatewaySettings(dev=True, port=0, linger_s=0)
    async with gateway_server(settings, limits) as running, client(running.url) as browser:
        for number in range(50):
            for route in ("/chats/subscribe", "/chats/unsubscribe"):
                await browser.send(route, {"chat_id": f"c{number}"})
        await browser.ask("/chats/list", {})

        async def none_left() -> bool:
            return running.services.hub.chats == 0

        await until(none_left)


async def test_a_log_that_lacks_what_was_handed_out_is_made_up_for_by_a_snapshot(
    settings: Settings, producer: Producer
) -> None:
    async with (
        local_workers(settings),
        gateway_server(settings, GatewaySettings(dev=True, port=0)) as running,
        client(running.url) as first,
        client(running.url) as second,
    ):
        await first.subscribe("c", BEGINNING)
        async with producer.message("c", source="text", message_id="m") as message:
            await message.push("all of it")
        events = await first.until_end()
        keys = registry_of(producer).client.keys.chat("c")
        await registry_of(producer).client.chats.execute("XTRIM", keys.deltas, "MAXLEN", "0")
        await second.subscribe("c", events[1].position)
        late = await second.until_end()
    assert [event.type for event in late] == ["snapshot"]
    assert view_of(late).text("m") == "all of it"
