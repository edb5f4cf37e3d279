"""The scripts about users, held to their contracts."""

from typing import Any

import pytest

from riverdelta import NotChatOwner, Producer
from riverdelta.broker.client import Client
from riverdelta.broker.redis.pubsub import ShardedPubSub
from riverdelta.broker.store import scripts
from riverdelta.broker.user_chats import Announcement, announce, list_chats, read_announcement
from tests.support.servers import until


async def test_a_chat_belongs_to_who_opened_it_first(client: Client, producer: Producer) -> None:
    for number, user in enumerate(("ann", "ann", None)):
        await producer.message("c", source="text", message_id=f"m{number}", user=user).__aenter__()
    await producer.message("nobodys", source="text", user=None).__aenter__()
    for chat_id, owner in (("c", b"ann"), ("nobodys", b"")):
        head = client.keys.chat(chat_id).head
        assert await client.chats.execute("HGET", head, "user") == owner


@pytest.mark.parametrize("owner", ["ann", None])
async def test_a_message_for_another_user_is_refused_and_nothing_is_stored(
    client: Client, producer: Producer, owner: str | None
) -> None:
    await producer.message("c", source="text", message_id="m", user=owner).__aenter__()
    before = await _stored(client, "c")
    squatted = producer.message("c", source="text", message_id="reply", user="bob")
    with pytest.raises(NotChatOwner, match="use another chat id") as refused:
        async with squatted as message:
            await message.push("for Bob only")
    assert "ann" not in str(refused.value)
    with pytest.raises(NotChatOwner):
        await squatted.push("for Bob only")
    async with Producer(client.settings) as another:  # which ids are taken is not said either
        with pytest.raises(NotChatOwner):
            await another.message("c", source="text", message_id="m", user="bob").__aenter__()
    assert await _stored(client, "c") == before
    assert await list_chats(client, "bob") == []
    open_ones = await client.queue.execute("SMEMBERS", client.keys.producer_messages(producer.id))
    assert open_ones == [b"c m"]


async def test_a_chat_that_the_server_lost_and_another_user_made_gets_no_resends(
    client: Client, producer: Producer
) -> None:
    async with producer.message("c", source="text", message_id="m", user="bob") as message:
        await message.push("for Bob only")
        keys = client.keys.chat("c")
        every = (keys.head, keys.chunks, keys.producers, keys.message("m"), keys.deltas)
        await client.chats.execute("DEL", *every)
        await producer.message("c", source="text", message_id="a", user="ann").__aenter__()
        before = await _stored(client, "c")
        with pytest.raises(NotChatOwner):
            await message.push("more for Bob only")
    assert await _stored(client, "c") == before


async def _stored(client: Client, chat_id: str) -> dict[bytes, Any]:
    """What is stored of a chat, by key."""
    keys = sorted(await client.chats.execute("KEYS", f"*{{{chat_id}}}*"))
    return {key: await client.chats.execute("DUMP", key) for key in keys}


async def test_chats_are_listed_with_the_last_active_first_and_old_ones_forgotten(
    client: Client,
) -> None:
    listed = client.keys.user_chats("ann")
    await client.queue.execute("ZADD", listed, 1, "of-1970")
    for chat_id in ("a", "b", "a"):
        await announce(client, "ann", Announcement(chat_id, "m"))
        before = await client.queue.execute("TIME")
        await until(lambda before=before: _later(client, before[1]))  # type: ignore[misc]  # a default binds
    chats = await list_chats(client, "ann")
    assert [chat_id for chat_id, _ in chats] == ["a", "b"]
    assert chats[0][1] > chats[1][1] > 1_700_000_000_000
    assert 0 < await client.queue.execute("PTTL", listed) <= client.settings.retention_s * 1000
    assert await list_chats(client, "bob") == []


async def _later(client: Client, microseconds: bytes) -> bool:
    """Whether the server's clock shows another millisecond."""
    now = await client.queue.execute("TIME")
    return bool(int(now[1]) // 1000 != int(microseconds) // 1000)


async def test_what_is_opened_is_announced_on_the_users_channel(client: Client) -> None:
    received: list[tuple[str, bytes]] = []
    pubsub = ShardedPubSub(
        client.settings.redis_url,
        5,
        on_message=lambda channel, payload: received.append((channel, payload)),
        on_gap=lambda _: None,
    )
    await pubsub.start()
    await pubsub.subscribe(client.keys.user_chats("ann"))
    await announce(client, "bob", Announcement("c0", "m"))
    await announce(client, "ann", Announcement("c1", "m"))

    async def arrived() -> bool:
        return bool(received)

    await until(arrived)
    await pubsub.aclose()
    ((channel, payload),) = received
    assert client.keys.user_of_chats(channel) == "ann"
    assert read_announcement(payload) == Announcement("c1", "m")
    for junk in (b"", b"{", b"[]", b'{"chat": 1, "message": "m"}'):
        with pytest.raises(ValueError):  # noqa: PT011  # what json raises, and we
            read_announcement(junk)


async def test_a_bucket_gives_what_it_holds_and_then_what_comes_in(client: Client) -> None:
    async def take(name: str = "posts", per_s: float = 0.5) -> float:
        key = client.keys.user_bucket("ann", name)
        return await scripts.take_token(client.queue, key, capacity=2, per_s=per_s)

    assert [await take(), await take()] == [0, 0]
    assert 1 < await take() <= 2
    assert await take("others") == 0
    bucket = client.keys.user_bucket("ann", "posts")
    assert 0 < await client.queue.execute("PTTL", bucket) <= 4000
    await client.queue.execute("HSET", bucket, "at", 1_700_000_000_000)  # long ago: full again
    assert [await take(), await take()] == [0, 0]
    await client.queue.execute("HSET", bucket, "at", 9_700_000_000_000)  # the clock was set back
    assert await take() > 0

    async def refilled() -> bool:
        return await take("others", per_s=100) == 0

    assert await take("others") == 0
    await until(refilled)
