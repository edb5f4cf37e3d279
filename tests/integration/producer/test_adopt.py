"""A producer goes on with a turn that a gateway accepted."""

from collections.abc import Sequence
from typing import Any

import pytest

from riverdelta import (
    MessageEnded,
    MessageExists,
    MessageLost,
    Producer,
    Settings,
    Stopped,
    Subscriber,
)
from riverdelta.broker import turns
from riverdelta.broker.client import Client
from riverdelta.broker.producer.caretaker import Caretaker
from riverdelta.broker.store.turn_scripts import AcceptedTurn, TurnStart
from riverdelta.broker.turns import NewTurn, encode_start
from tests.support.local_workers import local_workers
from tests.support.reading import read_until_ends, view_of
from tests.support.servers import until

DELTA = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": {}}]}


async def accept(client: Client, message_id: str = "m", **options: Any) -> AcceptedTurn:
    start = encode_start(source="text", user="ann", metadata={"turn": "asked"}, replaces=())
    turn: dict[str, Any] = {
        "message_id": message_id,
        "user": "ann",
        "start": start,
        "policy": "queue",
        "replaces": (),
        "wait_ms": 600_000,
        "max_open": 3,
        "begins": True,
    }
    new = NewTurn("c", TurnStart(**turn | options))
    accepted = await turns.accept(client, new)
    if accepted.status == "accepted":
        await turns.attach(client, "c")
    return accepted


def texts(*words: str) -> Sequence[dict[str, Any]]:
    return [DELTA | {"choices": [{"index": 0, "delta": {"content": word}}]} for word in words]


async def until_folded(client: Client) -> None:
    head = client.keys.chat("c").head

    async def folded() -> bool:
        pushed, processed = await client.chats.execute("HMGET", head, "pushed", "processed")
        return bool(pushed is not None and pushed == processed)

    await until(folded)


@pytest.mark.parametrize("folded_before", [True, False])
async def test_readers_see_the_turn_before_it_is_adopted_and_the_reply_after(
    settings: Settings, client: Client, producer: Producer, folded_before: bool
) -> None:
    async with Subscriber(settings) as subscriber, local_workers(settings):
        await accept(client)
        if folded_before:
            await until_folded(client)
            (message,) = (await subscriber.snapshot("c")).data["messages"]
            assert (message["status"], message["metadata"]) == ("open", {"turn": "asked"})
        async with producer.adopt("c", "m", source="openai-chat", user="ann") as message:
            for chunk in texts("Hel", "lo"):
                await message.push(chunk)
        events = await read_until_ends(subscriber, "c")
        await until_folded(client)
        kept = await client.chats.execute("HKEYS", client.keys.chat("c").head)
    assert view_of(events).text("m") == "Hello"
    assert [name for name in kept if name.startswith((b"last.", b"open."))] == []


async def test_a_new_owner_goes_on_with_a_turn_that_was_adopted(
    settings: Settings, client: Client, producer: Producer
) -> None:
    message = producer.adopt("c", "m", source="openai-chat", user="ann")
    async with Subscriber(settings) as subscriber:
        async with local_workers(settings):
            await accept(client)
            await until_folded(client)  # stored as a turn that waits
        async with local_workers(settings):
            await message.__aenter__()
            await message.push(texts("Hel")[0])
            await until_folded(client)  # stored as the producer's
        async with local_workers(settings):
            await message.push(texts("lo")[0])
            await message.end()
            events = await read_until_ends(subscriber, "c")
    assert view_of(events).text("m") == "Hello"


async def test_a_turn_is_written_by_one_producer_only(
    settings: Settings, client: Client, producer: Producer
) -> None:
    await accept(client)
    async with Producer(settings) as other:
        ours = producer.adopt("c", "m", source="text")
        await ours.__aenter__()
        for who in (other, producer):
            with pytest.raises(MessageExists):
                await who.adopt("c", "m", source="text").__aenter__()
        await ours.annotate("title", {"title": "no chunk"})
        assert await ours.release()
        with pytest.raises(MessageEnded):
            await ours.push("x")
        async with other.adopt("c", "m", source="text") as theirs:
            await theirs.push("x")
            assert not await theirs.release()
    listed = await client.queue.execute("SMEMBERS", client.keys.producer_messages(producer.id))
    assert listed == []


async def test_a_turn_that_ended_or_was_never_there_is_not_written(
    settings: Settings, client: Client, producer: Producer
) -> None:
    with pytest.raises(MessageLost):
        await producer.adopt("c", "m", source="text").__aenter__()
    async with Subscriber(settings) as subscriber, local_workers(settings):
        await accept(client)
        assert await subscriber.stop("c") == ["m"]
        with pytest.raises(Stopped, match="by a reader"):
            await producer.adopt("c", "m", source="text").__aenter__()
        events = await read_until_ends(subscriber, "c")
        assert view_of(events).messages[0]["status"] == "stopped"
        with pytest.raises(MessageEnded):
            await producer.adopt("c", "m", source="text").__aenter__()
    listed = await client.queue.execute("SMEMBERS", client.keys.producer_messages(producer.id))
    assert listed == []


async def test_a_new_owner_takes_nobody_for_the_dead_producer_of_a_turn_that_waits(
    settings: Settings, client: Client
) -> None:
    async with local_workers(settings):
        await accept(client)
        await until_folded(client)
    head = client.keys.chat("c").head

    async def owned() -> bool:
        return bool(await client.chats.execute("HGET", head, "owner"))

    async with local_workers(settings):
        await accept(client, "m2")
        await until(owned)
        await until_folded(client)
        assert await client.queue.execute("HKEYS", client.keys.producers) == []


async def test_an_accepted_turn_whose_gateway_died_at_once_is_seen_by_readers_and_ends(
    settings: Settings, client: Client
) -> None:
    start = encode_start(source="text", user="ann", metadata={}, replaces=())
    turn = TurnStart("m", "ann", start, "queue", (), 300, 3, begins=True)
    await turns.accept(client, NewTurn("c", turn))  # and nothing after it
    async with Subscriber(settings) as subscriber, local_workers(settings):
        view = view_of(await read_until_ends(subscriber, "c"))
    (message,) = view.messages
    assert message["error"] is not None
    assert message["error"]["code"] == "not_started"


RESTORE = """
for k = 1, #KEYS do
  redis.call('DEL', KEYS[k])
  if ARGV[k] ~= '' then redis.call('RESTORE', KEYS[k], 0, ARGV[k]) end
end
return {'restored'}
"""
"""In one step: a producer looks at any time."""


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Caretaker, "every_s", 0.05)


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("lost", ["the adoption", "the turn"])
async def test_what_a_server_lost_of_an_adopted_turn_is_sent_again(
    settings: Settings, client: Client, producer: Producer, lost: str
) -> None:
    keys = client.keys.chat("c")
    every = (keys.head, keys.chunks, keys.producers, keys.message("m"), keys.deltas)
    await accept(client)
    before = [await client.chats.execute("DUMP", key) for key in every]
    message = producer.adopt("c", "m", source="openai-chat", user="ann", metadata={"turn": "asked"})
    await message.__aenter__()
    await message.push(texts("Hel")[0])
    kept = before if lost == "the adoption" else [None] * len(every)
    args = [stored or b"" for stored in kept]
    await client.chats.execute("EVAL", RESTORE, len(every), *every, *args)
    await message.push(texts("lo")[0])
    await message.end()
    async with Subscriber(settings) as subscriber, local_workers(settings):
        events = await read_until_ends(subscriber, "c")
    view = view_of(events)
    assert (view.text("m"), view.messages[0]["metadata"]) == ("Hello", {"turn": "asked"})
