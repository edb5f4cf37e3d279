import asyncio

from riverdelta import Producer, Settings
from riverdelta_gateway.serve import Running
from tests.gateway.clients import client, view_of
from tests.integration.local_workers import local_workers


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
        assert gateway.services.hub.chats == 2

        async def reply(chat_id: str) -> None:
            async with producer.message(chat_id, source="text", message_id="m") as message:
                await message.push(f"this is {chat_id}")

        await asyncio.gather(reply("a"), reply("b"))
        both = await one.until_end(2)
        for chat_id in ("a", "b"):
            view = view_of([event for event in both if event.chat == chat_id])
            assert view.text("m") == f"this is {chat_id}"
        assert view_of(await two.until_end()).text("m") == "this is a"
