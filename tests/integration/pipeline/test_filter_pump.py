"""Filter agents in the way of the data: pushed, filtered, folded, read."""

import asyncio

from riverdelta import Producer, Settings, Subscriber
from riverdelta.broker.client import Client
from riverdelta.broker.filter_agents import HttpAgent
from tests.support.agent_server import (
    AgentServer,
    Request,
    agent,
    answer,
    hang,
    upper,
)
from tests.support.local_workers import local_workers
from tests.support.reading import BEGINNING, converse, read_until_ends, view_of
from tests.support.servers import until


def with_agents(settings: Settings, *agents: HttpAgent) -> Settings:
    return settings.model_copy(update={"filter_agents": agents})


async def by_word(request: Request, writer: asyncio.StreamWriter) -> None:
    says = {b"drop ": answer(b""), b"fail ": answer(b"", "500 Oops")}
    writer.write(says.get(request.body, answer(request.body.upper())))


async def test_the_reader_gets_what_the_agents_let_through_and_learns_what_failed(
    settings: Settings, producer: Producer, subscriber: Subscriber, client: Client
) -> None:
    expected = {"pass": "ONE fail TWO fail THREE", "block": "ONE TWO THREE"}
    for chat, text in expected.items():
        async with AgentServer(by_word) as server:
            filtered = with_agents(settings, agent(server.url, on_failure=chat))
            async with local_workers(filtered):
                async with producer.message(chat, source="text", message_id="m") as message:
                    await message.push_many(["one ", "drop ", "fail ", "two ", "fail ", "three"])
                events = await read_until_ends(subscriber, chat, after=BEGINNING)
        keys = client.keys.chat(chat)
        assert view_of(events).text("m") == text
        failed = [event.data for event in events if event.type == "input.rejected"]
        code = "filter_failed" if chat == "pass" else "filter_blocked"
        assert failed[0] == {"code": code, "detail": "filter agent agent answered 500"}
        assert len(failed) == (1 if chat == "pass" else 2)
        dead = await client.chats.execute("XRANGE", keys.dead, "-", "+")
        assert [fields[9] for _, fields in dead] == ([] if chat == "pass" else [b"fail "] * 2)
        names = ("pushed", "processed", "pushed_bytes", "processed_bytes")
        head = await client.chats.execute("HMGET", keys.head, *names)
        assert (head[0], head[2]) == (head[1], head[3])


async def test_a_chat_whose_agent_hangs_keeps_no_other_chat_waiting(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    go_on = asyncio.Event()

    async def by_chat(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.headers["riverdelta-chat"] == "hung":
            await go_on.wait()
        await upper(request, writer)

    async with (
        AgentServer(by_chat) as server,
        local_workers(with_agents(settings, agent(server.url, timeout_s=3_600))),
    ):
        async with producer.message("hung", source="text", message_id="m") as message:
            texts = [f"{number} " for number in range(200)]
            await message.push_many(texts)
            await converse(producer, subscriber, "well")
            hung = (await subscriber.snapshot("hung")).data["messages"]
            assert not [chunk for message in hung for chunk in message["chunks"]]
            go_on.set()
        events = await read_until_ends(subscriber, "hung", after=BEGINNING)
    assert view_of(events).text("m") == "".join(texts)


async def test_a_hung_agent_does_not_hold_up_the_hand_over(
    settings: Settings, producer: Producer, subscriber: Subscriber
) -> None:
    """And the next owner asks again: nothing was decided."""
    async with AgentServer(hang) as server:
        hanging = with_agents(settings, agent(server.url, timeout_s=3_600, on_failure="block"))
        async with local_workers(hanging):
            async with producer.message("c", source="text", message_id="m") as message:
                await message.push("x")

            async def asked() -> bool:
                return bool(server.requests)

            await until(asked)
    async with (
        AgentServer(upper) as server,
        local_workers(with_agents(settings, agent(server.url))),
    ):
        events = await read_until_ends(subscriber, "c", after=BEGINNING)
    assert view_of(events).text("m") == "X"
